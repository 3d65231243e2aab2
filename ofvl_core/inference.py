"""The network on its device: an image of bytes in, what its cells see out, with nothing allocated there.

On a GPU an image is resized into pinned memory, copied while the CPU goes on, computed in half precision by a
CUDA graph that was captured for its scene and size, and the answer comes back in one copy.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera
from ofvl_core.device import has_fast_bfloat16
from ofvl_core.geometry import Array
from ofvl_core.network import OFVLMS
from ofvl_core.resize import normalise, resize

SIZES = 4
"""Input sizes whose buffers and graphs are kept: a camera has one, another comes when it is reconfigured."""


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
    """Memory for one size (H, W) of input; on a GPU also the graphs that read and write it, by scene.

    The graphs share their scratch memory: they run one after the other.
    """

    def __init__(self, size: tuple[int, int], stride: int, device: torch.device):
        height, width = size
        on_gpu = device.type == "cuda"
        self.staging = torch.empty((height, width, 3), dtype=torch.uint8, pin_memory=on_gpu)
        self.image = torch.empty_like(self.staging, device=device) if on_gpu else self.staging
        self.cells = torch.empty((4, (height // stride) * (width // stride)), pin_memory=on_gpu)
        self.graphs: dict[str, _Graph | None] = {}
        self.pool = torch.cuda.graph_pool_handle() if on_gpu else None


class Inference:
    """A model in evaluation mode on `device`, for one thread at a time: `put` an image, then `predict`."""

    def __init__(self, model: OFVLMS, device: torch.device):
        self._model, self._device = model, device
        self._precision = torch.bfloat16 if has_fast_bfloat16(device) else torch.float16
        self._sizes: OrderedDict[tuple[int, int], _Buffers] = OrderedDict()
        self._current: _Buffers | None = None

    @torch.inference_mode()
    def put(self, image_rgb: NDArray[np.uint8], camera: Camera) -> None:
        """Bring an image (H, W, 3) to the size of the network's input `camera` and to the device."""
        size = camera.height, camera.width
        if size not in self._sizes:
            if len(self._sizes) == SIZES:
                self._sizes.popitem(last=False)
            self._sizes[size] = _Buffers(size, self._model.architecture.stride, self._device)
        self._sizes.move_to_end(size)
        self._current = self._sizes[size]
        resize(image_rgb, camera, self._current.staging.numpy())
        if self._device.type == "cuda":
            self._current.image.copy_(self._current.staging, non_blocking=True)

    @torch.inference_mode()
    def predict(self, scene: str) -> tuple[Array, Array]:
        """Scene coordinates (N, 3) and uncertainties (N,), metres, of the image that was last `put`."""
        assert self._current is not None
        buffers, compute = self._current, partial(self._compute, self._current.image, scene)
        if self._device.type == "cuda":
            if scene not in buffers.graphs:
                buffers.graphs[scene] = _Graph.captured(compute, buffers.pool)
            graph = buffers.graphs[scene]
            buffers.cells.copy_(graph.replay() if graph else compute(), non_blocking=True)
            torch.cuda.current_stream().synchronize()
        else:
            buffers.cells.copy_(compute())
        rows = buffers.cells.numpy().astype(np.float64)
        return np.ascontiguousarray(rows[:3].T), rows[3]

    def _compute(self, image: Tensor, scene: str) -> Tensor:
        """Coordinates and uncertainty (4, N) of an image (H, W, 3) on the device."""
        # cached half-precision weights would not outlive the capture of a graph that reads them
        with torch.autocast(
            self._device.type, self._precision, enabled=self._device.type == "cuda", cache_enabled=False
        ):
            prediction = self._model(normalise(image.permute(2, 0, 1)[None]), scene)
        return torch.cat([prediction.coordinates, prediction.log_uncertainty.exp()], dim=1)[0].flatten(1)
