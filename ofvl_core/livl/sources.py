"""Where a drive's trajectory comes from: computed from its scans, recorded with it, or in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ofvl_core.errors import ConfigError, DataError
from ofvl_core.lidar.aloam import aloam
from ofvl_core.lidar.kiss import kiss_icp
from ofvl_core.livl.drive import Drive
from ofvl_core.recording.clock import ordered
from ofvl_core.recording.messages import frame_from_body, frame_name
from ofvl_core.stamped_path import StampedPath
from ofvl_core.trajectory import read_tum

ALOAM_TOPIC = "/aft_mapped_to_init"
"""The topic on which A-LOAM publishes, as nav_msgs/Odometry."""

ALOAM_BODY = "aft_mapped"
"""What A-LOAM calls the LiDAR's frame there."""

COMPUTED = {"aloam": aloam, "kiss-icp": kiss_icp}
"""Sources that need nothing but scans."""

TF = "tf:"

SYNTAX = f"aloam, kiss-icp, topic ({ALOAM_TOPIC}), another topic's name, tf:PARENT,CHILD or a TUM file"


class Source(NamedTuple):
    """A trajectory `path`, frame_from_body, of the tf frame `body`."""

    path: StampedPath
    body: str


def is_computed(wanted: str) -> bool:
    """Whether the source is computed from scans. Raises ConfigError when it is none at all."""
    if wanted in COMPUTED:
        return True
    if wanted == "topic" or wanted.startswith(("/", TF)) or Path(wanted).exists():
        return False
    raise ConfigError(f"'{wanted}' is no source of poses; give {SYNTAX}")


def trajectory(
    drive: Drive, wanted: str, body: str | None, progress: Callable[[int], None] = lambda done: None
) -> Source:
    """The trajectory of a drive from one of the sources that `SYNTAX` lists.

    `body` names the frame that moves where neither messages nor a file say so. Raises DataError when the
    drive has no such source.
    """
    if wanted in COMPUTED:
        return Source(COMPUTED[wanted](drive.scans(), progress=progress), drive.lidar_frame)
    if wanted.startswith(TF):
        parent, _, child = wanted.removeprefix(TF).partition(",")
        return Source(drive.tree.path(parent, child), child)
    path = Path(wanted)
    if path.exists():  # before topics: an absolute path begins like one
        file = path / f"{drive.name}.txt" if path.is_dir() else path
        return _from_file(file, _named(drive, file, body or (drive.lidar_frame if drive.has_lidar else "")))
    return _from_topic(drive, ALOAM_TOPIC if wanted == "topic" else wanted, body)


def _from_file(path: Path, body: str) -> Source:
    seconds, poses = read_tum(path)
    order = np.argsort(seconds, kind="stable")
    stamps = np.round(seconds[order] * 1e9).astype(np.int64)
    rising = np.append(True, np.diff(stamps) > 0)
    return Source(StampedPath(stamps[rising], poses[order][rising]), body)


def _from_topic(drive: Drive, topic: str, body: str | None) -> Source:
    if topic not in drive.recording.topics:
        raise DataError(
            f"{drive.bag}: no topic {topic} with poses; it holds {drive.recording.contents()}: give --poses "
            "aloam, or the topic's name"
        )
    stamps, poses = [], []
    moving = ""
    for _, stamp, message in ordered(drive.recording.messages([topic])):
        moving = moving or frame_name(getattr(message, "child_frame_id", ""))
        if not (hasattr(message, "pose") or hasattr(message, "transform")):
            raise DataError(f"{drive.bag}: {topic} holds no poses; give a topic of Odometry or PoseStamped")
        stamps.append(stamp)
        poses.append(frame_from_body(message))
    if not stamps:
        raise DataError(f"{drive.bag}: no pose of {topic} can be read; give --poses aloam")
    if moving == ALOAM_BODY:
        moving = drive.lidar_frame if drive.topics.cloud else ""
    path = StampedPath(np.array(stamps, np.int64), np.array(poses))
    return Source(path, _named(drive, topic, moving or body))


def _named(drive: Drive, source: object, frame: str | None) -> str:
    """The frame, if there is one. Raises DataError."""
    if frame:
        return frame
    raise DataError(
        f"{drive.bag}: {source} does not say which frame its poses are of; name it with --body, as in "
        f"--body {drive.camera_frame}"
    )
