"""Random views of stored frames: images are warped, scene coordinates follow exactly.

The paper's augmentation (scale, rotation, shear, shift, brightness, a random colour outside the image) and
contrast, each as far as asked for. Coordinates are not warped as an image: each cell's pixel is carried back
to the stored frame, its depth is looked up there (nearest, so that no edge is blurred) and lifted along the
pixel's own ray. So a target projects exactly onto the pixel that pose estimation will use.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera, cell_pixels, resized_pixels
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, invert
from ofvl_core.resize import normalise
from ofvl_core.training.ahead import DrawnAhead, put
from ofvl_core.training.config import Augmentation
from ofvl_core.training.packed import PackedFrames
from ofvl_core.training.view_synthesis import random_motion, synthesise
from ofvl_core.warps import GREY, unwarped, warp, warp_images

FRAMES_FOR_SCENE_FRAME = 256
"""Frames that stand for all when a scene's mean and extent are measured."""


class Batch(NamedTuple):
    """Images (B, 3, H, W) in -1..1 and what their cells should say.

    `coordinates` (B, 3, h, w), metres, are known of the `valid` cells (B, 1, h, w). `rays` (B, 2, h, w), on
    the plane z = 1 of the frame that `camera_from_world` (B, 4, 4) leads to, are those of the cells `seen`
    (B, 1, h, w): the valid ones, and others that show the scene at a depth that nobody measured.
    """

    images: Tensor
    coordinates: Tensor
    valid: Tensor
    rays: Tensor
    seen: Tensor
    camera_from_world: Tensor


class CellTargets(NamedTuple):
    """As in `Batch`, in float64."""

    coordinates: Array
    valid: NDArray[np.bool_]
    rays: Array
    seen: NDArray[np.bool_]


class _View(NamedTuple):
    """A batch before it goes to the device: images (B, H, W, 3) uint8, light (2, B, 1, 1, 1) float32."""

    images: NDArray[np.uint8]
    contrast_and_brightness: NDArray[np.float32]
    coordinates: NDArray[np.float32]
    valid: NDArray[np.bool_]
    rays: NDArray[np.float32]
    seen: NDArray[np.bool_]
    camera_from_world: NDArray[np.float32]


class BatchSource(DrawnAhead[_View]):
    """The batches of one scene: number `iteration` is the same whenever it is asked for."""

    def __init__(
        self,
        frames: PackedFrames,
        size: int,
        stride: int,
        ranges: Augmentation,
        seed: tuple[int, ...],
        device: torch.device,
    ):
        """Batches of `size` frames; random numbers depend on `seed` (run, scene, replica) and iteration."""
        super().__init__(device)
        self.frames, self.size, self.stride, self.ranges, self.seed = frames, size, stride, ranges, seed

    def batch(self, iteration: int) -> Batch:
        """Batch number `iteration`."""
        return _to_device(self._drawn(iteration), self.device)

    def _draw(self, iteration: int) -> _View:
        random = np.random.default_rng((*self.seed, iteration))
        return _draw_view(self.frames, self.size, self.stride, self.ranges, random)


def _draw_view(
    frames: PackedFrames, size: int, stride: int, ranges: Augmentation, random: Generator
) -> _View:
    indices = random.integers(len(frames), size=size)
    warps = np.stack([random_warp(frames.input_camera, frames.camera, ranges, random) for _ in indices])
    fills = random.integers(256, size=(size, 3)) if ranges.fill == "random" else np.full((size, 3), GREY)
    contrast, brightness = random.uniform(-1, 1, (2, size, 1, 1, 1))
    light = np.stack([1 + contrast * ranges.contrast, brightness * ranges.brightness / 127.5])
    camera, moved = frames.input_camera, random.random(size) < ranges.synthesised
    images = np.empty((size, camera.height, camera.width, 3), np.uint8)
    images[~moved] = warp_images(frames.images[indices[~moved]], warps[~moved], fills[~moved], camera)
    cells = cell_targets(frames, indices, warps, stride)
    world_from_camera = frames.world_from_camera[indices]
    for view in np.flatnonzero(moved):
        motion = random_motion(frames, indices[view], ranges, random)
        images[view], cells.coordinates[view], cells.valid[view, 0] = synthesise(
            frames, indices[view], warps[view], motion, fills[view], stride
        )
        cells.seen[view] = cells.valid[view]
        world_from_camera[view] = world_from_camera[view] @ motion
    for image in images:
        blur(image, ranges.blur * random.random() * image.shape[1], random.uniform(0, np.pi))
    return _View(
        images,
        light.astype(np.float32),
        cells.coordinates.astype(np.float32),
        cells.valid,
        cells.rays.astype(np.float32),
        cells.seen,
        invert(world_from_camera).astype(np.float32),
    )


