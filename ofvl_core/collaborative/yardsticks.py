"""What odometry must beat: guesses that look at no image, and geometry that has learned nothing.

All give motions previous_from_current (4, 4). A snippet is scaled as a whole, so a guess says only that the
camera keeps its speed, not which one that is.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.corners import follow_corners
from ofvl_core.geometry import Array, invert, transform_from_rotation_vector

CORNERS = 1000
LEAST_CORNERS = 20
INLIER_PIXELS = 0.3
"""Pixels from its epipolar line that a corner may lie. Corners are followed to a tenth of a pixel, and in a
wider band the parallax of far ones vanishes: 1 px makes the odometry a fifth worse on KITTI."""

CONFIDENCE = 0.9999
FARTHEST = 1e6
"""Motions' lengths up to which a corner's distance counts when OpenCV tells forwards from backwards; its own
limit of 50 leaves out what is far down a street."""

AHEAD: Array = transform_from_rotation_vector(np.zeros(3), [0.0, 0.0, 1.0])
"""A unit along the optical axis, without turning."""


def straight_line(snippets: int, length: int) -> Array:
    """Motions (M, N - 1, 4, 4) of M snippets of N frames in which the camera moves straight ahead."""
    return np.broadcast_to(AHEAD, (snippets, length - 1, 4, 4))


def repeated(motions: Array, length: int) -> Array:
    """Motions (M, N - 1, 4, 4) of M snippets of N frames: each repeats its own of the `motions` (M, 4, 4)."""
    return np.broadcast_to(motions[:, None], (len(motions), length - 1, 4, 4))


def essential_motion(previous: NDArray[np.uint8], current: NDArray[np.uint8], camera: Camera) -> Array | None:
    """Motion of unit length between two RGB images (H, W, 3): corners followed, and their essential matrix.

    USAC with local optimisation (OpenCV), distortion undone. None where the images share too few corners.
    """
    followed = follow_corners(_grey(previous), _grey(current), CORNERS)
    rays = np.stack([camera.rays(pixels)[:, :2] for pixels in followed])
    before, after = rays[:, np.isfinite(rays).all(axis=(0, 2))]
    if len(before) < LEAST_CORNERS:
        return None
    normalised = np.eye(3)
    essential, inliers = cv2.findEssentialMat(
        before, after, normalised, cv2.USAC_ACCURATE, CONFIDENCE, INLIER_PIXELS / camera.focal
    )
    if essential is None or len(essential) != 3:
        return None
    agreeing, rotation, translation, _, _ = cv2.recoverPose(
        essential, before, after, normalised, distanceThresh=FARTHEST, mask=inliers
    )
    if agreeing < LEAST_CORNERS:
        return None
    current_from_previous = np.eye(4)
    current_from_previous[:3, :3], current_from_previous[:3, 3] = rotation, translation[:, 0]
    return invert(current_from_previous)


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
