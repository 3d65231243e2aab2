"""Inference on a CPU: each scene's network by itself, made when it is first asked for."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ofvl_core.engines.scene_network import SceneNetwork
from ofvl_core.geometry import Array
from ofvl_core.network import OFVLMS

Runner = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""A scene's network: images (K, H, W, 3) to coordinates (K, 3, h, w) and uncertainties (K, 1, h, w).
Both are metres, in memory that the next call may overwrite."""

KEPT_FOLDED = 2
"""Networks of PyTorch that are kept. Each holds its convolutions once more than the model; folding one takes
milliseconds, 30 at OFVL-MS34."""


class CpuEngine:
    """Runners that `load` makes, each for a scene and a shape (K, H, W, 3) of input; `kept` of them stay."""

    def __init__(self, load: Callable[[str, tuple[int, ...]], Runner], kept: int):
        self._load, self._kept = load, kept
        self._runners: OrderedDict[tuple[str, tuple[int, ...]], Runner] = OrderedDict()
        self._images: NDArray[np.uint8] | None = None

    def put(self, images: NDArray[np.uint8]) -> None:
        """See `Engine`."""
        self._images = np.require(images, requirements=("C", "W"))  # which torch asks of what it shares

    def predict(self, scene: str) -> tuple[Array, Array]:
        """See `Engine`. Raises ConfigError when the scene cannot be run so."""
        assert self._images is not None
        key = scene, self._images.shape
        if key not in self._runners:
            while len(self._runners) >= self._kept:
                self._runners.popitem(last=False)
            self._runners[key] = self._load(*key)
        self._runners.move_to_end(key)
        coordinates, uncertainties = self._runners[key](self._images)
        points = np.moveaxis(coordinates, 1, -1).astype(np.float64, order="C").reshape(-1, 3)
        return points, uncertainties.ravel().astype(np.float64)


def torch_runner(model: OFVLMS, scene: str, dtype: torch.dtype = torch.float32) -> Runner:
    """PyTorch, its convolutions in `dtype`, for images of any shape."""
    network = SceneNetwork(model, scene, dtype)

    @torch.inference_mode()
    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            coordinates, uncertainty = network(torch.from_numpy(images))
        return coordinates.numpy(), uncertainty.numpy()

    return run
