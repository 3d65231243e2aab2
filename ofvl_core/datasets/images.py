"""Images from disk, checked."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.errors import DataError

INVALID_DEPTHS = (0, 65535)
"""Depth values that mean "not measured": 0 everywhere, 65535 in 7-Scenes."""


def read_color(path: Path, camera: Camera | None = None) -> NDArray[np.uint8]:
    """RGB image (H, W, 3). Raises DataError when unreadable or not of the camera's size."""
    return np.asarray(cv2.cvtColor(_read(path, cv2.IMREAD_COLOR, camera), cv2.COLOR_BGR2RGB), np.uint8)


def read_depth(path: Path, camera: Camera | None = None) -> NDArray[np.uint16]:
    """Depth (H, W) in millimetres, 0 where not measured.

    Raises DataError when unreadable, not 16 bit, not of the camera's size, or without one valid pixel.
    """
    depth = _read(path, cv2.IMREAD_UNCHANGED, camera)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise DataError(f"{path}: depth must be a one-channel 16-bit PNG in millimetres; convert it")
    depth[depth == INVALID_DEPTHS[1]] = 0
    if not depth.any():
        raise DataError(f"{path}: depth has no valid pixel; remove this frame or record it again")
    return depth


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
