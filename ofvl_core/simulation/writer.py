"""Simulated scenes as files: the 7-Scenes layout with its optional tables, as docs/datasets.md has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets.robot import ODOMETRY_FILE, write_robot
from ofvl_core.datasets.seven_scenes import INTRINSICS_FILE, SPLIT_FILES, TIMESTAMPS_FILE
from ofvl_core.errors import DataError
from ofvl_core.files import write_text
from ofvl_core.simulation import robot
from ofvl_core.trajectory import write_tum

Array = NDArray[np.float64]


def sequence_folder(scene: Path, number: int) -> Path:
    """The folder of a sequence; numbers begin at 1."""
    return scene / f"seq-{number:02d}"


def write_frame(
    sequence: Path,
    number: int,
    colour: NDArray[np.uint8],
    depth: NDArray[np.uint16],
    world_from_camera: Array,
) -> None:
    """RGB image, depth in millimetres and pose of one frame."""
    stem = f"frame-{number:06d}"
    _write_png(sequence / f"{stem}.color.png", colour[..., ::-1])
    _write_png(sequence / f"{stem}.depth.png", depth)
    np.savetxt(sequence / f"{stem}.pose.txt", world_from_camera, fmt="%.10f", delimiter="\t")


def write_timestamps(sequence: Path, times: Sequence[float]) -> None:
    """Frame times, seconds."""
    write_text(sequence / TIMESTAMPS_FILE, "".join(f"{i:06d} {time:.9f}\n" for i, time in enumerate(times)))


def write_odometry(sequence: Path, times: Array, states: Array) -> None:
    """odom_from_base as TUM rows, from states (N, 3) x, y, yaw."""
    write_tum(sequence / ODOMETRY_FILE, zip(times, map(robot.planar_pose, states), strict=True))


def write_scene(scene: Path, camera: Camera, train: int, test: int) -> None:
    """Intrinsics, splits (the first `train` sequences, then `test` more) and the robot's frames."""
    matrix = "".join("\t".join(f"{number:.6f}" for number in row) + "\n" for row in camera.matrix)
    write_text(scene / INTRINSICS_FILE, matrix)
    numbers = {"train": range(1, train + 1), "test": range(train + 1, train + test + 1)}
    for split, file in SPLIT_FILES.items():
        write_text(scene / file, "".join(f"sequence{number}\n" for number in numbers[split]))
    write_robot(scene, robot.ROBOT)


def _write_png(path: Path, image: NDArray[np.integer[Any]]) -> None:
    if not cv2.imwrite(str(path), image):
        raise DataError(f"{path} could not be written: check free space and permissions of the folder")
