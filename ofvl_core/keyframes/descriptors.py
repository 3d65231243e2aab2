"""How an image looks around points that are found again at another size, turn and brightness."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import resized_pixels
from ofvl_core.geometry import Array

POINTS = 600
"""Of an image, the strongest."""

CONTRAST = 0.01
"""SIFT's threshold. OpenCV's 0.04 finds too few in blurred images."""

ROWS = 180
"""At which a keyframe is described, or fewer where it has fewer; SIFT begins at twice that. As many images
are found as at 240, in two thirds of the time; at 120, in a third, fewer."""

Grey = NDArray[np.uint8]
"""An image (h, w)."""


Descriptors = NDArray[np.uint8]
"""SIFT's (N, 128), which OpenCV gives as whole numbers of at most 255."""


class Described(NamedTuple):
    """`pixels` (N, 2) of an image and what it looks like around them: `descriptors` (N, 128)."""

    pixels: Array
    descriptors: Descriptors


def describe(image: Grey, rows: int) -> Described:
    """The points of an image (h, w) that are best found again, where keyframes of its scale have `rows`.

    D. Lowe: Distinctive image features from scale-invariant keypoints, IJCV 2004.
    """
    size = min(1.0, ROWS / rows)
    small = cv2.resize(image, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
    found, descriptors = cv2.SIFT.create(POINTS, contrastThreshold=CONTRAST).detectAndCompute(small, None)
    if not found:
        return Described(np.empty((0, 2)), np.empty((0, 128), np.uint8))
    scale = np.array(image.shape[::-1]) / small.shape[::-1]
    pixels = resized_pixels(np.asarray(cv2.KeyPoint.convert(found), float), scale)
    return Described(pixels, descriptors.astype(np.uint8))


def roots(descriptors: Descriptors) -> NDArray[np.float32]:
    """RootSIFT (N, 128), of length 1: the more alike two are, the nearer their scalar product is to 1.

    R. Arandjelovic, A. Zisserman: Three things everyone should know to improve object retrieval, CVPR 2012.
    """
    sift = descriptors.astype(np.float32)
    return np.sqrt(sift / np.maximum(sift.sum(axis=1, keepdims=True), 1))
