"""Three neighbouring frames of a video at a time, seen by a camera that is turned and zoomed at random.

A turn about the optical centre and a change of the focal length move every pixel by a homography K' R K^-1,
whatever its depth. So poses and intrinsics follow exactly, and no depth need be known. All three frames get
the same: the motion between them, as the turned camera has it, explains the turned images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial.transform import Rotation
from torch import Tensor

from ofvl_core.camera import Camera
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array
from ofvl_core.training.ahead import DrawnAhead, put
from ofvl_core.training.config import Positive
from ofvl_core.training.packed import PackedFrames, pack_frames

Indices = NDArray[np.intp]

LONGEST_GAP = 1.5
"""Frames further apart in time than so many median gaps of their sequence are not neighbours."""

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
"""The world seen in a mirror beside the camera; its own inverse."""


def runs(frames: Sequence[Frame], length: int) -> Indices:
    """Indices (M, length) of successive frames of one sequence, none of whose steps leaves out any.

    Runs overlap: one begins at every frame that has enough behind it. `frames` are in temporal order within
    each sequence; held-out blocks and dropped frames show as gaps in time.
    """
    if len(frames) < length:
        return np.empty((0, length), np.intp)
    times = np.array([frame.timestamp for frame in frames])
    sequences = np.unique([frame.sequence for frame in frames], return_inverse=True)[1]
    gaps = np.diff(times)
    follows = (np.diff(sequences) == 0) & (gaps > 0)
    for sequence in np.unique(sequences[:-1][follows]):
        own = follows & (sequences[:-1] == sequence)
        follows[own] = gaps[own] <= LONGEST_GAP * np.median(gaps[own])
    unbroken = np.lib.stride_tricks.sliding_window_view(follows, length - 1).all(axis=1)
    return np.flatnonzero(unbroken)[:, None] + np.arange(length)


class Turns(BaseModel):
    """Ranges of the random view of a triplet, and of its light."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    angle_deg: float = Field(1.0, ge=0, lt=30, description="of a turn to the side, up and about the axis")
    zoom: tuple[Positive, Positive] = Field(
        (1.0, 1.15), description="factors of the focal length; a turn takes those that show no border, if any"
    )
    brightness: float = Field(20.0, ge=0, le=255, description="of 255")
    contrast: float = Field(0.2, ge=0, lt=1, description="the image's contrast changes by up to this factor")


@dataclass(frozen=True)
class Video:
    """The training frames of one scene, and the middles (M,), M > 0, of the triplets among them."""

    frames: PackedFrames
    centres: Indices

    @property
    def input_camera(self) -> Camera:
        """The camera of the network's input: without distortion, which a view undoes."""
        return replace(self.frames.input_camera, distortion=())


