"""Corners followed from one image to the next, and back as a check."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import Array

QUALITY, APART = 0.01, 5
"""A corner's least strength as a share of the strongest, and pixels between two."""

RETURN_ERROR = 0.5
"""Pixels a corner followed there and back may miss itself by."""


def follow_corners(before: NDArray[np.uint8], after: NDArray[np.uint8], most: int) -> tuple[Array, Array]:
    """Pixels (K, 2) of up to `most` corners in one grey image (H, W) and in another of that size.

    Lucas and Kanade's optical flow on a pyramid (OpenCV). K is 0 where the first image has no corners.
    """
    corners = cv2.goodFeaturesToTrack(before, most, QUALITY, APART)
    if corners is None:
        return np.empty((0, 2)), np.empty((0, 2))
    followed, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    returned, back, _ = cv2.calcOpticalFlowPyrLK(after, before, followed, np.empty_like(corners))
    good = (found[:, 0] > 0) & (back[:, 0] > 0) & (np.abs(returned - corners).max(axis=(1, 2)) < RETURN_ERROR)
    return corners[good, 0].astype(float), followed[good, 0].astype(float)
