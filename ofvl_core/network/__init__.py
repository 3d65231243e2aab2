"""OFVL-MS, the network (paper Sec. 3.2)."""

from ofvl_core.network.architecture import ARCHITECTURES, Architecture
from ofvl_core.network.ofvl_ms import OFVLMS, Prediction

__all__ = ["ARCHITECTURES", "OFVLMS", "Architecture", "Prediction"]
