"""Images from disk, checked."""

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.errors import DataError

logger = logging.getLogger(__name__)

MILLIMETRE = 0.001
INVALID_DEPTHS = (0, 65535)
"""Depth values that mean "not measured": 0 everywhere, 65535 in 7-Scenes."""


def read_color(path: Path, camera: Camera | None = None) -> NDArray[np.uint8]:
    """RGB image (H, W, 3). Raises DataError when unreadable or not of the camera's size."""
    return np.asarray(cv2.cvtColor(_read(path, cv2.IMREAD_COLOR, camera), cv2.COLOR_BGR2RGB), np.uint8)


def read_depth(
    path: Path,
    camera: Camera | None = None,
    unit: float = MILLIMETRE,
    invalid: tuple[int, ...] = INVALID_DEPTHS,
) -> NDArray[np.uint16]:
    """Depth (H, W) in millimetres, 0 where not measured, from an image of `unit` metres a grey value.

    Without one valid pixel the image is all 0, which is logged: the frame then teaches nothing. What is
    further than 65.5 m becomes 0. Raises DataError when unreadable, not 16 bit or not of the camera's size.
    """
    depth = _read(path, cv2.IMREAD_UNCHANGED, camera)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise DataError(f"{path}: depth must be a one-channel 16-bit PNG; convert it")
    depth[np.isin(depth, invalid)] = 0
    if unit != MILLIMETRE:
        millimetres = np.rint(depth * (unit / MILLIMETRE))
        depth = np.where(millimetres < np.iinfo(np.uint16).max, millimetres, 0).astype(np.uint16)
    if not depth.any():
        logger.warning("%s: depth has no valid pixel; the frame has no use in training", path)
    return depth


def millimetres(metres: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth (H, W) in whole millimetres as `read_depth` has it, 0 where it is NaN or beyond 65.5 m."""
    whole = np.nan_to_num(np.rint(metres / MILLIMETRE), nan=0.0)
    return np.where(whole < np.iinfo(np.uint16).max, whole, 0).astype(np.uint16)


def _read(path: Path, flags: int, camera: Camera | None) -> NDArray:
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    image = cv2.imdecode(encoded, flags) if encoded.size else None
    if image is None:
        raise DataError(
            f"{path}: not a readable image (empty, truncated or another format); restore the file"
        )
    height, width = image.shape[:2]
    if camera is not None and (width, height) != (camera.width, camera.height):
        raise DataError(
            f"{path}: image is {width}x{height} but the scene's images are {camera.width}x{camera.height}; "
            "all images of a scene must have one size, that of its intrinsics"
        )
    return image
