"""Simulated scenes as files: the 7-Scenes layout with its optional tables, as docs/datasets.md has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.errors import DataError
from ofvl_core.files import write_json, write_text
from ofvl_core.geometry import quaternion_xyzw
from ofvl_core.simulation import robot

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
    write_text(sequence / "timestamps.txt", "".join(f"{i:06d} {time:.9f}\n" for i, time in enumerate(times)))


def write_odometry(sequence: Path, times: Array, states: Array) -> None:
    """odom_from_base as TUM rows, from states (N, 3) x, y, yaw."""
    rows = []
    for time, state in zip(times, states, strict=True):
        pose = robot.planar_pose(state)
        numbers = " ".join(f"{number:.9f}" for number in (*pose[:3, 3], *quaternion_xyzw(pose)))
        rows.append(f"{time:.9f} {numbers}\n")
    write_text(sequence / "odometry.txt", "".join(rows))


def write_scene(scene: Path, camera: Camera, train: int, test: int) -> None:
    """Intrinsics, splits (the first `train` sequences, then `test` more) and the robot's frames."""
    matrix = "".join("\t".join(f"{number:.6f}" for number in row) + "\n" for row in camera.matrix)
    write_text(scene / "camera-intrinsics.txt", matrix)
    write_text(scene / "TrainSplit.txt", "".join(f"sequence{i}\n" for i in range(1, train + 1)))
    write_text(scene / "TestSplit.txt", "".join(f"sequence{i}\n" for i in range(train + 1, train + test + 1)))
    write_json(
        scene / "robot.json",
        {
            "odom_frame": robot.ODOM_FRAME,
            "base_frame": robot.BASE_FRAME,
            "camera_frame": robot.CAMERA_FRAME,
            "optical_frame": robot.OPTICAL_FRAME,
            "static_transforms": [
                {
                    "parent": mount.parent,
                    "child": mount.child,
                    "translation": mount.parent_from_child[:3, 3].tolist(),
                    "rotation_xyzw": quaternion_xyzw(mount.parent_from_child).tolist(),
                }
                for mount in robot.MOUNTS
            ],
        },
    )


def _write_png(path: Path, image: NDArray[np.integer[Any]]) -> None:
    if not cv2.imwrite(str(path), image):
        raise DataError(f"{path} could not be written: check free space and permissions of the folder")