def pack_video(
    scene: SceneData,
    camera: Camera,
    cache: Path | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Video:
    """The scene's training split for a network input of `camera`, as `pack_frames` packs it, without depth.

    Raises DataError when no three of its frames are neighbours, besides what `pack_frames` raises.
    """
    centres = runs(scene.frames("train"), 3)[:, 1]
    if not len(centres):
        raise DataError(
            f"{scene.root}: no three training frames follow each other in time; give a whole video"
        )
    return Video(pack_frames(scene, camera, cache, on_frame, with_depth=False), centres)


class VideoBatch(NamedTuple):
    """Triplets of frames in order: t - 1, t, t + 1.

    `images` (B, 3, 3, H, W) in -1..1, their light changed; `clean` (B, 3, 3, H, W) in 0..1, the same views in
    their own light, for losses. `intrinsics` (B, 3, 3) in pixels of the input, without distortion.
    `world_from_camera` (B, 3, 4, 4), metres, of the turned cameras.
    """

    images: Tensor
    clean: Tensor
    intrinsics: Tensor
    world_from_camera: Tensor


class _Views(NamedTuple):
    """A batch before it goes to the device: images (B, 3, H, W, 3), light (2, B, 1, 1, 1, 1)."""

    images: NDArray[np.uint8]
    contrast_and_brightness: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    world_from_camera: NDArray[np.float32]


class VideoSource(DrawnAhead[_Views]):
    """The batches of one video: number `iteration` is the same whenever it is asked for.

    Every triplet comes once before any comes again. Of a `mirrored` source half of the items are seen in a
    mirror: more to learn depth and motion from, but a world in which poses of the real one mean nothing.
    """

    def __init__(
        self,
        video: Video,
        size: int,
        ranges: Turns,
        seed: tuple[int, ...],
        device: torch.device,
        mirrored: bool = False,
    ):
        """Batches of `size` triplets; random numbers depend on `seed` (run, scene, replica) and iteration."""
        super().__init__(device)
        self.video, self.size, self.ranges = video, size, ranges
        self.seed, self.mirrored = seed, mirrored

    def batch(self, iteration: int) -> VideoBatch:
        """Batch number `iteration`."""
        return _to_device(self._drawn(iteration), self.device)

    def _draw(self, iteration: int) -> _Views:
        places = np.arange(iteration * self.size, (iteration + 1) * self.size)
        epochs, places = np.divmod(places, len(self.video.centres))
        order = {epoch: self._random(0, epoch).permutation(self.video.centres) for epoch in np.unique(epochs)}
        centres = np.array([order[epoch][place] for epoch, place in zip(epochs, places, strict=True)])
        return _draw_views(self.video, centres, self.ranges, self.mirrored, self._random(1, iteration))

    def _random(self, purpose: int, number: int) -> Generator:
        return np.random.default_rng((*self.seed, purpose, number))


def _draw_views(video: Video, centres: Indices, ranges: Turns, mirrored: bool, random: Generator) -> _Views:
    size, camera = len(centres), video.input_camera
    images = np.empty((size, 3, camera.height, camera.width, 3), np.uint8)
    intrinsics, poses = np.empty((size, 3, 3)), np.empty((size, 3, 4, 4))
    triplets = centres[:, None] + (-1, 0, 1)
    for item, triplet in enumerate(triplets):
        view = random_view(camera, ranges, mirrored and random.random() < 0.5, random)
        pixels = view.stored_pixels(video.frames.camera)
        for image, frame in zip(images[item], triplet, strict=True):
            stored = video.frames.images[frame]
            cv2.remap(stored, pixels, None, cv2.INTER_LINEAR, image, cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        intrinsics[item], poses[item] = (
            view.camera.matrix,
            view.poses(video.frames.world_from_camera[triplet]),
        )
    contrast, brightness = random.uniform(-1, 1, (2, size, 1, 1, 1, 1))
    light = np.stack([1 + contrast * ranges.contrast, brightness * ranges.brightness / 127.5])
    return _Views(images, *(array.astype(np.float32) for array in (light, intrinsics, poses)))


def _to_device(views: _Views, device: torch.device) -> VideoBatch:
    images, light, intrinsics, poses = (put(array, device) for array in views)
    contrast, brightness = light
    clean = images.permute(0, 1, 4, 2, 3).contiguous().to(torch.float32).div_(255)
    jittered = (clean * (2 * contrast)).add_(brightness - contrast).clamp_(-1, 1)  # contrast about 0 of -1..1
    return VideoBatch(jittered, clean, intrinsics, poses)


@dataclass(frozen=True, eq=False)
class View:
    """How a frame is seen: by a `camera` that is turned by the rotation (3, 3), and maybe in a mirror."""

    camera: Camera
    turned_from_camera: Array
    mirrored: bool

    def stored_pixels(self, stored: Camera) -> NDArray[np.float32]:
        """For each pixel of the view its place (H, W, 2) in an image of the camera that was not turned."""
        lens = np.array(stored.distortion) if any(stored.distortion) else None
        camera = _flipped(self.camera) if self.mirrored else self.camera
        size = camera.width, camera.height
        pixels, _ = cv2.initUndistortRectifyMap(
            stored.matrix, lens, self.turned_from_camera, camera.matrix, size, cv2.CV_32FC2
        )
        return np.ascontiguousarray(pixels[:, ::-1] if self.mirrored else pixels, np.float32)

    def poses(self, world_from_camera: Array) -> Array:
        """The view's world_from_camera (..., 4, 4) for frames that have these."""
        camera_from_turned = np.eye(4)
        camera_from_turned[:3, :3] = self.turned_from_camera.T
        turned = world_from_camera @ camera_from_turned
        return MIRROR @ turned @ MIRROR if self.mirrored else turned


def random_view(camera: Camera, ranges: Turns, mirrored: bool, random: Generator) -> View:
    """A random view of `camera`'s size, zoomed so far that its turn shows no border, if `ranges` let it."""
    angles = np.radians(random.uniform(-1, 1, 3) * ranges.angle_deg)
    turned_from_camera = Rotation.from_rotvec(angles).as_matrix()
    low, high = ranges.zoom
    low = float(np.clip(_filling_zoom(camera, turned_from_camera), low, high))
    zoom = np.exp(random.uniform(*np.log((low, high))))
    zoomed = replace(camera, fx=camera.fx * zoom, fy=camera.fy * zoom)
    return View(_flipped(zoomed) if mirrored else zoomed, turned_from_camera, mirrored)


def _filling_zoom(camera: Camera, turned_from_camera: Array) -> float:
    """The zoom from which on the turned camera sees nothing that the camera does not, a little too large."""
    corners = np.array([[x, y] for x in (-0.5, camera.width - 0.5) for y in (-0.5, camera.height - 0.5)])
    from_centre = corners - (camera.cx, camera.cy)
    outwards = (camera.project(camera.rays(corners) @ turned_from_camera) - corners) * np.sign(from_centre)
    half = np.abs(from_centre)  # at zoom z a corner lies at half / z + outwards, which may be half at most
    return float((half / np.maximum(half - outwards, 1e-3)).max())


def _flipped(camera: Camera) -> Camera:
    """The camera of the image flipped left to right."""
    return replace(camera, cx=camera.width - 1 - camera.cx)
