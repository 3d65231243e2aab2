"""A map of points in which every small cube holds one: the mean of all that fell into it."""

import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import Array

Keys = NDArray[np.int64]

REACH = 1 << 20  # cubes in either direction of an axis


class VoxelMap:
    """Means of points in cubes of `size` metres."""

    def __init__(self, size: float) -> None:
        self._size = size
        self._keys: Keys = np.zeros(0, np.int64)
        self._sums = np.zeros((0, 4))  # of x, y, z and the number of points

    @property
    def points(self) -> Array:
        """The means (N, 3), metres."""
        return self._sums[:, :3] / self._sums[:, 3:]

    def add(self, points: Array) -> None:
        """Take points (N, 3) in."""
        cells = np.floor(points / self._size).astype(np.int64).clip(-REACH, REACH - 1) + REACH
        keys = np.concatenate([self._keys, (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]])
        sums = np.concatenate([self._sums, np.column_stack([points, np.ones(len(points))])])
        self._keys, place = np.unique(keys, return_inverse=True)
        self._sums = np.stack(
            [np.bincount(place, column, minlength=len(self._keys)) for column in sums.T], axis=1
        )
