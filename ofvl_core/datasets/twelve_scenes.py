"""12-Scenes as published (Valentin et al., 3DV 2016): a structured-light sensor on a tablet."""

import re
from pathlib import Path

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.datasets.frames import log_skipped, numbered_frames, read_lines
from ofvl_core.datasets.images import MILLIMETRE
from ofvl_core.datasets.layout import Layout, scene_name
from ofvl_core.datasets.registration import DepthRegistration
from ofvl_core.datasets.scene import DepthFormat, Frame, SceneData
from ofvl_core.errors import ConfigError, DataError

INFO_FILE, SPLIT_FILE, FRAMES_FOLDER = "info.txt", "split.txt", "data"

SAME_VIEW = 1.0
"""Depth pixels by which the corners of colour and depth image may differ and yet show one field of view."""


def _sign(root: Path) -> str | None:
    if (root / INFO_FILE).exists() and (root / FRAMES_FOLDER).is_dir():
        return f"it has an {INFO_FILE} and its frames in {FRAMES_FOLDER}/"
    return None


def _name(root: Path) -> str:
    root = root.resolve()
    return scene_name(root.parent.name, root.name)  # apt1 and apt2 both have a kitchen


def _load(root: Path, register_depth: bool) -> SceneData:
    info = _read_info(root / INFO_FILE)
    color, depth = (_camera(info, sensor, root / INFO_FILE) for sensor in ("Color", "Depth"))
    covered = color.resized(depth.width, depth.height)
    registration = None
    if register_depth and not _same_view(covered, depth):
        registration = DepthRegistration(depth, color, np.eye(4))
    shift = _number(info, "m_depthShift", root / INFO_FILE)
    unit = MILLIMETRE if shift == 1000 else 1 / shift
    splits, skipped = _read_splits(root)
    return SceneData(
        _name(root), root, color, splits, DepthFormat(unit, camera=depth, registration=registration), skipped
    )


def _read_splits(root: Path) -> tuple[dict[str, list[Frame]], int]:
    """The first sequence is for testing, the others are for training, as the data set's authors have it."""
    numbered = numbered_frames(root / FRAMES_FOLDER)
    splits: dict[str, list[Frame]] = {"train": [], "test": []}
    skipped = 0
    for position, (sequence, start, end) in enumerate(_read_ranges(root / SPLIT_FILE)):
        files = [item for item in numbered if start <= int(item.number) <= end]
        frames = [frame for item in files if (frame := item.posed(sequence)) is not None]
        skipped += len(files) - len(frames)
        splits["train" if position else "test"] += frames
    log_skipped(root, skipped, len(numbered))
    if not any(splits.values()):
        raise DataError(f"{root / SPLIT_FILE}: names no frame that is there; restore the images or the file")
    return splits, skipped


def _read_ranges(path: Path) -> list[tuple[str, int, int]]:
    ranges = []
    for line in read_lines(path):
        found = re.match(r"\s*(sequence\d+).*start\s*=\s*(\d+).*end\s*=\s*(\d+)", line)
        if found is None:
            raise DataError(
                f"{path}: line '{line.strip()}' is not like 'sequence0 [frames=9] [start=0 ; end=8]'; "
                "correct it"
            )
        ranges.append((found[1], int(found[2]), int(found[3])))
    return ranges


def _read_info(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in read_lines(path))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _number(info: dict[str, str], key: str, path: Path) -> float:
    try:
        number = float(info[key])
    except (KeyError, ValueError):
        number = 0.0
    if not 0 < number < np.inf:
        raise DataError(f"{path}: {key} is missing or not a positive number; restore the file")
    return number


def _camera(info: dict[str, str], sensor: str, path: Path) -> Camera:
    width, height = (int(_number(info, f"m_{sensor.lower()}{side}", path)) for side in ("Width", "Height"))
    key = f"m_calibration{sensor}Intrinsic"
    try:
        matrix = np.array([float(word) for word in info[key].split()]).reshape(4, 4)
        return Camera(width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    except (KeyError, ValueError, ConfigError):
        raise DataError(f"{path}: {key} is missing or not 16 numbers of a camera; restore the file") from None


def _same_view(one: Camera, other: Camera) -> bool:
    corners = np.array(
        [[0, 0], [other.width - 1, 0], [0, other.height - 1], [other.width - 1, other.height - 1]]
    )
    return bool(np.abs(one.project(other.rays(corners)) - corners).max() <= SAME_VIEW)


LAYOUT = Layout("12-Scenes as published", _sign, _load, _name)
