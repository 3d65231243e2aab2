"""A drive of a small robot, made of messages: what it records, and bags of that."""

from collections.abc import Callable
from typing import Any

import numpy as np
from recording_helpers import ROS2, SECOND, Ros, Stamped

from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_core.livl.options import Options
from ofvl_core.livl.selection import Spacing
from ofvl_core.realsense import BODY_FROM_OPTICAL

START = 1_760_000_000 * SECOND
LATE = 5_000_000
"""Nanoseconds from a stamp to the recorder."""

FRAMES = 40
WIDTH, HEIGHT = 64, 48
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("ring", "<u2"), ("time", "<f4")])
CAMERA_ON_ROBOT = transform_from_rotation_vector((0, 0.05, 0), (0.1, 0.02, 0.8)) @ BODY_FROM_OPTICAL
LIDAR_ON_ROBOT = transform_from_rotation_vector((0, 0, 0.1), (-0.05, 0, 1.1))
TREE = [("base_link", "color", CAMERA_ON_ROBOT), ("base_link", "velodyne", LIDAR_ON_ROBOT)]
EVERYTHING = Spacing(0.0, 0.0)
TOPIC = Options(poses="topic", compare="none", time_offset=0.0, spacing=EVERYTHING)


def pose(at: int) -> np.ndarray:
    """Where A-LOAM saw the LiDAR at a frame."""
    return transform_from_rotation_vector((0, 0, 0.02 * at), (0.05 * at, 0, 0))


def cloud(at: int) -> np.ndarray:
    """The walls of a room of 6 x 4 m, as a LiDAR sees them that went along `pose`."""
    random = np.random.default_rng(0)
    along, height = random.uniform(-1, 1, (2, 4, 150))
    walls = np.concatenate(
        [np.stack([np.full(150, x), 2 * along[i], 0.5 * height[i]], 1) for i, x in enumerate((-3, 3))]
        + [np.stack([3 * along[i], np.full(150, y), 0.5 * height[i]], 1) for i, y in ((2, -2), (3, 2))]
    )
    seen = (walls - pose(at)[:3, 3]) @ pose(at)[:3, :3]
    points = np.zeros(len(seen), POINT)
    points["x"], points["y"], points["z"] = seen.T
    points["time"] = np.linspace(-0.03, 0, len(seen))
    return points


def recorded(ros: Ros, tree: list[tuple[str, str, np.ndarray]] = TREE) -> list[Stamped]:
    """A drive of 40 frames at 30 Hz, a pose and a cloud with each."""
    random = np.random.default_rng(1)
    events: list[Stamped] = [("/tf_static", START, ros.tf(START, *tree))]
    for at in range(FRAMES):
        stamp = START + at * SECOND // 30
        color = random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
        info = ros.camera_info(stamp, WIDTH, HEIGHT)
        events += [
            ("/camera/color/image_raw", stamp + LATE, ros.image(stamp, color)),
            ("/camera/color/camera_info", stamp + LATE, info),
            ("/camera/aligned_depth_to_color/image_raw", stamp + LATE, ros.image(stamp, depth, "16UC1")),
            ("/camera/aligned_depth_to_color/camera_info", stamp + LATE, info),
            ("/velodyne_points", stamp + LATE, ros.cloud(stamp, cloud(at))),
            ("/aft_mapped_to_init", stamp + LATE, ros.odometry(stamp, pose(at))),
        ]
    return events


def changed(events: list[Stamped], topic: str, change: Callable[[int, Any], Any]) -> list[Stamped]:
    """The messages of a topic replaced by `change` of their number and them; None leaves one out."""
    result, number = [], 0
    for name, stamp, message in events:
        if name == topic:
            message, number = change(number, message), number + 1
        if message is not None:
            result.append((name, stamp, message))
    return result


def marked(events: list[Stamped], *marks: tuple[int, str]) -> list[Stamped]:
    """The events with a mark just before a frame each."""
    said = [
        ("/ofvl/mark", START + LATE + at * SECOND // 30 - 1000, ROS2.make("std_msgs/msg/String", data=split))
        for at, split in marks
    ]
    return sorted([*events, *said], key=lambda event: event[1])
