"""Do LiDAR and depth camera see the same surfaces? How the calibration between them would have to change.

LiDAR points, carried to the moment of an image, must lie on the surfaces that its depth shows. Their
distances along the surfaces' normals are brought to a minimum over a small motion of the LiDAR (ICP from
points to planes over many images at once); what motion remains is the calibration's error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array, apply, transform_from_rotation_vector

NEAREST, FURTHEST = 0.4, 4.0
"""Metres between which a D435's depth is good enough to judge by."""

REACH = 0.4
"""Metres along the normal beyond which a point belongs to another surface; ends at `REACH_END`."""

REACH_END = 0.08
ROUNDS = 12
LEAST_POINTS = 500
SMOOTHING = 5
"""Pixels of the median that depth is smoothed with, and distance over which its slope is taken."""

EFFECTIVE = 0.01
"""Share of the points that count: neighbours have a surface's error in common."""

PRIOR_TURN, PRIOR_SHIFT = np.radians(2.0), 0.03
"""Standard deviations of a calibration made with care: what the images do not show stays as it was given, as
the height does where 16 beams meet walls alone."""

TURN_LIMIT, SHIFT_LIMIT = np.radians(1.0), 0.03
"""Radians and metres of calibration error from which it is worth a warning."""

SIGNIFICANT = 3.0
"""Standard deviations that an error must have to be known."""

LEAST_SHARE = 0.6
"""Of points that must agree."""

AGREEING = 0.05
"""Metres, and a share of the range as well, up to which a LiDAR range and a depth are the same surface's."""


@dataclass(frozen=True, eq=False)
class View:
    """One image: its depth (h, w) in metres, NaN where unknown, the camera of that size, and LiDAR points
    (N, 3) in its optical frame as they were at its moment."""

    depth: NDArray[np.float32]
    camera: Camera
    points: Array


@dataclass(frozen=True, eq=False)
class Agreement:
    """How LiDAR and depth fit one another.

    `median` metres between a LiDAR point and the depth beneath it, along the viewing ray; `share` of points
    that agree; `correction` (4, 4) to be applied to LiDAR points in the camera's optical frame, with standard
    deviations (6,) of its rotation vector and translation.
    """

    points: int
    median: float
    share: float
    correction: Array
    deviations: Array

    @property
    def turn(self) -> float:
        """Radians by which the calibration's rotation seems wrong."""
        return float(Rotation.from_matrix(self.correction[:3, :3]).magnitude())

    @property
    def shift(self) -> float:
        """Metres by which its translation seems wrong."""
        return float(np.linalg.norm(self.correction[:3, 3]))

    @property
    def doubtful(self) -> bool:
        """Whether the calibration seems wrong by more than can be let pass, and is known to be."""
        vector = Rotation.from_matrix(self.correction[:3, :3]).as_rotvec()
        turned = self.turn > TURN_LIMIT and np.linalg.norm(vector / self.deviations[:3]) > SIGNIFICANT
        shift = self.correction[:3, 3]
        shifted = self.shift > SHIFT_LIMIT and np.linalg.norm(shift / self.deviations[3:]) > SIGNIFICANT
        return bool(turned or shifted or self.share < LEAST_SHARE)


