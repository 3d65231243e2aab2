"""OFVL-MS, the network (paper Sec. 3.2)."""

from ofvl_core.network.ofvl_ms import ARCHITECTURES, OFVLMS, Architecture, Prediction

__all__ = ["ARCHITECTURES", "OFVLMS", "Architecture", "Prediction"]
