"""Inference on a GPU, with nothing allocated there for an image.

The views of an image go to pinned memory, are copied while the CPU goes on and computed in half precision
by a CUDA graph that was captured for the scene and their shape, and the answer comes back in one copy.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.device import has_fast_bfloat16
from ofvl_core.geometry import Array
from ofvl_core.network import OFVLMS
from ofvl_core.resize import normalise

SIZES = 4
"""Shapes of input whose buffers and graphs are kept: a camera has one, and another after it was changed."""


class _Graph:
    """A computation recorded on the GPU, which is then started as a whole; its memory stays its own."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor):
        self._graph, self._output = graph, output

    @classmethod
    def captured(cls, compute: Callable[[], Tensor], pool: Any) -> "_Graph | None":
        """The graph of `compute`, its scratch memory in `pool`; None where the driver cannot record it."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries choose their kernels and allocate before the capture
            compute()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:  # another localizer's thread may allocate meanwhile, which is no concern of this capture
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                output = compute()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None
        return cls(graph, output)

    def replay(self) -> Tensor:
        """The output, which the next replay overwrites."""
        self._graph.replay()
        return self._output


class _Buffers:
    """Memory for one shape (K, H, W, 3) of input, and the graphs that read and write it, by scene.

    The graphs share their scratch memory: they run one after the other.
    """

    def __init__(self, shape: tuple[int, ...], stride: int, device: torch.device):
        views, height, width, _ = shape
        self.staging = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.images = torch.empty_like(self.staging, device=device)
        self.cells = torch.empty((views * (height // stride) * (width // stride), 4), pin_memory=True)
        self.graphs: dict[str, _Graph | None] = {}
        self.pool = torch.cuda.graph_pool_handle()


class GraphEngine:
    """An engine for all scenes of a `model` in evaluation mode that is on the GPU `device`."""

    def __init__(self, model: OFVLMS, device: torch.device):
        self._model, self._device = model, device
        self._precision = torch.bfloat16 if has_fast_bfloat16(device) else torch.float16
        self._sizes: OrderedDict[tuple[int, ...], _Buffers] = OrderedDict()
        self._current: _Buffers | None = None

    @torch.inference_mode()
    def put(self, images: NDArray[np.uint8]) -> None:
        """See `Engine`."""
        shape = images.shape
        if shape not in self._sizes:
            if len(self._sizes) == SIZES:
                self._sizes.popitem(last=False)
            self._sizes[shape] = _Buffers(shape, self._model.architecture.stride, self._device)
        self._sizes.move_to_end(shape)
        self._current = self._sizes[shape]
        np.copyto(self._current.staging.numpy(), images)
        self._current.images.copy_(self._current.staging, non_blocking=True)

    @torch.inference_mode()
    def predict(self, scene: str) -> tuple[Array, Array]:
        """See `Engine`."""
        assert self._current is not None
        buffers, compute = self._current, partial(self._compute, self._current.images, scene)
        if scene not in buffers.graphs:
            buffers.graphs[scene] = _Graph.captured(compute, buffers.pool)
        graph = buffers.graphs[scene]
        buffers.cells.copy_(graph.replay() if graph else compute(), non_blocking=True)
        torch.cuda.current_stream().synchronize()
        rows = buffers.cells.numpy().astype(np.float64)
        return np.ascontiguousarray(rows[:, :3]), rows[:, 3]

    def _compute(self, images: Tensor, scene: str) -> Tensor:
        """Coordinates and uncertainty (N, 4) of images (K, H, W, 3) on the GPU."""
        # cached half-precision weights would not outlive the capture of a graph that reads them
        with torch.autocast(self._device.type, self._precision, cache_enabled=False):
            prediction = self._model(normalise(images.permute(0, 3, 1, 2)), scene)
        rows = torch.cat([prediction.coordinates, prediction.log_uncertainty.exp()], dim=1)
        return rows.permute(0, 2, 3, 1).reshape(-1, 4)
