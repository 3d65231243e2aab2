"""This project's own layout: 7-Scenes with intrinsics, registered depth and, optionally, time stamps."""

from pathlib import Path

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.datasets.frames import read_matrix
from ofvl_core.datasets.images import read_color
from ofvl_core.datasets.layout import Layout, folder_name
from ofvl_core.datasets.scene import SceneData
from ofvl_core.datasets.seven_scenes import INTRINSICS_FILE, first_frame, read_splits
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array


def read_intrinsics(path: Path) -> Array:
    """The 3x3 calibration matrix in a text file. Raises DataError."""
    matrix = read_matrix(path, (3, 3))
    if not np.isfinite(matrix).all():
        raise DataError(f"{path}: holds NaN or infinity; correct the file")
    return matrix


def _sign(root: Path) -> str | None:
    return f"it has a {INTRINSICS_FILE}" if (root / INTRINSICS_FILE).exists() else None


def _load(root: Path, register_depth: bool) -> SceneData:
    matrix = read_intrinsics(root / INTRINSICS_FILE)
    splits, skipped = read_splits(root)
    height, width = read_color(first_frame(root, splits).color).shape[:2]
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = Camera(width, height, fx, fy, cx, cy)
    return SceneData(folder_name(root), root, camera, splits, skipped_poses=skipped)


LAYOUT = Layout("posed frames with intrinsics", _sign, _load)
