"""Any posed RGB-D recording, described by a dataset.yaml beside it. docs/datasets.md explains every key."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ofvl_core import camera as pinhole
from ofvl_core.datasets.frames import checked_rigid, log_skipped, read_matrix
from ofvl_core.datasets.images import INVALID_DEPTHS, MILLIMETRE
from ofvl_core.datasets.layout import Layout, folder_name
from ofvl_core.datasets.scene import DepthFormat, Frame, SceneData
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import Array, interpolate, invert
from ofvl_core.trajectory import read_trajectory, read_tum
from ofvl_core.yaml_files import read_yaml

DESCRIPTION_FILE = "dataset.yaml"

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Axes of a camera: OpenCV x right y down z forward, OpenGL x right y up z backward. Its own inverse."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraKeys(_Strict):
    """Intrinsics of the colour images, in pixels; distortion in OpenCV's order."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fx: Positive
    fy: Positive
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    @field_validator("distortion")
    @classmethod
    def _known_length(cls, distortion: tuple[float, ...]) -> tuple[float, ...]:
        if len(distortion) not in (0, 4, 5, 8):
            raise ValueError("must be empty or hold k1 k2 p1 p2 [k3 [k4 k5 k6]]")
        return distortion


class PoseKeys(_Strict):
    """Where poses are and what their numbers mean."""

    file: str
    """Below a sequence's folder: one file, or for `matrix` a pattern whose * is the frame's."""
    format: Literal["tum", "kitti", "matrix"]
    direction: Literal["camera_to_world", "world_to_camera"] = "camera_to_world"
    axes: Literal["opencv", "opengl"] = "opencv"

    @model_validator(mode="after")
    def _a_matrix_a_frame(self) -> "PoseKeys":
        if self.format == "matrix" and self.file.count("*") != 1:
            raise ValueError("file must hold one *, since `matrix` is a file a frame")
        return self


class SplitKeys(_Strict):
    """Sequences by name: folders below the scene's, '.' for the scene's own."""

    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


class HoldOutKeys(_Strict):
    """Of the training sequences, every `every`-th block of `frames` successive frames becomes test frames."""

    every: int = Field(ge=2)
    frames: int = Field(ge=1)


class Description(_Strict):
    """What a dataset.yaml says."""

    camera: CameraKeys
    color: str
    """Colour images below a sequence's folder: a pattern with one *, which stands for a number."""
    depth: str | None = None
    """Depth images likewise: 16-bit PNG, seen from the colour camera."""
    depth_unit: Positive = MILLIMETRE
    """Metres a grey value."""
    depth_invalid: tuple[int, ...] = INVALID_DEPTHS
    depth_size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    """Width and height of depth images that cover the same view in another resolution."""
    pair: Literal["name", "time"] = "name"
    """Whether a colour image's depth has the same *, or the one nearest in time."""
    tolerance: Positive = 0.02
    """Seconds up to which times belong together."""
    stamp_unit: Positive = 1.0
    """Seconds a unit of the number in a name: 1e-9 for nanoseconds, 0.0333 for frames of a 30 Hz video."""
    poses: PoseKeys
    sequences: SplitKeys
    hold_out: HoldOutKeys | None = None

    @field_validator("color", "depth")
    @classmethod
    def _one_star(cls, pattern: str | None) -> str | None:
        if pattern is not None and pattern.count("*") != 1:
            raise ValueError("must hold one *, which stands for the frame's number or time stamp")
        return pattern


def read_description(path: Path) -> Description:
    """A checked dataset.yaml. Raises DataError naming the first key that is wrong."""
    return read_yaml(path, Description, "docs/datasets.md")


def load_described(root: Path, description: Description) -> SceneData:
    """Read a scene that follows `description`. Raises DataError for what is missing or wrong.

    Images without a pose, or whose pose holds NaN or infinity, are skipped, counted and logged.
    """
    camera = pinhole.Camera(**description.camera.model_dump())
    splits: dict[str, list[Frame]] = {"train": [], "test": []}
    skipped = 0
    for split, sequences in (("train", description.sequences.train), ("test", description.sequences.test)):
        for sequence in sequences:
            frames, left_out = _read_sequence(root, sequence, description)
            skipped += left_out
            held_out = [split == "train" and _held_out(at, description.hold_out) for at in range(len(frames))]
            splits[split] += [frame for frame, out in zip(frames, held_out, strict=True) if not out]
            splits["test"] += [frame for frame, out in zip(frames, held_out, strict=True) if out]
    if not any(splits.values()):
        raise DataError(f"{root}: no frame in any split; name its sequences in {DESCRIPTION_FILE}")
    size = description.depth_size
    depth_format = DepthFormat(
        description.depth_unit,
        description.depth_invalid,
        None if size is None else camera.resized(*size),
    )
    return SceneData(folder_name(root), root, camera, splits, depth_format, skipped)


def _held_out(position: int, blocks: HoldOutKeys | None) -> bool:
    return blocks is not None and position // blocks.frames % blocks.every == blocks.every - 1


@dataclass(frozen=True)
class _Image:
    key: str  # what * stands for
    stamp: float  # seconds
    path: Path


