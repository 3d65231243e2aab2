"""Affine views of an image at the network's input: of training frames by chance, of a robot's image by plan.

A warp is an affine map (2, 3) from a pixel of the network's input to a pixel of the stored image, which is
larger, so that zooming in finds detail.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array

OVERSAMPLING = 2
"""Stored images are this many times the network's input where the originals are as large."""

GREY = 128
"""The colour of what lies outside an image."""


def stored_camera(image: Camera, input_camera: Camera) -> Camera:
    """The camera of what is kept of an `image` for views of it."""
    width, height = OVERSAMPLING * input_camera.width, OVERSAMPLING * input_camera.height
    return input_camera.resized(width, height) if width < image.width else image


def unwarped(input_camera: Camera, stored: Camera) -> Array:
    """The warp of a plain resize: c -> (c + 0.5) s - 0.5."""
    x, y = stored.width / input_camera.width, stored.height / input_camera.height
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def warp(
    input_camera: Camera,
    stored: Camera,
    scale: float,
    angle: float,
    shear: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Array:
    """The warp that shows the image `scale` times as large about the input's centre, turned and sheared by
    angles in radians, and moved by `shift`, a share of the input's width and height."""
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[1.0, np.tan(shear)], [0.0, 1.0]]) / scale
    centre = np.array([input_camera.width - 1, input_camera.height - 1]) / 2
    moved = centre + np.array(shift) * (input_camera.width, input_camera.height)
    original_from_warped = np.eye(3)
    original_from_warped[:2] = np.column_stack([linear, centre - linear @ moved])
    return unwarped(input_camera, stored) @ original_from_warped


def warp_images(
    images: NDArray[np.uint8], stored_from_input: Array, fills: NDArray[np.integer], camera: Camera
) -> NDArray[np.uint8]:
    """Images (B, H, W, 3) seen through the warps (B, 2, 3): sampled bilinearly at every pixel of the input
    `camera`, outside of the colours `fills` (B, 3)."""
    size, flags = (camera.width, camera.height), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = np.empty((len(images), camera.height, camera.width, 3), np.uint8)
    for image, one, fill, result in zip(images, stored_from_input, fills, warped, strict=True):
        cv2.warpAffine(image, one, size, result, flags, cv2.BORDER_CONSTANT, fill.tolist())
    return warped