def compare(views: Sequence[View]) -> Agreement | None:
    """The agreement over some images; None where too few LiDAR points fall on depth."""
    surfaces = [_Surface(view.depth, view.camera) for view in views]
    points = [view.points for view in views]
    before = np.concatenate([s.along_ray(p) for s, p in zip(surfaces, points, strict=True)] or [np.empty(0)])
    if len(before) < LEAST_POINTS:
        return None
    correction, information = np.eye(4), np.eye(6)
    prior = np.diag(np.repeat([PRIOR_TURN, PRIOR_SHIFT], 3) ** -2.0)
    for reach in np.geomspace(REACH, REACH_END, ROUNDS):
        rows, misses = [], []
        for surface, lidar in zip(surfaces, points, strict=True):
            moved = apply(correction, lidar)
            which, foot, normal = surface.beneath(moved)
            at = moved[which]
            miss = np.einsum("ij,ij->i", at - foot, normal)
            near = np.abs(miss) < reach
            rows.append(np.hstack([np.cross(at, normal), normal])[near])
            misses.append(miss[near])
        jacobian, miss = np.concatenate(rows), np.concatenate(misses)
        if len(miss) < LEAST_POINTS:
            break  # so far off that they do not even come close: what agrees shows that
        weight = np.square(1 - np.square(miss / reach))  # Tukey's biweight
        weight *= EFFECTIVE / np.square(1.4826 * np.median(np.abs(miss)))
        information = jacobian.T @ (weight[:, None] * jacobian) + prior
        so_far = np.append(Rotation.from_matrix(correction[:3, :3]).as_rotvec(), correction[:3, 3])
        step = np.linalg.solve(information, -jacobian.T @ (weight * miss) - prior @ so_far)
        correction = transform_from_rotation_vector(step[:3], step[3:]) @ correction
    deviations = np.sqrt(np.diag(np.linalg.inv(information)))
    absolute = np.abs(before)
    ranges = np.concatenate([s.ranges(p) for s, p in zip(surfaces, points, strict=True)])
    share = float(np.mean(absolute < AGREEING + AGREEING * ranges))
    return Agreement(len(before), float(np.median(absolute)), share, correction, deviations)


class _Surface:
    """A depth image as points with normals."""

    def __init__(self, depth: NDArray[np.float32], camera: Camera) -> None:
        filled = np.nan_to_num(depth, nan=0.0)
        smooth = cv2.medianBlur(filled, SMOOTHING)
        smooth = np.where((filled > 0) & (smooth > NEAREST) & (smooth < FURTHEST), smooth, np.nan)
        self._depth, self._camera = smooth.astype(np.float32), camera
        rows, columns = np.indices(depth.shape)
        pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(float)
        points = (camera.rays(pixels) * self._depth.reshape(-1, 1)).reshape(*depth.shape, 3)
        right, down = np.full_like(points, np.nan), np.full_like(points, np.nan)
        far = SMOOTHING
        right[:, far:-far] = points[:, 2 * far :] - points[:, : -2 * far]
        down[far:-far] = points[2 * far :] - points[: -2 * far]
        normals = np.cross(right, down)
        with np.errstate(invalid="ignore", divide="ignore"):
            normals /= np.linalg.norm(normals, axis=2, keepdims=True)
            # Across an edge of depth the two slopes span no surface.
            steep = np.maximum(np.abs(right[..., 2]), np.abs(down[..., 2])) > 0.15 * self._depth
        normals[steep] = np.nan
        self._points, self._normals = points, normals

    def _pixels(self, points: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Which points (K,) fall into the image, and their rows and columns."""
        which = np.flatnonzero((points[:, 2] > NEAREST) & (points[:, 2] < FURTHEST))
        u, v = np.rint(self._camera.project(points[which])).T if len(which) else np.empty((2, 0))
        height, width = self._depth.shape
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        return which[inside], v[inside].astype(np.intp), u[inside].astype(np.intp)

    def beneath(self, points: Array) -> tuple[NDArray[np.intp], Array, Array]:
        """Which points lie over a surface, and that surface's point and normal, (K, 3) each."""
        which, rows, columns = self._pixels(points)
        foot, normal = self._points[rows, columns], self._normals[rows, columns]
        known = np.isfinite(normal).all(axis=1) & np.isfinite(foot).all(axis=1)
        return which[known], foot[known], normal[known]

    def along_ray(self, points: Array) -> Array:
        """Depth of the points less that of the image beneath them, where it has any, metres."""
        which, rows, columns = self._pixels(points)
        difference = points[which, 2] - self._depth[rows, columns]
        return difference[np.isfinite(difference)]

    def ranges(self, points: Array) -> Array:
        """Depths of the points for which `along_ray` answers."""
        which, rows, columns = self._pixels(points)
        return points[which, 2][np.isfinite(self._depth[rows, columns])]