def _read_sequence(root: Path, sequence: str, description: Description) -> tuple[list[Frame], int]:
    folder = root / sequence
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, though {DESCRIPTION_FILE} names it; correct `sequences`")
    colors = _images(folder, description.color, description.stamp_unit)
    depths = (
        _images(folder, description.depth, description.stamp_unit) if description.depth is not None else []
    )
    if description.pair == "time":
        paired = _by_time(colors, depths, description.tolerance)
    else:
        by_key = {image.key: image.path for image in depths}
        paired = [by_key.get(image.key) for image in colors]
    poses = _poses(folder, colors, description)
    prefix = "" if sequence == "." else f"{sequence}/"
    frames = [
        Frame(prefix + color.key, sequence, color.path, depth, pose, color.stamp - colors[0].stamp)
        for color, depth, pose in zip(colors, paired, poses, strict=True)
        if pose is not None
    ]
    skipped = len(colors) - len(frames)
    log_skipped(folder, skipped, len(colors))
    return frames, skipped


def _images(folder: Path, pattern: str, stamp_unit: float) -> list[_Image]:
    """Images that fit the pattern, in temporal order."""
    before, after = (re.escape(part) for part in str(PurePosixPath(pattern)).split("*"))
    found = []
    for path in sorted(folder.glob(pattern)):
        matched = re.fullmatch(f"{before}([^/]*){after}", path.relative_to(folder).as_posix())
        if matched is None:
            continue
        try:
            found.append(_Image(matched[1], float(matched[1]) * stamp_unit, path))
        except ValueError:
            raise DataError(
                f"{path}: '{matched[1]}' is not a number; make the * of '{pattern}' in {DESCRIPTION_FILE} "
                "stand for the frame's number or time stamp alone"
            ) from None
    if not found:
        raise DataError(f"{folder}: no image fits '{pattern}'; correct {DESCRIPTION_FILE} or restore them")
    return sorted(found, key=lambda image: image.stamp)


def _by_time(colors: list[_Image], depths: list[_Image], tolerance: float) -> list[Path | None]:
    """For each colour image the depth image nearest in time, within the tolerance."""
    if not depths:
        return [None] * len(colors)
    stamps = np.array([image.stamp for image in depths])
    nearest = [int(np.abs(stamps - image.stamp).argmin()) for image in colors]
    return [
        depths[at].path if abs(stamps[at] - image.stamp) <= tolerance else None
        for at, image in zip(nearest, colors, strict=True)
    ]


def _poses(folder: Path, colors: list[_Image], description: Description) -> Iterator[Array | None]:
    """world_from_camera (optical axes) of each colour image, or None."""
    keys = description.poses
    read = {"tum": _tum, "kitti": _kitti, "matrix": _matrices}[keys.format]
    for pose in read(folder, colors, description):
        if pose is not None:
            if keys.direction == "world_to_camera":
                pose = invert(pose)
            if keys.axes == "opengl":
                pose = pose @ OPENCV_FROM_OPENGL
        yield pose


def _tum(folder: Path, colors: list[_Image], description: Description) -> list[Array | None]:
    """Poses at the images' times, between two rows of the trajectory that are both near in time."""
    stamps, poses = read_tum(folder / description.poses.file)
    order = np.argsort(stamps, kind="stable")
    stamps, poses = stamps[order], poses[order]
    found: list[Array | None] = []
    for image in colors:
        after = min(int(np.searchsorted(stamps, image.stamp)), len(stamps) - 1)
        before = max(after - 1, 0)
        since, until = image.stamp - stamps[before], stamps[after] - image.stamp
        near = [at for at, gap in ((before, since), (after, until)) if abs(gap) <= description.tolerance]
        if len(near) == 2 and since + until > 0:
            found.append(
                interpolate(poses[before], poses[after], float(np.clip(since / (since + until), 0, 1)))
            )
        else:
            found.append(poses[near[0]] if near else None)
    return found


def _kitti(folder: Path, colors: list[_Image], description: Description) -> list[Array | None]:
    """A row of 12 numbers, the upper three rows of a 4x4, for each image in order."""
    trajectory = read_trajectory(folder / description.poses.file)
    if trajectory.format != "KITTI" or len(trajectory.poses) != len(colors):
        raise DataError(
            f"{trajectory.source}: {len(trajectory.poses)} {trajectory.format} rows for {len(colors)} images "
            f"that fit '{description.color}'; a KITTI trajectory has a row of 12 numbers for each"
        )
    return list(trajectory.poses)


def _matrices(folder: Path, colors: list[_Image], description: Description) -> list[Array | None]:
    """A text file of 4x4 numbers for each image, named by what the * of the colour pattern stands for."""
    found: list[Array | None] = []
    for image in colors:
        path = folder / description.poses.file.replace("*", image.key)
        pose = read_matrix(path, (4, 4))
        found.append(checked_rigid(pose, path) if np.isfinite(pose).all() else None)
    return found


def _sign(root: Path) -> str | None:
    return f"it has a {DESCRIPTION_FILE}" if (root / DESCRIPTION_FILE).exists() else None


def _load(root: Path, register_depth: bool) -> SceneData:
    path = root / DESCRIPTION_FILE
    try:
        return load_described(root, read_description(path))
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None


LAYOUT = Layout("posed RGB-D folder with a description", _sign, _load)
