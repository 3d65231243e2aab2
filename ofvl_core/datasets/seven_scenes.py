"""The 7-Scenes layout, as docs/datasets.md describes it."""

import logging
import re
from pathlib import Path

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.datasets.images import read_color
from ofvl_core.datasets.scene import Frame, SceneData
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, nearest_rigid

logger = logging.getLogger(__name__)

INTRINSICS_FILE = "camera-intrinsics.txt"
TIMESTAMPS_FILE = "timestamps.txt"
SPLIT_FILES = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
VIDEO_RATE = 30.0
"""Frames a second where a sequence has no time stamps: frame numbers count a 30 Hz video."""


def find_scenes(paths: list[Path]) -> list[Path]:
    """Scene folders among `paths`: each path is one, or a folder that holds some. Raises DataError."""
    scenes: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; give a scene folder or a folder of scenes")
        inside = (
            [path]
            if (path / INTRINSICS_FILE).exists()
            else sorted(child for child in path.iterdir() if (child / INTRINSICS_FILE).exists())
        )
        if not inside:
            raise DataError(
                f"{path}: no scene found, neither here nor one level below; a scene has a {INTRINSICS_FILE}"
            )
        scenes += inside
    names = [scene.resolve().name for scene in scenes]
    if len(set(names)) < len(names):
        raise DataError(
            f"scene names repeat ({', '.join(sorted(names))}); rename a folder, it names its scene"
        )
    return scenes


def load_scene(root: Path) -> SceneData:
    """Read a scene's intrinsics, splits and poses; images stay on disk.

    Frames whose pose holds NaN or infinity (12-Scenes has them) are skipped, counted and logged.
    Raises DataError for everything else that is missing or wrong.
    """
    root = Path(root)
    matrix = read_intrinsics(root / INTRINSICS_FILE)
    splits = {}
    for split, file in SPLIT_FILES.items():
        path = root / file
        sequences = _read_split(path) if path.exists() else []
        splits[split] = [frame for sequence in sequences for frame in _read_sequence(root, sequence, path)]
    frames = [frame for split in splits.values() for frame in split]
    if not frames:
        raise DataError(
            f"{root}: no frame in any split; list sequences in {' or '.join(SPLIT_FILES.values())}"
        )
    height, width = read_color(frames[0].color).shape[:2]
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = Camera(width, height, fx, fy, cx, cy)
    return SceneData(root.resolve().name, root, camera, splits)


def read_intrinsics(path: Path) -> Array:
    """The 3x3 calibration matrix in a text file. Raises DataError."""
    return _read_matrix(path, (3, 3))


def _read_split(path: Path) -> list[str]:
    sequences = []
    for line in path.read_text(encoding="utf-8").split():
        number = re.fullmatch(r"(?:sequence|seq-)(\d+)", line)
        if number is None:
            raise DataError(f"{path}: line '{line}' is not a sequence; write 'sequence1' for folder seq-01")
        sequences.append(f"seq-{int(number.group(1)):02d}")
    return sequences


def _read_sequence(root: Path, sequence: str, split_file: Path) -> list[Frame]:
    folder = root / sequence
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder, though {split_file.name} lists it; restore it or edit the list"
        )
    colors = sorted([*folder.glob("frame-*.color.png"), *folder.glob("frame-*.color.jpg")])
    if not colors:
        raise DataError(f"{folder}: no frame-*.color.png or .jpg; restore the images")
    stamps = _read_timestamps(folder / TIMESTAMPS_FILE)
    frames, not_finite = [], 0
    for color in colors:
        stem = color.name.split(".")[0]
        number = stem.removeprefix("frame-")
        pose = _read_matrix(folder / f"{stem}.pose.txt", (4, 4), finite=False)
        if not np.isfinite(pose).all():
            not_finite += 1
            continue
        depth = folder / f"{stem}.depth.png"
        try:
            timestamp = stamps[number] if stamps else int(number) / VIDEO_RATE
        except (KeyError, ValueError):
            raise DataError(f"{folder}: {color.name} has no time stamp; complete {TIMESTAMPS_FILE}") from None
        rigid = _checked_rigid(pose, folder / f"{stem}.pose.txt")
        frames.append(
            Frame(f"{sequence}/{stem}", sequence, color, depth if depth.exists() else None, rigid, timestamp)
        )
    if not_finite:
        logger.warning(
            "%s: skipped %d of %d frames whose pose holds NaN or infinity", folder, not_finite, len(colors)
        )
    return frames


def _checked_rigid(pose: Array, path: Path) -> Array:
    rotation = pose[:3, :3]
    if abs(np.linalg.det(rotation) - 1.0) > 0.05 or not np.allclose(
        rotation @ rotation.T, np.eye(3), atol=0.05
    ):
        raise DataError(
            f"{path}: not a camera-to-world pose (its 3x3 part is no rotation); write a rigid 4x4"
        )
    return nearest_rigid(pose)


def _read_timestamps(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {number: float(seconds) for number, seconds in rows}
    except ValueError:
        raise DataError(f"{path}: rows must be 'frame-number seconds'; correct the file") from None


def _read_matrix(path: Path, shape: tuple[int, int], finite: bool = True) -> Array:
    if not path.exists():
        raise DataError(f"{path}: missing; every scene needs its intrinsics and every frame its pose")
    try:
        matrix = np.array(
            [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
        )
    except (ValueError, UnicodeDecodeError):
        matrix = np.empty(0)
    if matrix.shape != shape:
        raise DataError(f"{path}: must hold {shape[0]}x{shape[1]} numbers; correct the file")
    if finite and not np.isfinite(matrix).all():
        raise DataError(f"{path}: holds NaN or infinity; correct the file")
    return matrix