def blur(image: NDArray[np.uint8], length: float, angle: float) -> None:
    """Blur an image (H, W, 3), in place, as a motion of `length` pixels in the direction `angle` does."""
    size = 2 * math.ceil(length / 2) + 1
    if size < 3:
        return
    kernel = np.zeros((size, size), np.float32)
    half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(np.rint(16 * (size // 2 + end)).astype(int).tolist()) for end in (-half, half)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_4, shift=4)
    cv2.filter2D(image, -1, kernel / kernel.sum(), image, borderType=cv2.BORDER_REPLICATE)


def _to_device(view: _View, device: torch.device) -> Batch:
    images, light, *cells = (put(array, device) for array in view)
    contrast, brightness = light
    normalised = normalise(images.permute(0, 3, 1, 2)).mul_(contrast).add_(brightness).clamp_(-1, 1)
    return Batch(normalised, *cells)


def random_warp(input_camera: Camera, stored: Camera, ranges: Augmentation, random: Generator) -> Array:
    """Affine map (2, 3) from a pixel of the network's input to a pixel of the stored image.

    With the full ranges, next to no view is filled to its corners as a robot's images are, and the network
    takes those for closer than they are; so each view goes but a random share of the way to their ends.
    """
    share = random.random() if ranges.reach == "random" else 1.0
    scale = np.exp(share * random.uniform(*np.log(ranges.scale)))
    angle, shear = np.radians(share * random.uniform(-1, 1, 2) * (ranges.rotation_deg, ranges.shear_deg))
    shift = share * random.uniform(-1, 1, 2) * ranges.shift
    return warp(input_camera, stored, scale, angle, shear, tuple(shift))


def cell_targets(
    frames: PackedFrames, indices: NDArray[np.integer], stored_from_input: Array, stride: int
) -> CellTargets:
    """What every cell's pixel shows of the frames of the `indices` (B,) through the warps (B, 2, 3)."""
    camera, stored = frames.input_camera, frames.camera
    cells = cell_pixels(camera.width, camera.height, stride)
    pixels = cells @ _transposed(stored_from_input[:, :, :2]) + stored_from_input[:, None, :, 2]
    height, width = frames.depths.shape[1:]
    depth_scale = np.array([width / stored.width, height / stored.height])
    column, row = np.moveaxis(np.rint(resized_pixels(pixels, depth_scale)).astype(np.int64), -1, 0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = indices[:, None], row.clip(0, height - 1), column.clip(0, width - 1)
    depth = frames.depths[nearest] / 1000.0
    rays = stored.rays(pixels.reshape(-1, 2)).reshape(*depth.shape, 3)
    pose = frames.world_from_camera[indices]
    seen = inside & np.isfinite(rays[..., 0])  # a lens may show pixels that have no ray
    rays = np.nan_to_num(rays)
    points = (rays * depth[..., None]) @ _transposed(pose[:, :3, :3]) + pose[:, None, :3, 3]
    shape = (len(indices), -1, camera.height // stride, camera.width // stride)
    return CellTargets(
        _transposed(points).reshape(shape),
        (seen & (depth > 0)).reshape(shape),
        _transposed(rays[..., :2]).reshape(shape),
        seen.reshape(shape),
    )


def scene_frame(frames: PackedFrames, stride: int) -> tuple[Array, float]:
    """Mean (3,) and root-mean-square distance from it, in metres, of the frames' scene coordinates.

    Measured on evenly spaced frames. Raises DataError when none of their cells has a depth.
    """
    indices = np.unique(np.linspace(0, len(frames) - 1, FRAMES_FOR_SCENE_FRAME).round().astype(np.int64))
    warps = np.tile(unwarped(frames.input_camera, frames.camera), (len(indices), 1, 1))
    cells = cell_targets(frames, indices, warps, stride)
    points = np.moveaxis(cells.coordinates, 1, -1)[cells.valid[:, 0]]
    if not len(points):
        raise DataError(f"{frames.name}: the training frames have next to no valid depth; record it again")
    centre = points.mean(axis=0)
    return centre, float(np.sqrt(np.square(points - centre).sum(axis=1).mean()))


def _transposed(matrices: Array) -> Array:
    return np.swapaxes(matrices, -1, -2)
