"""What runs the network: PyTorch, always there, or OpenVINO, where it is installed, on the CPU.

An engine takes an image of bytes and says what its cells see, in the scene asked for. On a CPU a scene's
network is made by itself when it is first asked for (`scene_network`), and only a few stay; on a GPU one
model serves all scenes (`graphs`).
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ofvl_core.device import choose_device
from ofvl_core.engines.cpu import KEPT_FOLDED, CpuEngine, Runner, torch_runner
from ofvl_core.engines.graphs import GraphEngine
from ofvl_core.engines.int8 import Quantisation
from ofvl_core.engines.openvino import KEPT_COMPILED, is_installed, openvino_runner
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array
from ofvl_core.network import OFVLMS

ENGINES = ("auto", "torch", "torch-bfloat16", "openvino", "openvino-bfloat16", "openvino-int8")
"""Names, with their precision where that is not float32; a GPU computes in half precision with torch.

`auto` is openvino-int8 for scenes that `ofvl quantise` has found fit for it, on a CPU and where OpenVINO is
installed, else torch: without a quantisation nothing depends on what else is installed.
"""

Quantised = Callable[[str], Quantisation | None]
"""Of a scene by its name."""


class Engine(Protocol):
    """A model on its device, for one thread at a time: `put` an image, then `predict` it in any scenes."""

    def put(self, images: NDArray[np.uint8]) -> None:
        """Bring views of an image (K, H, W, 3), of the size of the network's input, to the device."""

    def predict(self, scene: str) -> tuple[Array, Array]:
        """Scene coordinates (N, 3) and uncertainties (N,), metres, of the cells of the views last `put`.

        They come view by view and row by row.
        """


def choose_engine(name: str, device: str) -> tuple[str, torch.device]:
    """An engine by its name, and where it computes; OpenVINO takes the CPU.

    Raises ConfigError for an unknown name or device, a device that is not there or not the engine's, and
    for OpenVINO where that is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(f"unknown engine '{name}'; choose one of {', '.join(ENGINES)}")
    if not name.startswith("openvino"):
        return name, choose_device(device)
    if device == "cuda":
        raise ConfigError(f"engine {name} computes on the CPU; choose device cpu, or engine torch")
    if not is_installed():
        raise ConfigError(f"engine {name} needs OpenVINO: pip install openvino, or choose engine torch")
    return name, choose_device("cpu" if device == "auto" else device)


def make_engine(name: str, model: OFVLMS, device: torch.device, quantised: Quantised) -> Engine:
    """The engine of that name for a `model` in evaluation mode that is on `device` already."""
    if device.type == "cuda":
        return GraphEngine(model, device)
    if name == "auto" and not (is_installed() and any(map(quantised, model.scenes))):
        name = "torch"

    def load(scene: str, shape: tuple[int, ...]) -> Runner:
        if name == "torch" or (name == "auto" and quantised(scene) is None):
            return torch_runner(model, scene)
        if name == "torch-bfloat16":
            return torch_runner(model, scene, torch.bfloat16)
        if name == "openvino":
            return openvino_runner(model, scene, shape)
        if name == "openvino-bfloat16":
            return openvino_runner(model, scene, shape, precision="bf16")
        quantisation = quantised(scene)
        if quantisation is None:
            raise ConfigError(
                f"scene '{scene}' was not prepared for int8: run ofvl quantise, or choose another engine"
            )
        return openvino_runner(model, scene, shape, quantisation=quantisation)

    return CpuEngine(load, KEPT_FOLDED if name.startswith("torch") else KEPT_COMPILED)
