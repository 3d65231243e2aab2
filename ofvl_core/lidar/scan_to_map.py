"""LOAM's map (Sec. VI; A-LOAM's laserMapping): edge and planar points of all revolutions, thinned to voxels.

LOAM keeps its map in cubes of 10 m and registers with those around the sensor. A building is smaller than the
sensor's range, so that here the whole map takes part, less what is out of that range.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ofvl_core.geometry import Array
from ofvl_core.lidar.registration import Surfaces, line_fits, plane_fits
from ofvl_core.lidar.scan_to_scan import Revolution
from ofvl_core.lidar.voxel_map import VoxelMap

VOXEL = 0.1  # metres; A-LOAM's 0.4 for edges and 0.8 for planes are for streets
NEIGHBOURS = 8  # LOAM takes 5
REACH = 0.5  # metres to the farthest of these
IN_RANGE = 60.0  # metres from the sensor
THREE_POINTS = 0.3  # weight of a plane through three points of one revolution


class FeatureMap:
    """Edge and planar points (N, 3) in the map's frame."""

    def __init__(self) -> None:
        self._edges, self._planes = VoxelMap(VOXEL), VoxelMap(VOXEL)

    @property
    def points(self) -> Array:
        """All of them (N, 3), metres."""
        return np.concatenate([self._edges.points, self._planes.points])

    def add(self, edges: Array, planes: Array) -> None:
        """Take points (N, 3) in."""
        self._edges.add(edges)
        self._planes.add(planes)

    def around(self, position: Array, before: Revolution) -> "Surroundings":
        """What a sensor at a position (3,) may see, and what it saw in the revolution before."""
        return Surroundings(
            _Cloud(self._edges.points, position), _Cloud(self._planes.points, position), before
        )


class Surroundings:
    """The part of a map around a sensor: lines and planes for its points."""

    def __init__(self, edges: "_Cloud", planes: "_Cloud", before: Revolution) -> None:
        self._edges, self._planes, self._before = edges, planes, before

    def lines(self, points: Array) -> tuple[Surfaces, Array]:
        """For each of points (N, 3) the line through the nearest edge points, and its weight (N,): 0 where
        there is none."""
        neighbours, found = self._edges.neighbours(points)
        surfaces, weights = line_fits(neighbours)
        return surfaces, weights * found

    def planes(self, points: Array) -> tuple[Surfaces, Array]:
        """For each of points (N, 3) the plane through the nearest planar points, and its weight (N,).

        Where there is none, as on a floor of which the map has single rings yet, the revolution before may
        have one through two of its rings. Without these the height is free to drift as a drive begins.
        """
        neighbours, found = self._planes.neighbours(points)
        surfaces, weights = plane_fits(neighbours)
        weights = weights * found
        missing = np.flatnonzero(weights == 0)
        seen_before, seen_weights = self._before.planes(points[missing])
        weights[missing] = THREE_POINTS * seen_weights
        return surfaces.replaced(missing, seen_before), weights


class _Cloud:
    """Those of points (N, 3) that are in a sensor's range."""

    def __init__(self, points: Array, position: Array) -> None:
        self._points = points[np.linalg.norm(points - position, axis=1) < IN_RANGE]
        self._tree = cKDTree(self._points)

    def neighbours(self, points: Array) -> tuple[Array, NDArray[np.bool_]]:
        """The nearest (N, NEIGHBOURS, 3) to points (N, 3), and whether all are within REACH (N,)."""
        if len(self._points) < NEIGHBOURS:
            return np.zeros((len(points), NEIGHBOURS, 3)), np.zeros(len(points), bool)
        distances, places = self._tree.query(points, NEIGHBOURS)
        return self._points[places], distances[:, -1] < REACH
