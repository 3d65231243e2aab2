"""Batches drawn while the network computes, and how they get to its device."""

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

Drawn = TypeVar("Drawn")


class DrawnAhead(ABC, Generic[Drawn]):
    """A source of numbered batches, which `_draw` draws in the memory of the host.

    For a GPU the next one is drawn while the network computes; on a CPU the two would share its cores.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._pool = ThreadPoolExecutor(1) if device.type != "cpu" else None
        self._ahead: tuple[int, Future[Drawn]] | None = None

    @abstractmethod
    def _draw(self, iteration: int) -> Drawn:
        """What is drawn for batch number `iteration`, the same whenever it is asked for."""

    def _drawn(self, iteration: int) -> Drawn:
        """What is drawn for `iteration`, ahead when the one before was the last asked for."""
        if self._pool is None:
            return self._draw(iteration)
        if self._ahead is None or self._ahead[0] != iteration:
            drawn = self._draw(iteration)
        else:
            drawn = self._ahead[1].result()
        self._ahead = iteration + 1, self._pool.submit(self._draw, iteration + 1)
        return drawn


def put(array: NDArray, device: torch.device) -> Tensor:
    """The array on the device; from pinned memory the copy to a GPU runs beside the computation."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
