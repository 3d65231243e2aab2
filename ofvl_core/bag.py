"""A data set as a ROS 2 bag, as if a RealSense camera had recorded it."""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ofvl_core import realsense
from ofvl_core.bag_messages import (
    BAG_VERSION,
    STORAGES,
    BagWriter,
    camera_info,
    image,
    nanoseconds,
    new_bag,
    transforms,
)
from ofvl_core.datasets import Frame, SceneData, load_scene
from ofvl_core.datasets.robot import ODOMETRY_FILE, Robot, load_robot
from ofvl_core.geometry import Array
from ofvl_core.trajectory import read_tum

__all__ = ["BAG_VERSION", "STORAGES", "bag_from_dataset", "frame_stamps"]

START = 1000.0
"""Seconds on the bag's clock at the first frame: well away from 0, which ROS takes for "no time yet"."""

GAP = 1.0
"""Seconds from a sequence's last frame to the next one's first."""

ODOMETRY_MARGIN = 0.2
"""Seconds of odometry kept around a sequence's frames, to interpolate at all of them; below GAP / 2."""


def bag_from_dataset(
    scene_root: Path,
    out: Path,
    *,
    split: str = "test",
    storage: str = "mcap",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write a split of a scene as the bag `out`, a folder, and return its number of messages.

    `frame_stamps` says when each frame comes. `progress` is called with the frames done and their total.
    The bag appears when it is complete or not at all. Raises DataError when the data set is not usable or
    `out` exists, ConfigError for a storage that is neither 'mcap' nor 'sqlite3'.
    """
    scene_root, out = Path(scene_root), Path(out)
    with new_bag(out, storage) as bag:
        scene, robot = load_scene(scene_root), load_robot(scene_root)
        frames = scene.frames(split)
        stamped = list(zip(frame_stamps(frames), frames, strict=True))
        recorder = _Recorder(bag, scene, robot)
        recorder.write_static_transforms(stamped[0][0] - nanoseconds(ODOMETRY_MARGIN))
        done = 0
        for sequence, group in groupby(stamped, lambda item: item[1].sequence):
            recording = list(group)
            events: list[tuple[int, Frame | Array]] = [*recording]
            if robot:
                events += _odometry(scene_root / sequence / ODOMETRY_FILE, recording)
            for stamp, event in sorted(events, key=lambda item: item[0]):
                if isinstance(event, Frame):
                    recorder.write_frame(stamp, event)
                    progress(done := done + 1, len(frames))
                else:
                    recorder.write_odometry(stamp, event)
        return bag.count


def frame_stamps(frames: list[Frame]) -> list[int]:
    """Nanoseconds on the bag's clock of each frame: sequences follow one another, so time only moves on."""
    stamps: list[int] = []
    start = START
    for _, sequence in groupby(frames, lambda frame: frame.sequence):
        seconds = [frame.timestamp for frame in sequence]
        offset = start - seconds[0]
        stamps += [nanoseconds(second + offset) for second in seconds]
        start = seconds[-1] + offset + GAP
    return stamps


def _odometry(path: Path, recording: list[tuple[int, Frame]]) -> Iterator[tuple[int, Array]]:
    """Stamped odom_from_base around the recording of one sequence; none where there is no such file."""
    if not path.exists():
        return
    seconds, poses = read_tum(path)
    (first_stamp, first), (last_stamp, _) = recording[0], recording[-1]
    margin = nanoseconds(ODOMETRY_MARGIN)
    for second, odom_from_base in zip(seconds, poses, strict=True):
        stamp = first_stamp + nanoseconds(second - first.timestamp)
        if first_stamp - margin <= stamp <= last_stamp + margin:
            yield stamp, odom_from_base


class _Recorder:
    """Writes frames and transforms as messages."""

    def __init__(self, bag: BagWriter, scene: SceneData, robot: Robot | None) -> None:
        self._bag = bag
        self._scene = scene
        self._robot = robot
        self._optical_frame = robot.optical_frame if robot else realsense.OPTICAL_FRAME

    def write_static_transforms(self, stamp: int) -> None:
        tree = self._robot.static_transforms if self._robot else realsense.STATIC_TRANSFORMS
        self._bag.write("/tf_static", stamp, transforms(stamp, tree))

    def write_odometry(self, stamp: int, odom_from_base: Array) -> None:
        assert self._robot is not None  # who has no robot has no odometry
        edge = (self._robot.odom_frame, self._robot.base_frame, odom_from_base)
        self._bag.write("/tf", stamp, transforms(stamp, [edge]))

    def write_frame(self, stamp: int, frame: Frame) -> None:
        color = self._scene.read_color(frame)
        self._write_image(realsense.COLOR_INFO, realsense.COLOR_IMAGE, stamp, color, "rgb8")
        if frame.depth is not None:
            depth = self._scene.read_depth(frame)
            self._write_image(realsense.DEPTH_INFO, realsense.DEPTH_IMAGE, stamp, depth, "16UC1")

    def _write_image(
        self, info_topic: str, image_topic: str, stamp: int, pixels: NDArray[Any], encoding: str
    ) -> None:
        height, width = pixels.shape[:2]
        camera = self._scene.camera.resized(width, height)
        self._bag.write(info_topic, stamp, camera_info(stamp, self._optical_frame, camera))
        self._bag.write(image_topic, stamp, image(stamp, self._optical_frame, pixels, encoding))
