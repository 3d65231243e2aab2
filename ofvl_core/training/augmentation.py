"""Random views of stored frames: images are warped, scene coordinates follow exactly.

The paper's augmentation (scale, rotation, shear, shift, brightness). Coordinates are not warped as an
image: each cell's pixel is carried back to the stored frame, its depth is looked up there (nearest, so
that no edge is blurred) and lifted along the pixel's own ray. So a target projects exactly onto the
pixel that pose estimation will use.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.geometry import Array
from ofvl_core.resize import normalise
from ofvl_core.training.config import Augmentation
from ofvl_core.training.memory import SceneMemory


class Batch(NamedTuple):
    """Images (B, 3, H, W) in -1..1; scene coordinates (B, 3, h, w) in metres; valid cells (B, 1, h, w)."""

    images: Tensor
    coordinates: Tensor
    valid: Tensor


def draw_batch(memory: SceneMemory, size: int, stride: int, ranges: Augmentation, random: Generator) -> Batch:
    """`size` random frames, each seen through its own random warp."""
    indices = random.integers(len(memory), size=size)
    warps = [random_warp(memory.input_camera, memory.camera, ranges, random) for _ in range(size)]
    warped = warp_images(memory.images[indices], warps, memory.input_camera)
    images = _relight(
        normalise(torch.from_numpy(warped).to(memory.device).permute(0, 3, 1, 2)), ranges, random
    )
    chosen = torch.from_numpy(indices).to(memory.device)
    coordinates, valid = cell_targets(
        memory.depths[chosen],
        memory.world_from_camera[chosen],
        memory.camera,
        memory.input_camera,
        torch.from_numpy(np.stack(warps)).float().to(memory.device),
        stride,
    )
    return Batch(images, coordinates, valid)


def random_warp(input_camera: Camera, stored: Camera, ranges: Augmentation, random: Generator) -> Array:
    """Affine map (2, 3) from a pixel of the network's input to a pixel of the stored image."""
    scale = np.exp(random.uniform(*np.log(ranges.scale)))
    angle, shear = np.radians(random.uniform(-1, 1, 2) * (ranges.rotation_deg, ranges.shear_deg))
    shift = random.uniform(-1, 1, 2) * ranges.shift * (input_camera.width, input_camera.height)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[1.0, np.tan(shear)], [0.0, 1.0]]) / scale
    centre = np.array([input_camera.width - 1, input_camera.height - 1]) / 2
    original_from_warped = np.eye(3)
    original_from_warped[:2] = np.column_stack([linear, centre - linear @ (centre + shift)])
    return unwarped(input_camera, stored) @ original_from_warped


def unwarped(input_camera: Camera, stored: Camera) -> Array:
    """The map (2, 3) from input to stored pixels of a plain resize: c -> (c + 0.5) s - 0.5."""
    x, y = stored.width / input_camera.width, stored.height / input_camera.height
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def warp_images(
    images: NDArray[np.uint8], stored_from_input: list[Array], camera: Camera
) -> NDArray[np.uint8]:
    """Images (B, H, W, 3) sampled bilinearly at every pixel of the input `camera`; outside is mid-grey."""
    size, flags = (camera.width, camera.height), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = np.empty((len(images), camera.height, camera.width, 3), np.uint8)
    for image, warp, result in zip(images, stored_from_input, warped, strict=True):
        cv2.warpAffine(image, warp, size, result, flags, cv2.BORDER_CONSTANT, (128, 128, 128))
    return warped


def cell_targets(
    depths: Tensor,
    world_from_camera: Tensor,
    stored: Camera,
    camera: Camera,
    stored_from_input: Tensor,
    stride: int,
) -> tuple[Tensor, Tensor]:
    """Scene coordinates (B, 3, h, w) of every cell's pixel, and which are valid (B, 1, h, w).

    `depths` (B, H, W) in metres belong to the `stored` camera, `camera` is the network input's.
    """
    pixels = torch.from_numpy(cell_pixels(camera.width, camera.height, stride)).float().to(depths.device)
    x, y = (pixels @ stored_from_input[:, :, :2].mT + stored_from_input[:, None, :, 2]).unbind(-1)
    column, row = x.round().long(), y.round().long()
    inside = (column >= 0) & (column < stored.width) & (row >= 0) & (row < stored.height)
    frame = torch.arange(len(depths), device=depths.device)[:, None]
    depth = depths[frame, row.clamp(0, stored.height - 1), column.clamp(0, stored.width - 1)]
    rays = torch.stack([(x - stored.cx) / stored.fx, (y - stored.cy) / stored.fy, torch.ones_like(x)], -1)
    points = rays * depth[..., None]
    points = points @ world_from_camera[:, :3, :3].mT + world_from_camera[:, None, :3, 3]
    shape = (len(depths), -1, camera.height // stride, camera.width // stride)
    return points.mT.reshape(shape), (inside & (depth > 0)).reshape(shape)


def _relight(images: Tensor, ranges: Augmentation, random: Generator) -> Tensor:
    shape = (len(images), 1, 1, 1)
    brightness = random.uniform(-1, 1, shape) * ranges.brightness / 127.5
    contrast = 1 + random.uniform(-1, 1, shape) * ranges.contrast
    images = images * torch.from_numpy(contrast).float().to(images.device)
    return (images + torch.from_numpy(brightness).float().to(images.device)).clamp_(-1, 1)
