"""Where a robot may stand: a grid of distances to the nearest obstacle."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESOLUTION = 0.05  # metres a grid cell


class FreeSpace:
    """Clearance on the floor of a `length` x `width` room, centred on the origin."""

    def __init__(self, length: float, width: float, footprints: Sequence[Array]) -> None:
        """`footprints` are convex polygons (K, 2), metres."""
        self._half = np.array([length, width]) / 2
        columns, rows = (np.ceil(2 * self._half / RESOLUTION)).astype(int)
        free = np.full((rows + 2, columns + 2), 255, np.uint8)
        free[[0, -1]] = free[:, [0, -1]] = 0
        for footprint in footprints:
            corners = np.round((footprint + self._half) / RESOLUTION + 0.5).astype(np.int32)
            cv2.fillConvexPoly(free, corners, 0)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self._clearance = np.maximum(distance - 0.5, 0) * RESOLUTION

    def clearance(self, points: Array) -> Array:
        """Distance in metres from points (..., 2) to the nearest obstacle, 0 outside the room."""
        cells = np.floor((np.asarray(points, float) + self._half) / RESOLUTION).astype(int) + 1
        rows, columns = self._clearance.shape
        inside = (cells >= 0).all(-1) & (cells[..., 0] < columns) & (cells[..., 1] < rows)
        cells = np.where(inside[..., None], cells, 0)
        return self._clearance[cells[..., 1], cells[..., 0]].astype(float)

    def places(self, clearance: float) -> Array:
        """Centres (N, 2) of the cells with at least this clearance: the largest connected region of them."""
        region = (self._clearance >= clearance).astype(np.uint8)
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(region, connectivity=4)
        if len(statistics) < 2:
            return np.empty((0, 2))
        largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
        rows, columns = np.nonzero(labels == largest)
        return (np.stack([columns, rows], axis=1) - 0.5) * RESOLUTION - self._half

    def connected(self, clearance: float) -> bool:
        """Whether all places with this clearance can reach one another."""
        return len(self.places(clearance)) == int((self._clearance >= clearance).sum())

    def visible(self, start: Array, ends: Array, clearance: float) -> NDArray[np.bool_]:
        """Which of the straight lines from start (2,) to ends (N, 2) keep this clearance, (N,)."""
        steps = np.linspace(0, 1, int(np.linalg.norm(2 * self._half) / RESOLUTION))[:, None, None]
        along = self.clearance(start + steps * (ends - start))
        return np.min(along, axis=0) >= clearance
