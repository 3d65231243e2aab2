"""A scene's training frames, decoded once: in memory, or in files that this run maps and later runs reuse.

With a cache folder a pack is CACHE/SCENE-xxxxxxxx/FINGERPRINT/{images,depths}.npy. The fingerprint covers
the source files (path, size, time of change), how their depth is read and what a few of them decode to: a
pack of other data or of another reading is never taken. A pack gets its name when it is whole. Writers of
one scene wait for each other, and what else they find in the scene's folder is stale or half-written and
goes.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import Array
from ofvl_core.resize import resize
from ofvl_core.warps import stored_camera

FRAMES_AT_ONCE = 32
"""Decoded frames held while a pack is written."""


@dataclass(frozen=True)
class PackedFrames:
    """The training frames of one scene; the arrays may be mapped read-only from files.

    Images (N, H, W, 3) uint8 RGB of `camera`; depths (N, h, w) uint16 in millimetres, 0 where unknown, of the
    same field of view and not larger, (N, 0, 0) where they were not asked for; poses (N, 4, 4) float64.
    `input_camera` is the network's input.
    """

    name: str
    images: NDArray[np.uint8]
    depths: NDArray[np.uint16]
    world_from_camera: Array
    camera: Camera
    input_camera: Camera

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def roamed(self) -> float:
        """How far the camera went, metres: root-mean-square distance of its places from their mean."""
        return float(np.sqrt(self.world_from_camera[:, :3, 3].var(axis=0).sum()))


def pack_frames(
    scene: SceneData,
    camera: Camera,
    cache: Path | None = None,
    on_frame: Callable[[], None] = lambda: None,
    with_depth: bool = True,
) -> PackedFrames:
    """The scene's training split for a network input of `camera`; `on_frame` is called for every frame.

    Without `cache` the frames are kept in memory. Raises DataError when a frame is unreadable; where depth is
    asked for, also when a frame has no depth image or none has a valid depth; ConfigError when the cache
    cannot hold the pack.
    """
    frames = scene.frames("train")
    for frame in frames:
        if with_depth and frame.depth is None:
            raise DataError(f"{frame.color}: has no depth beside it; training needs depth for every frame")
    stored = stored_camera(scene.camera, camera)
    source = _Source(scene, frames, stored, with_depth)
    arrays = _in_memory(source, on_frame) if cache is None else _cached(source, cache, on_frame)
    poses = np.stack([frame.world_from_camera for frame in frames])
    return PackedFrames(scene.name, arrays.images, arrays.depths, poses, stored, camera)


class _Arrays(NamedTuple):
    """Images and depths of all frames, or of one."""

    images: NDArray[np.uint8]
    depths: NDArray[np.uint16]


class _Source:
    """What is packed: decodes frames at the size they are stored in."""

    def __init__(self, scene: SceneData, frames: list[Frame], camera: Camera, with_depth: bool):
        self.scene, self.frames, self.camera, self.with_depth = scene, frames, camera, with_depth
        height, width = scene.read_depth(frames[0]).shape if with_depth else (0, 0)
        self.depth_size = min((width, height), (camera.width, camera.height))
        self.image_shape = (len(frames), camera.height, camera.width, 3)
        self.depth_shape = (len(frames), *self.depth_size[::-1])

    @property
    def megabytes(self) -> int:
        return math.ceil((math.prod(self.image_shape) + 2 * math.prod(self.depth_shape)) / 1e6)

    def decode(self, frame: Frame) -> _Arrays:
        """Image (H, W, 3) and depth (h, w). Depth is nearest: averaging mixes surfaces at their edges."""
        color = resize(self.scene.read_color(frame), self.camera)
        depth = self.scene.read_depth(frame) if self.with_depth else np.empty((0, 0), np.uint16)
        if depth.shape[::-1] != self.depth_size:
            depth = cv2.resize(depth, self.depth_size, interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[assignment]
        return _Arrays(np.ascontiguousarray(color), np.ascontiguousarray(depth))

    def decode_all(self, on_frame: Callable[[], None]) -> Iterator[_Arrays]:
        """Every frame in order. Raises DataError at the end when depth was asked for and none was valid."""
        any_valid = not self.with_depth
        with ThreadPoolExecutor() as pool:  # OpenCV decodes outside the interpreter lock
            for start in range(0, len(self.frames), FRAMES_AT_ONCE):
                for arrays in pool.map(self.decode, self.frames[start : start + FRAMES_AT_ONCE]):
                    any_valid = any_valid or bool(arrays.depths.any())
                    yield arrays
                    on_frame()
        if not any_valid:
            raise DataError(
                f"{self.scene.root}: no training frame has a valid depth pixel; record the depth again"
            )

    def fingerprint(self) -> str:
        """Digest of all that decides the arrays' content."""
        digest = hashlib.sha256(repr((self.image_shape, self.depth_shape, self.scene.depth_format)).encode())
        for frame in self.frames:
            for path in (frame.color, frame.depth if self.with_depth else None):
                if path is None:
                    continue
                try:
                    status = path.stat()
                except OSError as error:
                    raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
                place = os.path.relpath(path, self.scene.root)
                digest.update(repr((place, status.st_size, status.st_mtime_ns)).encode())
        last = len(self.frames) - 1
        for sample in sorted({0, last // 2, last}):  # how the reader registers, scales and masks shows here
            for array in self.decode(self.frames[sample]):
                digest.update(array.data)
        return digest.hexdigest()[:32]


def _in_memory(source: _Source, on_frame: Callable[[], None]) -> _Arrays:
    try:
        arrays = _Arrays(np.empty(source.image_shape, np.uint8), np.empty(source.depth_shape, np.uint16))
    except MemoryError:
        raise ConfigError(
            f"{source.scene.root}: its frames need {source.megabytes} MB of memory; give a cache folder"
        ) from None
    for number, (color, depth) in enumerate(source.decode_all(on_frame)):
        arrays.images[number], arrays.depths[number] = color, depth
    return arrays


def _cached(source: _Source, cache: Path, on_frame: Callable[[], None]) -> _Arrays:
    place = f"{source.scene.root.resolve()} {source.camera.width}x{source.camera.height}"
    if not source.with_depth:  # a pack of the same images with depth stays beside it
        place += " without depth"
    folder = cache / f"{source.scene.name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    pack = folder / source.fingerprint()
    arrays = _open(pack, source)
    if arrays is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "lock"):
                arrays = _open(pack, source)  # another process may have written it meanwhile
                if arrays is None:
                    return _write(pack, source, on_frame)
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot hold the {source.megabytes} MB of packed frames ({error.strerror}); "
                "free space there or choose another cache folder"
            ) from None
    for _ in source.frames:
        on_frame()
    return arrays


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system gives back should this process die."""
    with open(path, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _open(pack: Path, source: _Source) -> _Arrays | None:
    """The arrays of a pack, mapped; None when it is absent or damaged."""
    try:
        images, depths = (
            np.asarray(np.load(pack / name, mmap_mode="r", allow_pickle=False))
            for name in ("images.npy", "depths.npy")
        )
    except (OSError, ValueError, EOFError):
        return None
    fits = (images.shape, depths.shape) == (source.image_shape, source.depth_shape)
    return _Arrays(images, depths) if fits and (images.dtype, depths.dtype) == (np.uint8, np.uint16) else None


def _write(pack: Path, source: _Source, on_frame: Callable[[], None]) -> _Arrays:
    for stale in pack.parent.iterdir():
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
    partial = pack.with_name("partial")
    partial.mkdir()
    try:
        with open(partial / "images.npy", "wb") as images, open(partial / "depths.npy", "wb") as depths:
            for file, shape, kind in (
                (images, source.image_shape, np.dtype(np.uint8)),
                (depths, source.depth_shape, np.dtype(np.uint16)),
            ):
                header = {"descr": kind.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                size = file.tell() + kind.itemsize * math.prod(shape)
                os.posix_fallocate(file.fileno(), 0, size)  # a full disc shows now
            for color, depth in source.decode_all(on_frame):
                images.write(color.data)
                depths.write(depth.data)
            for file in (images, depths):
                file.flush()
                os.fsync(file.fileno())
        partial.rename(pack)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    arrays = _open(pack, source)
    assert arrays is not None
    return arrays
