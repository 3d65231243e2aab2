"""Is an image sharp, and is it exposed so that something can be seen?"""

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import Array

WIDTH = 320
"""Pixels to which an image is shrunk first: cameras of any resolution compare, and noise is averaged away."""

REBLUR = 9
"""Pixels of the box that blurs it once more."""

DARK, SATURATED = 12, 250
"""A pixel shows nothing when no channel is above the first, or one is at or above the second."""

DARK_SHARE, SATURATED_SHARE = 0.5, 0.25
"""Shares of an image's pixels from which on it is worth a warning."""

BLURRED = 0.7
"""Part of the usual sharpness below which an image is worth a warning: 640 pixels wide, 9 of motion blur. Of
the images of 7-Scenes' kitchen one of a hundred is below 0.77."""

USUAL_LENGTH = 120
"""Images whose median is the usual sharpness."""


def sharpness(rgb: NDArray[np.uint8]) -> float:
    """How sharp an image (H, W, 3) is, from 0 to 1; frames of one camera compare, whatever their contrast.

    Blurring takes much of the variation between neighbours from a sharp image and little from one that is
    blurred already (Crete et al. 2007, The blur effect). It is the share taken, along the axis in which it is
    smaller, so that the motion blur of a turning robot counts in full. 0 where nothing varies.
    """
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    size = (WIDTH, max(1, round(height * WIDTH / width)))
    shrunk = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return min(_share_taken(shrunk), _share_taken(shrunk.T))


def exposure(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """Shares of an image's pixels (H, W, 3) that are too dark and that are saturated."""
    red, green, blue = cv2.split(rgb)  # ten times as fast as NumPy's maximum over them
    brightest = cv2.max(cv2.max(red, green), blue)
    return float(np.mean(brightest <= DARK)), float(np.mean(brightest >= SATURATED))


class PictureWatch:
    """Says what is wrong with a camera's images, looking at one now and then."""

    def __init__(self) -> None:
        self.sharpness = 0.0
        self._seen: deque[float] = deque(maxlen=USUAL_LENGTH)

    def complaints(self, rgb: NDArray[np.uint8]) -> list[str]:
        """What is wrong with an image (H, W, 3), if anything; blur is told by the images seen before."""
        found = []
        self.sharpness = sharpness(rgb)
        self._seen.append(self.sharpness)
        usual = float(np.median(self._seen))
        dark, saturated = exposure(rgb)
        if dark > DARK_SHARE:
            found.append(f"{dark:.0%} of the image is black: more light, or a longer exposure")
        elif saturated > SATURATED_SHARE:
            found.append(f"{saturated:.0%} of the image is saturated: less exposure")
        elif self.sharpness < BLURRED * usual:
            found.append(
                f"the image is blurred (sharpness {self.sharpness:.2f}, usually {usual:.2f}): drive and turn "
                "slower, or expose shorter"
            )
        return found


def _share_taken(grey: NDArray[np.float32]) -> float:
    """The share of the variation between a pixel (H, W) and its right neighbour that blurring rows takes."""
    blurred = cv2.blur(np.ascontiguousarray(grey), (REBLUR, 1))
    before: Array = np.abs(np.diff(grey, axis=1))
    taken = np.maximum(before - np.abs(np.diff(blurred, axis=1)), 0)
    total = float(before.sum())
    return float(taken.sum()) / total if total else 0.0
