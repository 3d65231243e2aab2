"""What a localization looks like: a picture over its image, and bodies to place in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array

if TYPE_CHECKING:  # torch takes seconds to import, and drawing needs none
    from ofvl_core.localizer import Localization

CERTAIN, UNCERTAIN = 0.01, 1.0
"""Metres of predicted uncertainty drawn as the largest dot and as the smallest, on a logarithmic scale."""

AGREES, DISAGREES, WRITING = (80, 255, 80), (255, 60, 60), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def picture(localization: Localization, image_rgb: NDArray[np.uint8], state: str) -> NDArray[np.uint8]:
    """RGB picture (H + 2 lines, W, 3): the image (H, W, 3) with a dot at every cell, below words on it.

    Green cells agree with the pose and red ones do not; the larger a dot, the more certain the network is
    of that cell. `state` is written after the scene.
    """
    cells = localization.cells
    canvas = np.ascontiguousarray(image_rgb // 2)
    height, width = canvas.shape[:2]
    largest = max(1.5, min(0.3 * width / cells.columns, height / 60))
    for (u, v), radius, agrees in zip(
        np.rint(cells.pixels).astype(int).tolist(),
        _radii(cells.uncertainties, largest).tolist(),
        cells.inliers,
        strict=True,
    ):
        _dot(canvas, u, v, radius, AGREES if agrees else DISAGREES)
    return np.concatenate([_legend(localization, state, width, max(12, height // 20), largest), canvas])


def frustum(camera: Camera, length: float) -> Array:
    """Corners (5, 3) in the optical frame, metres: the camera, then what it sees `length` in front of it.

    From the top left corner clockwise; the distortion, which bends the edges, is left out.
    """
    u, v = np.array([-0.5, 1, 1, -0.5]), np.array([-0.5, -0.5, 1, 1])
    u[1:3], v[2:] = camera.width - 0.5, camera.height - 0.5
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    return np.concatenate([np.zeros((1, 3)), length * np.stack([x, y, np.ones(4)], axis=1)])


def ellipsoid(covariance: Array, share: float = 0.95) -> tuple[Array, Array]:
    """The body that holds a point of `covariance` (3, 3) with a probability of `share`.

    Returns its half axes' lengths (3,), in the covariance's unit, and the rotation (3, 3) whose columns are
    their directions. The squared distance in standard deviations follows a chi-square distribution of three
    degrees of freedom.
    """
    variances, axes = np.linalg.eigh(covariance)
    axes[:, 0] *= np.sign(np.linalg.det(axes))
    return np.sqrt(np.maximum(variances, 0.0) * chdtri(3, 1 - share)), axes


def _radii(uncertainties: Array, largest: float) -> NDArray[np.int_]:
    metres = np.nan_to_num(uncertainties, nan=UNCERTAIN).clip(CERTAIN, UNCERTAIN)
    share = np.log(UNCERTAIN / metres) / np.log(UNCERTAIN / CERTAIN)
    return np.maximum(np.rint(share * largest), 1).astype(int)


def _legend(
    localization: Localization, state: str, width: int, line: int, largest: float
) -> NDArray[np.uint8]:
    legend = np.zeros((2 * line, width, 3), np.uint8)
    _write(legend, f"{localization.scene}: {state}", line // 3, 0, width - line // 3, line)
    count = f"{localization.inlier_count} of {len(localization.cells.inliers)} cells agree"
    x = _write(legend, count, line // 3, line, width, line)
    for metres in (CERTAIN, 0.1, UNCERTAIN):
        x += line
        (radius,) = _radii(np.array([metres]), largest).tolist()
        _dot(legend, x, 3 * line // 2, radius, WRITING)
        x = _write(legend, f"{metres:g} m", x + round(largest) + line // 6, line, width, line)
    return legend


def _write(canvas: NDArray[np.uint8], text: str, x: int, y: int, end: int, line: int) -> int:
    """Write in the line whose top is `y`, from column `x` to `end` at most; return where it ends."""
    scale, thickness = line / 48, max(1, line // 24)

    def reach(text: str) -> int:
        return x + cv2.getTextSize(text, _FONT, scale, thickness)[0][0]

    if reach(text) > end:
        while text and reach(text + "...") > end:
            text = text[:-1]
        text += "..."
    cv2.putText(canvas, text, (x, y + round(line * 0.68)), _FONT, scale, WRITING, thickness, cv2.LINE_AA)
    return reach(text)


def _dot(canvas: NDArray[np.uint8], u: int, v: int, radius: int, colour: tuple[int, int, int]) -> None:
    cv2.circle(canvas, (u, v), radius, colour, cv2.FILLED, cv2.LINE_AA)
