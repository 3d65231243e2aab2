"""7-Scenes as published (Shotton et al., CVPR 2013): a Kinect whose depth is not registered to colour."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.datasets.frames import log_skipped, numbered_frames, read_lines
from ofvl_core.datasets.images import read_color
from ofvl_core.datasets.layout import Layout, folder_name
from ofvl_core.datasets.registration import DepthRegistration
from ofvl_core.datasets.scene import DepthFormat, Frame, SceneData
from ofvl_core.errors import DataError
from ofvl_core.geometry import invert, nearest_rigid

logger = logging.getLogger(__name__)

SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")

INTRINSICS_FILE = "camera-intrinsics.txt"  # published scenes have none
SPLIT_FILES = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
TIMESTAMPS_FILE = "timestamps.txt"

COLOR_CAMERA = Camera(width=640, height=480, fx=525.0, fy=525.0, cx=320.0, cy=240.0)
DEPTH_CAMERA = replace(COLOR_CAMERA, fx=585.0, fy=585.0)

COLOR_FROM_DEPTH = nearest_rigid(
    np.array(
        [
            [0.99996518, 0.00267651, -0.00790410, -0.02555894],
            [-0.00274093, 0.99996303, -0.00815045, 0.00010110],
            [0.00788199, 0.00817183, 0.99993555, 0.00203183],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
)
"""A Kinect's calibration published by LIRIS, Lyon, which DSAC* and its successors use for 7-Scenes."""


def read_splits(root: Path) -> tuple[dict[str, list[Frame]], int]:
    """Frames of a scene by split, their poses as the files have them, and how many frames were skipped.

    A frame is skipped, counted and logged when its pose holds NaN or infinity. Raises DataError.
    """
    splits: dict[str, list[Frame]] = {}
    skipped = 0
    for split, file in SPLIT_FILES.items():
        path = root / file
        splits[split] = []
        for sequence in _read_split(path) if path.exists() else []:
            frames, not_finite = _read_sequence(root, sequence, path)
            splits[split] += frames
            skipped += not_finite
    return splits, skipped


def first_frame(root: Path, splits: dict[str, list[Frame]]) -> Frame:
    """Any frame of a scene. Raises DataError when there is none."""
    for frames in splits.values():
        if frames:
            return frames[0]
    raise DataError(f"{root}: no frame in any split; list sequences in {' or '.join(SPLIT_FILES.values())}")


def _read_split(path: Path) -> list[str]:
    sequences = []
    for line in " ".join(read_lines(path)).split():
        number = re.fullmatch(r"(?:sequence|seq-)(\d+)", line)
        if number is None:
            raise DataError(f"{path}: line '{line}' is not a sequence; write 'sequence1' for folder seq-01")
        sequences.append(f"seq-{int(number.group(1)):02d}")
    return sequences


def _read_sequence(root: Path, sequence: str, split_file: Path) -> tuple[list[Frame], int]:
    folder = root / sequence
    if not folder.is_dir():
        if folder.with_suffix(".zip").exists():
            raise DataError(f"{folder}.zip: sequence is still packed; unzip it inside {root}")
        raise DataError(
            f"{folder}: no such folder, though {split_file.name} lists it; restore it or edit the list"
        )
    numbered = numbered_frames(folder)
    stamps = _read_timestamps(folder / TIMESTAMPS_FILE)
    frames = []
    for files in numbered:
        if stamps and files.number not in stamps:
            raise DataError(f"{folder}: {files.color.name} has no time stamp; complete {TIMESTAMPS_FILE}")
        frame = files.posed(sequence, stamps.get(files.number))
        if frame is not None:
            frames.append(frame)
    skipped = len(numbered) - len(frames)
    log_skipped(folder, skipped, len(numbered))
    return frames, skipped


def _read_timestamps(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        return {number: float(seconds) for number, seconds in map(str.split, read_lines(path))}
    except ValueError:
        raise DataError(f"{path}: rows must be 'frame-number seconds'; correct the file") from None


def _sign(root: Path) -> str | None:
    present = [file for file in SPLIT_FILES.values() if (root / file).exists()]
    if present and not (root / INTRINSICS_FILE).exists():
        return f"it has a {present[0]} and no {INTRINSICS_FILE}"
    return None


def _load(root: Path, register_depth: bool) -> SceneData:
    splits, skipped = read_splits(root)
    height, width = read_color(first_frame(root, splits).color).shape[:2]
    if (width, height) != (COLOR_CAMERA.width, COLOR_CAMERA.height):
        raise DataError(
            f"{root / INTRINSICS_FILE}: missing, and images of {width}x{height} are not 7-Scenes'; write the "
            "3x3 intrinsics there"
        )
    if root.resolve().name not in SCENES:
        logger.warning(
            "%s: read as a 7-Scenes recording, since it has no %s; write one if the camera is another",
            root,
            INTRINSICS_FILE,
        )
    depth_format = DepthFormat(camera=DEPTH_CAMERA)
    if register_depth:
        depth_from_color = invert(COLOR_FROM_DEPTH)
        splits = {
            split: [
                replace(frame, world_from_camera=frame.world_from_camera @ depth_from_color)
                for frame in frames
            ]
            for split, frames in splits.items()
        }
        registration = DepthRegistration(DEPTH_CAMERA, COLOR_CAMERA, COLOR_FROM_DEPTH)
        depth_format = replace(depth_format, registration=registration)
    return SceneData(folder_name(root), root, COLOR_CAMERA, splits, depth_format, skipped)


LAYOUT = Layout("7-Scenes as published", _sign, _load)
