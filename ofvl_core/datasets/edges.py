"""Is depth registered to colour? Where depth jumps, an object ends, and colour mostly changes there too.

Depth from a sensor beside the colour camera is displaced and has another focal length. So the jumps of the
depth image are laid over the colour image displaced and scaled in many ways: registered depth fits best as
it is.
"""

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

SCALES = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
SHIFTS_X, SHIFTS_Y = range(-24, 25, 2), range(-8, 9, 4)
"""Pixels of a 640 wide image."""
WIDTH = 640
JUMP = 0.08
"""Relative change of depth across three pixels that ends an object."""
MIN_JUMPS = 200
MIN_IMAGES = 5
CLEARLY_BETTER = 1.25
"""Depth is not registered when another place fits better by this factor."""


@dataclass(frozen=True)
class Alignment:
    """`contrast` of colour under jumps of depth, over the mean of the image, and where it is highest."""

    contrast: float
    best_contrast: float
    scale: float
    shift: tuple[int, int]

    @property
    def registered(self) -> bool:
        """Whether the depth image lies on the colour image as it is, as far as the edges tell."""
        return self.best_contrast < CLEARLY_BETTER * self.contrast


def align_edges(images: list[tuple[NDArray[np.uint8], NDArray[np.uint16]]]) -> Alignment | None:
    """Alignment of colour (H, W, 3) and depth (h, w) images; None where too few have jumps to judge by."""
    placements = list(product(SCALES, SHIFTS_X, SHIFTS_Y))
    total, counted = np.zeros(len(placements)), 0
    for color, depth in images:
        if depth.shape[1] > WIDTH:
            depth = depth[:: depth.shape[1] // WIDTH, :: depth.shape[1] // WIDTH]
        jumps = np.argwhere(_jumps(depth))[:, ::-1]
        if len(jumps) < MIN_JUMPS:
            continue
        counted += 1
        height, width = depth.shape
        contrast = _contrast(color, width, height)
        middle, limit = np.array([width, height]) / 2, np.array([width, height])
        for at, (scale, dx, dy) in enumerate(placements):
            shift = np.array([dx, dy]) * (width / WIDTH)
            pixels = np.rint((jumps - middle) * scale + middle + shift).astype(int)
            pixels = pixels[((pixels >= 0) & (pixels < limit)).all(axis=1)]
            total[at] += contrast[pixels[:, 1], pixels[:, 0]].mean() if len(pixels) else 0.0
    if counted < MIN_IMAGES:
        return None
    total /= counted
    best = int(total.argmax())
    scale, dx, dy = placements[best]
    return Alignment(float(total[placements.index((1.0, 0, 0))]), float(total[best]), scale, (dx, dy))


def _contrast(color: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    gray = cv2.cvtColor(cv2.resize(color, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    gray = cv2.GaussianBlur(gray, (5, 5), 1.5)
    gradient = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    bounded = np.minimum(gradient / max(float(gradient.mean()), 1e-6), 4.0)  # no single lamp decides
    return np.asarray(cv2.dilate(bounded, np.ones((3, 3))), np.float32)


def _jumps(depth: NDArray[np.uint16]) -> NDArray[np.bool_]:
    metres = depth.astype(np.float32)
    jumps = np.zeros(depth.shape, bool)
    for inside, before, after in (
        (jumps[1:-1], metres[:-2], metres[2:]),
        (jumps[:, 1:-1], metres[:, :-2], metres[:, 2:]),
    ):
        nearer = np.minimum(before, after)
        inside |= (nearer > 0) & (np.abs(before - after) > JUMP * nearer)
    return jumps
