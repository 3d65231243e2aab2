"""Poses of one body over time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from ofvl_core.geometry import Array

Stamps = NDArray[np.int64]

LARGEST_GAP = 0.35
"""Seconds between two poses up to which poses between them can be told: three revolutions of a LiDAR."""


@dataclass(frozen=True, eq=False)
class StampedPath:
    """Poses frame_from_body (N, 4, 4) at rising `stamps` (N,), integer nanoseconds of the sensors' clock."""

    stamps: Stamps
    poses: Array

    def __len__(self) -> int:
        return len(self.stamps)

    def covers(self, stamps: Stamps, largest_gap: float = LARGEST_GAP) -> NDArray[np.bool_]:
        """Which stamps (K,) lie between two poses that are at most `largest_gap` seconds apart."""
        after = np.searchsorted(self.stamps, stamps).clip(1, max(len(self) - 1, 1))
        if len(self) < 2:
            return np.isin(stamps, self.stamps)
        gap = self.stamps[after] - self.stamps[after - 1]
        inside = (stamps >= self.stamps[0]) & (stamps <= self.stamps[-1])
        return inside & (gap <= largest_gap * 1e9)

    def at(self, stamps: Stamps) -> Array:
        """Poses (K, 4, 4) at `stamps` (K,): straight lines and SLERP; held at the ends."""
        if len(self) == 1:
            return np.repeat(self.poses, len(stamps), axis=0)
        seconds = (self.stamps - self.stamps[0]) * 1e-9
        asked = ((stamps - self.stamps[0]) * 1e-9).clip(0, seconds[-1])
        result = np.tile(np.eye(4), (len(stamps), 1, 1))
        result[:, :3, :3] = Slerp(seconds, Rotation.from_matrix(self.poses[:, :3, :3]))(asked).as_matrix()
        for axis in range(3):
            result[:, axis, 3] = np.interp(asked, seconds, self.poses[:, axis, 3])
        return result
