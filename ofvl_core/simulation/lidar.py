"""A VLP-16: sixteen lasers that turn ten times a second, and see a moving world column by column.

Angles and firing times are those of the VLP-16 User Manual by Velodyne (firing sequence, laser angles).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofvl_core.lidar.scan import Scan
from ofvl_core.simulation.world import World

Array = NDArray[np.float64]

RINGS = 16
ELEVATIONS = np.radians(np.linspace(-15, 15, RINGS))  # of each ring, the lowest first
REVOLUTION = 0.1  # seconds
FIRING = 55.296e-6  # seconds from one firing of all lasers to the next
LASER = 2.304e-6  # seconds from one laser to the next within a firing
FIRING_ORDER = np.arange(RINGS).reshape(2, -1).T.ravel()  # rings: the lower half takes turns with the upper
NEAR, FAR = 0.5, 100.0  # metres: the range in which a laser gets an echo
RANGE_NOISE = 0.03  # metres of spread


class Vlp16:
    """The sensor; x is forward, y left, z up. A revolution begins and ends behind it and runs clockwise."""

    def __init__(self) -> None:
        firings = round(REVOLUTION / FIRING)
        shots = np.arange(1 - firings, 1)[:, None] * FIRING + np.arange(1 - RINGS, 1) * LASER
        self._times = shots.ravel()  # of a revolution's points, in the order in which they are measured
        self._rings = np.tile(FIRING_ORDER, firings).astype(np.uint8)
        azimuth = -np.pi - 2 * np.pi * self._times / REVOLUTION
        elevation = ELEVATIONS[self._rings]
        level = np.cos(elevation)
        self._directions = np.stack(
            [level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=1
        )

    def scan(
        self,
        world: World,
        world_from_lidar: Callable[[Array], Array],
        stamp: int,
        rng: np.random.Generator,
    ) -> Scan:
        """The revolution that ends at `stamp`, nanoseconds.

        `world_from_lidar` gives the poses (K, 4, 4) at times (K,), seconds on the same clock; every laser
        shoots from the pose at its own time. What gives no echo is no point.
        """
        poses = world_from_lidar(stamp * 1e-9 + self._times)
        directions = np.einsum("nij,nj->ni", poses[:, :3, :3], self._directions)
        origins = poses[:, :3, 3].astype(np.float32)
        ranges = world.cast(origins, directions.astype(np.float32)).distance
        echo = (ranges >= NEAR) & (ranges <= FAR)
        measured = ranges[echo] + rng.normal(0, RANGE_NOISE, int(echo.sum()))
        points = measured[:, None] * self._directions[echo]
        return Scan(stamp, points.astype(np.float32), self._rings[echo], self._times[echo].astype(np.float32))
