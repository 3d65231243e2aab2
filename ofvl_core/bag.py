"""A data set as a ROS 2 bag, as if a RealSense camera had recorded it."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ofvl_core import realsense
from ofvl_core.camera import Camera
from ofvl_core.datasets import Frame, SceneData, load_scene
from ofvl_core.datasets.robot import ODOMETRY_FILE, Robot, load_robot
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import Array, quaternion_xyzw
from ofvl_core.trajectory import read_tum

BAG_VERSION: Final = 8
"""The newest rosbag2 format whose QoS profiles Humble can read; Jazzy reads it as well."""

START = 1000.0
"""Seconds on the bag's clock at the first frame: well away from 0, which ROS takes for "no time yet"."""

GAP = 1.0
"""Seconds from a sequence's last frame to the next one's first."""

ODOMETRY_MARGIN = 0.2
"""Seconds of odometry kept around a sequence's frames, to interpolate at all of them; below GAP / 2."""

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
"""How a bag's messages are stored: Jazzy's default, and Humble's."""

_types = get_typestore(Stores.ROS2_JAZZY)


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
    if storage not in STORAGES:
        raise ConfigError(f"unknown storage '{storage}'; choose one of {', '.join(STORAGES)}")
    scene_root, out = Path(scene_root), Path(out)
    if out.exists():
        raise DataError(f"{out}: exists already; remove it or choose another name")
    scene, robot = load_scene(scene_root), load_robot(scene_root)
    frames = scene.frames(split)
    stamped = list(zip(frame_stamps(frames), frames, strict=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        unfinished = Path(folder) / out.name  # the file inside a bag carries the bag's name
        with Writer(unfinished, version=BAG_VERSION, storage_plugin=STORAGES[storage]) as writer:
            recorder = _Recorder(writer, scene, robot)
            recorder.write_static_transforms(stamped[0][0] - _nanoseconds(ODOMETRY_MARGIN))
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
        unfinished.rename(out)
    return sum(writer.counts.values())


def frame_stamps(frames: list[Frame]) -> list[int]:
    """Nanoseconds on the bag's clock of each frame: sequences follow one another, so time only moves on."""
    stamps: list[int] = []
    start = START
    for _, sequence in groupby(frames, lambda frame: frame.sequence):
        seconds = [frame.timestamp for frame in sequence]
        offset = start - seconds[0]
        stamps += [_nanoseconds(second + offset) for second in seconds]
        start = seconds[-1] + offset + GAP
    return stamps


def _odometry(path: Path, recording: list[tuple[int, Frame]]) -> Iterator[tuple[int, Array]]:
    """Stamped odom_from_base around the recording of one sequence; none where there is no such file."""
    if not path.exists():
        return
    seconds, poses = read_tum(path)
    (first_stamp, first), (last_stamp, _) = recording[0], recording[-1]
    margin = _nanoseconds(ODOMETRY_MARGIN)
    for second, odom_from_base in zip(seconds, poses, strict=True):
        stamp = first_stamp + _nanoseconds(second - first.timestamp)
        if first_stamp - margin <= stamp <= last_stamp + margin:
            yield stamp, odom_from_base


class _Recorder:
    """Writes frames and transforms as messages; topics come into being with their first message."""

    def __init__(self, writer: Writer, scene: SceneData, robot: Robot | None) -> None:
        self._writer = writer
        self._scene = scene
        self._robot = robot
        self._optical_frame = robot.optical_frame if robot else realsense.OPTICAL_FRAME
        self._connections: dict[str, Connection] = {}

    def write_static_transforms(self, stamp: int) -> None:
        transforms = self._robot.static_transforms if self._robot else realsense.STATIC_TRANSFORMS
        self._write_transforms("/tf_static", stamp, transforms, _LATCHED)

    def write_odometry(self, stamp: int, odom_from_base: Array) -> None:
        assert self._robot is not None  # who has no robot has no odometry
        transform = (self._robot.odom_frame, self._robot.base_frame, odom_from_base)
        self._write_transforms("/tf", stamp, [transform], _STREAM)

    def write_frame(self, stamp: int, frame: Frame) -> None:
        color = self._scene.read_color(frame)
        self._write_image(realsense.COLOR_INFO, realsense.COLOR_IMAGE, stamp, color, "rgb8")
        if frame.depth is not None:
            depth = self._scene.read_depth(frame)
            self._write_image(realsense.DEPTH_INFO, realsense.DEPTH_IMAGE, stamp, depth, "16UC1")

    def _write_image(
        self, info_topic: str, image_topic: str, stamp: int, pixels: NDArray[Any], encoding: str
    ) -> None:
        header = _header(stamp, self._optical_frame)
        height, width = pixels.shape[:2]
        camera = self._scene.camera.resized(width, height)
        self._write(info_topic, stamp, _camera_info(header, camera), _STREAM)
        image = _message(
            "sensor_msgs/msg/Image",
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels.nbytes // height,
            data=np.ascontiguousarray(pixels).view(np.uint8).ravel(),
        )
        self._write(image_topic, stamp, image, _STREAM)

    def _write_transforms(
        self, topic: str, stamp: int, transforms: list[tuple[str, str, Array]], qos: Qos
    ) -> None:
        messages = [
            _message(
                "geometry_msgs/msg/TransformStamped",
                header=_header(stamp, parent),
                child_frame_id=child,
                transform=_transform(parent_from_child),
            )
            for parent, child, parent_from_child in transforms
        ]
        self._write(topic, stamp, _message("tf2_msgs/msg/TFMessage", transforms=messages), qos)

    def _write(self, topic: str, stamp: int, message: Any, qos: Qos) -> None:
        message_type = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=_types, offered_qos_profiles=[qos]
            )
        self._writer.write(self._connections[topic], stamp, _types.serialize_cdr(message, message_type))


def _qos(depth: int, durability: QosDurability) -> Qos:
    for_ever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        durability,
        for_ever,
        for_ever,
        QosLiveliness.AUTOMATIC,
        for_ever,
        False,
    )


_STREAM = _qos(10, QosDurability.VOLATILE)
_LATCHED = _qos(1, QosDurability.TRANSIENT_LOCAL)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _message(message_type: str, **fields: Any) -> Any:
    return _types.types[message_type](**fields)


def _header(stamp: int, frame: str) -> Any:
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    time = _message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return _message("std_msgs/msg/Header", stamp=time, frame_id=frame)


def _transform(parent_from_child: Array) -> Any:
    x, y, z = parent_from_child[:3, 3].tolist()
    qx, qy, qz, qw = quaternion_xyzw(parent_from_child).tolist()
    return _message(
        "geometry_msgs/msg/Transform",
        translation=_message("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
        rotation=_message("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )


def _camera_info(header: Any, camera: Camera) -> Any:
    projection = np.hstack([camera.matrix, np.zeros((3, 1))])
    return _message(
        "sensor_msgs/msg/CameraInfo",
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="rational_polynomial" if len(camera.distortion) == 8 else "plumb_bob",
        d=np.array(camera.distortion or (0.0,) * 5),
        k=camera.matrix.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=_message(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )
