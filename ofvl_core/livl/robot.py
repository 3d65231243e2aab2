"""The robot that recorded, and its odometry, beside the frames: for `ofvl bag from-dataset`."""

from collections.abc import Sequence
from pathlib import Path

from ofvl_core import realsense
from ofvl_core.datasets.robot import ODOMETRY_FILE, Robot
from ofvl_core.datasets.robot import write_robot as write_description
from ofvl_core.errors import DataError
from ofvl_core.livl.drive import Drive
from ofvl_core.livl.takes import Take
from ofvl_core.stamped_path import StampedPath
from ofvl_core.trajectory import write_tum

ODOM_FRAME = "odom"
"""REP-105."""


def write_robot(root: Path, takes: Sequence[Take]) -> None:
    """Write robot.json, and each sequence's odometry where tf has it.

    Writes nothing where the recorded tf does not lead from the camera to a robot that carries it.
    """
    drive = takes[0].part.drive
    chain = drive.tree.chain(drive.camera_frame)
    if not chain:
        return
    carried = [child for _, child, _ in chain]
    camera_frame = realsense.CAMERA_FRAME if realsense.CAMERA_FRAME in carried else carried[0]
    robot = Robot(ODOM_FRAME, chain[0][0], camera_frame, drive.camera_frame, chain)
    write_description(root, robot)
    for take in takes:
        path = _odometry(take.part.drive)
        if path is not None:
            late = take.start + round(take.part.time_offset * 1e9)  # frames are named by the camera's clock
            seconds = (path.stamps - late) * 1e-9
            write_tum(root / take.name / ODOMETRY_FILE, zip(seconds, path.poses, strict=True))


def _odometry(drive: Drive) -> StampedPath | None:
    try:
        return drive.tree.path(ODOM_FRAME, drive.base_frame)
    except DataError:  # a robot without odometry
        return None
