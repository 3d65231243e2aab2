"""The network's input: its size for a given camera, and images brought to it."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError

LARGEST_INPUT = 4_000_000
"""Pixels that the network is ever given: thirteen times those of the paper's images. Whoever needs more has
intrinsics that are not the image's, or so wide a view that no pinhole describes it."""


def affordable_input(camera: Camera, focal: float, stride: int) -> Camera:
    """The `input_camera` of whatever camera asks. Raises ConfigError when it would be absurdly large."""
    small = input_camera(camera, focal, stride)
    if small.width * small.height > LARGEST_INPUT:
        raise ConfigError(
            f"camera_info gives an image of {camera.width}x{camera.height} pixels the focal length "
            f"{camera.fy:g}, so wide that the network would need {small.width}x{small.height}; "
            "give the intrinsics of this image"
        )
    return small


def input_camera(camera: Camera, focal: float, stride: int) -> Camera:
    """The camera of the resized image whose vertical focal length is about `focal` pixels.

    A scene is seen at the focal length it was trained with, whatever camera asks. Sides are multiples of
    `stride`, at least one cell.
    """
    scale = focal / camera.fy
    width, height = (max(1, round(side * scale / stride)) * stride for side in (camera.width, camera.height))
    return camera.resized(width, height)


def require_size(image_rgb: NDArray[np.uint8], camera: Camera) -> None:
    """Raises ConfigError for an image (H, W, 3) that is not of its camera's size."""
    height, width = image_rgb.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ConfigError(
            f"image is {width}x{height} but its camera_info says {camera.width}x{camera.height}; "
            "use the camera_info of this image stream"
        )


def resize(image: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
    """Image (H, W) or (H, W, 3) at the camera's size, averaging where it shrinks."""
    if image.shape[1::-1] == (camera.width, camera.height):
        return image
    shrinks = camera.width < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (camera.width, camera.height), interpolation=interpolation)
    return np.asarray(resized, np.uint8)


def normalise(images: Tensor) -> Tensor:
    """RGB of 0..255, any number type, to the network's -1..1."""
    return images.to(torch.float32) / 127.5 - 1.0
