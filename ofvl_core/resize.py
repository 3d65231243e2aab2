"""The network's input: its size for a given camera, and images brought to it."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera


def input_camera(camera: Camera, focal: float, stride: int) -> Camera:
    """The camera of the resized image whose vertical focal length is about `focal` pixels.

    A scene is seen at the focal length it was trained with, whatever camera asks. Sides are multiples of
    `stride`, at least one cell.
    """
    scale = focal / camera.fy
    width, height = (max(1, round(side * scale / stride)) * stride for side in (camera.width, camera.height))
    return camera.resized(width, height)


def resize(image: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
    """Image (H, W, 3) at the camera's size, averaging where it shrinks."""
    if image.shape[1::-1] == (camera.width, camera.height):
        return image
    shrinks = camera.width < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (camera.width, camera.height), interpolation=interpolation)
    return np.asarray(resized, np.uint8)


def normalise(images: Tensor) -> Tensor:
    """RGB of 0..255, any number type, to the network's -1..1."""
    return images.to(torch.float32) / 127.5 - 1.0
