"""LOAM's odometry, from one revolution to the next (Sec. V.B and C; A-LOAM's laserOdometry)."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ofvl_core.geometry import Array
from ofvl_core.lidar.features import Samples
from ofvl_core.lidar.registration import Surfaces, line_fits, plane_fits

REACH = 1.0  # metres to the nearest point of a surface
APART = 100.0  # metres between two rings, where a neighbour must be from a certain one


class Revolution:
    """What a LiDAR saw in one revolution, carried to one time: lines and planes for the next one's points."""

    def __init__(self, edges: Samples, planes: Samples) -> None:
        self._edges, self._planes = _Ringed(edges), _Ringed(planes)

    def lines(self, points: Array) -> tuple[Surfaces, Array]:
        """For each of points (N, 3) the line through the nearest edge point and the nearest in a ring beside
        that (Fig. 7a), and its weight (N,): 0 where there is none."""
        nearest, _, beside, found = self._edges.neighbours(points)
        surfaces, weights = line_fits(np.stack([nearest, beside], axis=1))
        return surfaces, weights * found

    def planes(self, points: Array) -> tuple[Surfaces, Array]:
        """For each of points (N, 3) the plane through the nearest planar point, the second nearest in its
        ring and the nearest in a ring beside (Fig. 7b), and its weight (N,): 0 where there is none."""
        *three, found = self._planes.neighbours(points)
        surfaces, weights = plane_fits(np.stack(three, axis=1))
        return surfaces, weights * found


class _Ringed:
    """Points that can be searched as a whole and ring by ring."""

    def __init__(self, samples: Samples) -> None:
        self._points, self._rings = samples.points, samples.rings.astype(float)
        self._tree = cKDTree(self._points)
        self._ring_tree = cKDTree(np.column_stack([self._points, self._rings * APART]))

    def neighbours(self, points: Array) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """For points (N, 3) the nearest, the second nearest in its ring, the nearest in a ring beside, each
        (N, 3), and whether all are within REACH (N,)."""
        if len(self._points) < 2:
            nothing = np.zeros_like(points)
            return nothing, nothing, nothing, np.zeros(len(points), bool)
        distance, nearest = self._tree.query(points)
        rings = self._rings[nearest]
        to_same, same = self._in_ring(points, rings, 2)
        to_side, side = self._in_ring(np.tile(points, (2, 1)), np.concatenate([rings - 1, rings + 1]), 1)
        to_side, side = to_side.reshape(2, -1), side.reshape(2, -1)
        nearer = to_side.argmin(axis=0), np.arange(len(points))
        found = (distance < REACH) & (to_same[:, 1] < REACH) & (to_side[nearer] < REACH)
        return self._points[nearest], self._points[same[:, 1]], self._points[side[nearer]], found

    def _in_ring(self, points: Array, rings: Array, count: int) -> tuple[Array, NDArray[np.intp]]:
        """Distances and places of the nearest `count` in the given rings; far off where these have fewer."""
        distances, places = self._ring_tree.query(np.column_stack([points, rings * APART]), count)
        return distances, places
