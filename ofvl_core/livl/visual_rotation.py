"""How a camera turned from one image to another soon after: corners followed, with their measured depth."""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.corners import follow_corners
from ofvl_core.geometry import Array

WIDTH = 320
"""Pixels; corners are followed in images of this width, which is quick and blurs less than full size."""

CORNERS = 200
LEAST_CORNERS = 20
LONGEST_STEP = 0.11
"""Seconds, at most, between two images that are compared: the further apart, the less does a corner's error
count, and the longer a turn that they say nothing of."""


@dataclass(frozen=True, eq=False)
class Turns:
    """Rotations of a camera: `vectors` (N, 3), radians in the first image's optical frame, that take
    directions of the second image's frame to the first's; `starts` and `ends` (N,) are stamps, ns."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    vectors: Array


class VisualRotation:
    """Follows corners from image to image; one object a drive."""

    def __init__(self, camera: Camera) -> None:
        height = max(1, round(camera.height * WIDTH / camera.width))
        self._camera = camera.resized(WIDTH, height)
        self._recent: deque[tuple[int, NDArray[np.uint8], NDArray[np.float32]]] = deque()
        self._turns: list[tuple[int, int, Array]] = []

    def add(self, stamp: int, rgb: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
        """The next image (H, W, 3) and its depth (h, w) in metres, NaN where unknown."""
        size = (self._camera.width, self._camera.height)
        grey = cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        small_depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
        while self._recent and stamp - self._recent[0][0] > LONGEST_STEP * 1e9:
            self._recent.popleft()
        for before, image, its_depth in self._recent:  # the oldest of them that can be followed
            vector = self._turn(image, its_depth, np.asarray(grey, np.uint8))
            if vector is not None:
                self._turns.append((before, stamp, vector))
                break
        self._recent.append((stamp, np.asarray(grey, np.uint8), np.asarray(small_depth, np.float32)))

    @property
    def turns(self) -> Turns:
        """All rotations so far."""
        starts, ends, vectors = zip(*self._turns, strict=True) if self._turns else ((), (), ())
        return Turns(
            np.array(starts, np.int64), np.array(ends, np.int64), np.array(vectors, float).reshape(-1, 3)
        )

    def _turn(
        self, before: NDArray[np.uint8], depth: NDArray[np.float32], after: NDArray[np.uint8]
    ) -> Array | None:
        start, end = follow_corners(before, after, CORNERS)
        columns, rows = np.rint(start).astype(int).T
        metres = depth[rows.clip(0, len(depth) - 1), columns.clip(0, depth.shape[1] - 1)]
        good = np.isfinite(metres)
        if good.sum() < LEAST_CORNERS:
            return None
        points = self._camera.rays(start[good]) * metres[good, None]
        solved, vector, _, inliers = cv2.solvePnPRansac(
            points,
            end[good],
            self._camera.matrix,
            np.array(self._camera.distortion or (0.0,) * 5),
            iterationsCount=50,
            reprojectionError=1.0,
            flags=cv2.SOLVEPNP_ITERATIVE,
        )
        if not solved or inliers is None or len(inliers) < LEAST_CORNERS:
            return None
        return -np.asarray(vector, float).ravel()  # PnP gives second_from_first
