"""KITTI odometry: colour images of a drive with poses, as published or with intrinsics of their own.

Published (`sequences/NN` and `poses/NN.txt`), poses are those of camera 0, a grey one; images are those of
camera 2, whose place calib.txt tells. A folder with camera-intrinsics.txt holds poses.txt of its own camera.
"""

from pathlib import Path

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.datasets.frames import log_skipped, read_lines, read_matrix
from ofvl_core.datasets.images import read_color
from ofvl_core.datasets.layout import Layout, folder_name, scene_name
from ofvl_core.datasets.posed import read_intrinsics
from ofvl_core.datasets.scene import Frame, SceneData
from ofvl_core.datasets.seven_scenes import INTRINSICS_FILE
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, invert
from ofvl_core.trajectory import read_trajectory

IMAGES = "image_2"
CALIBRATION_FILE = "calib.txt"
PROJECTION = "P2"
"""The left colour camera's 3x4 projection of points in camera 0: the camera whose images are used."""

RATE = 10.0
"""Images a second where times.txt is absent."""


def load_kitti(root: Path) -> SceneData:
    """Read one sequence: all frames for training, none has depth. Raises DataError.

    Image NNNNNN has the pose and the time of row N, counted from 0. Images beyond the last pose are skipped,
    counted and logged.
    """
    images = _images(root / IMAGES)
    if (root / INTRINSICS_FILE).exists():
        matrix, camera2_from_camera0 = read_intrinsics(root / INTRINSICS_FILE), np.eye(4)
        poses = _poses(root / "poses.txt")
    else:
        matrix, camera2_from_camera0 = _read_projection(root / CALIBRATION_FILE)
        poses = _poses(root.resolve().parents[1] / "poses" / f"{root.resolve().name}.txt")
    world_from_camera = poses @ invert(camera2_from_camera0)
    times = _times(root / "times.txt", max(images) + 1)
    height, width = read_color(next(iter(images.values()))).shape[:2]
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    sequence = root.resolve().name
    frames = [
        Frame(f"{sequence}/{path.stem}", sequence, path, None, world_from_camera[row], times[row])
        for row, path in images.items()
        if row < len(poses)
    ]
    skipped = len(images) - len(frames)
    log_skipped(root, skipped, len(images))
    camera = Camera(width, height, fx, fy, cx, cy)
    return SceneData(_name(root), root, camera, {"train": frames, "test": []}, skipped_poses=skipped)


def _images(folder: Path) -> dict[int, Path]:
    """Images by their numbers, which rise."""
    paths = [path for path in folder.iterdir() if path.suffix in (".png", ".jpg") and path.stem.isdecimal()]
    if not paths:
        raise DataError(f"{folder}: no image named like 000012.png or .jpg; restore the images")
    return {int(path.stem): path for path in sorted(paths, key=lambda path: int(path.stem))}


def _poses(path: Path) -> Array:
    """Poses (N, 4, 4) of a KITTI file."""
    if not path.exists():
        raise DataError(
            f"{path}: missing; KITTI publishes poses of the sequences 00 to 10 only, give the folder of one"
        )
    trajectory = read_trajectory(path)
    if trajectory.format != "KITTI":
        raise DataError(f"{path}: a {trajectory.format} trajectory, not a KITTI one; write 12 numbers a row")
    return trajectory.poses


def _read_projection(path: Path) -> tuple[Array, Array]:
    """Calibration matrix (3, 3) and camera2_from_camera0 (4, 4), a translation: P2 = K [I | t]."""
    rows = dict(line.split(":", 1) for line in read_lines(path) if ":" in line)
    try:
        projection = np.array(rows[PROJECTION].split(), float).reshape(3, 4)
        camera2_from_camera0 = np.eye(4)
        camera2_from_camera0[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
    except (KeyError, ValueError):  # which includes a singular matrix
        raise DataError(f"{path}: has no row '{PROJECTION}: ' with 12 numbers; restore the file") from None
    return projection[:, :3], camera2_from_camera0


def _times(path: Path, count: int) -> list[float]:
    """Seconds from the start of the sequence of its first `count` images."""
    if not path.exists():
        return [row / RATE for row in range(count)]
    rows = read_lines(path)
    times = read_matrix(path, (len(rows), 1))[:, 0]
    if len(times) < count or not np.isfinite(times).all():
        raise DataError(
            f"{path}: must hold the seconds of {count} images, a number a line; restore it or remove it, "
            f"then images count as taken {RATE:g} a second"
        )
    return (times - times[0]).tolist()


def _name(root: Path) -> str:
    """Sequences are numbered: a bare number says nothing among other scenes."""
    name = folder_name(root)
    return scene_name("kitti", name) if name.isdecimal() else name


def _sign(root: Path) -> str | None:
    if not (root / IMAGES).is_dir():
        return None
    known = (file for file in (INTRINSICS_FILE, CALIBRATION_FILE) if (root / file).exists())
    return next((f"it has {IMAGES}/ and a {file}" for file in known), None)


def _load(root: Path, register_depth: bool) -> SceneData:
    return load_kitti(root)


LAYOUT = Layout("KITTI odometry", _sign, _load, _name)
