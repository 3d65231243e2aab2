"""One revolution of a spinning LiDAR."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scan:
    """What a spinning LiDAR measured in one revolution.

    `stamp` is the revolution's end in integer nanoseconds. `points` (N, 3), float32 metres, are in the
    sensor's frame (x forward, y left, z up), each as it was seen at its own time: `times` (N,), float32
    seconds after `stamp`, from about -0.1 to 0. `rings` (N,), uint8, count the lasers from the lowest.
    """

    stamp: int
    points: NDArray[np.float32]
    rings: NDArray[np.uint8]
    times: NDArray[np.float32]
