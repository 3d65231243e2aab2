"""Core types as ROS 2 messages, and the bag that takes them."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import Array, quaternion_xyzw

BAG_VERSION: Final = 8
"""The newest rosbag2 format whose QoS profiles Humble can read; Jazzy reads it as well."""

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
"""How a bag's messages are stored: Jazzy's default, and Humble's."""

PLANAR_ODOMETRY = (1e-3, 1e-3, 1e6, 1e6, 1e6, 1e-2)
"""Variances that drivers of wheeled robots commonly report: x, y and yaw are known, the rest is not."""

_FIELD_TYPES = {"<f4": 7, "<u2": 4}  # of PointField

_types = get_typestore(Stores.ROS2_JAZZY)


class BagWriter:
    """Writes messages; topics come into being with their first message."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connections: dict[str, Connection] = {}

    @property
    def count(self) -> int:
        """Messages written so far."""
        return sum(self._writer.counts.values())

    def write(self, topic: str, stamp: int, content: Any) -> None:
        """Write a message as received at `stamp`, nanoseconds. What is on /tf_static is latched."""
        message_type = content.__msgtype__
        if topic not in self._connections:
            qos = _LATCHED if topic == "/tf_static" else _STREAM
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=_types, offered_qos_profiles=[qos]
            )
        self._writer.write(self._connections[topic], stamp, _types.serialize_cdr(content, message_type))


@contextmanager
def new_bag(out: Path, storage: str) -> Iterator[BagWriter]:
    """The bag `out`, a folder, which appears when the block ends without an error or not at all.

    Raises ConfigError for a storage that is none of STORAGES, DataError when `out` exists.
    """
    check_storage(storage)
    if out.exists():
        raise DataError(f"{out}: exists already; remove it or choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        unfinished = Path(folder) / out.name  # the file inside a bag carries the bag's name
        with Writer(unfinished, version=BAG_VERSION, storage_plugin=STORAGES[storage]) as writer:
            yield BagWriter(writer)
        unfinished.rename(out)


def check_storage(storage: str) -> None:
    """Raise ConfigError for a storage that is none of STORAGES."""
    if storage not in STORAGES:
        raise ConfigError(f"unknown storage '{storage}'; choose one of {', '.join(STORAGES)}")


def nanoseconds(seconds: float) -> int:
    """Seconds as a stamp."""
    return round(seconds * 1e9)


def message(message_type: str, **fields: Any) -> Any:
    """A message of a type such as "sensor_msgs/msg/Image"."""
    return _types.types[message_type](**fields)


def header(stamp: int, frame: str) -> Any:
    """std_msgs/Header of a stamp in nanoseconds."""
    seconds, rest = divmod(stamp, 1_000_000_000)
    time = message("builtin_interfaces/msg/Time", sec=seconds, nanosec=rest)
    return message("std_msgs/msg/Header", stamp=time, frame_id=frame)


def transforms(stamp: int, parent_child_matrices: Sequence[tuple[str, str, Array]]) -> Any:
    """tf2_msgs/TFMessage of (parent, child, parent_from_child)."""
    return message(
        "tf2_msgs/msg/TFMessage",
        transforms=[
            message(
                "geometry_msgs/msg/TransformStamped",
                header=header(stamp, parent),
                child_frame_id=child,
                transform=message(
                    "geometry_msgs/msg/Transform",
                    translation=vector(parent_from_child[:3, 3]),
                    rotation=quaternion(parent_from_child),
                ),
            )
            for parent, child, parent_from_child in parent_child_matrices
        ],
    )


def vector(components: Array) -> Any:
    """geometry_msgs/Vector3 of (3,)."""
    x, y, z = components.tolist()
    return message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def quaternion(transform: Array) -> Any:
    """geometry_msgs/Quaternion of a transform's rotation."""
    x, y, z, w = quaternion_xyzw(transform).tolist()
    return message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def image(stamp: int, frame: str, pixels: NDArray[Any], encoding: str) -> Any:
    """sensor_msgs/Image of pixels (height, width, ...)."""
    height, width = pixels.shape[:2]
    return message(
        "sensor_msgs/msg/Image",
        header=header(stamp, frame),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=np.ascontiguousarray(pixels).view(np.uint8).ravel(),
    )


def compressed_image(stamp: int, frame: str, data: bytes, form: str) -> Any:
    """sensor_msgs/CompressedImage of encoded data in the format that image_transport calls `form`."""
    return message(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp, frame),
        format=form,
        data=np.frombuffer(data, np.uint8),
    )


def point_cloud(stamp: int, frame: str, points: NDArray[np.void]) -> Any:
    """sensor_msgs/PointCloud2 of a structured array (N,), whose fields and offsets it takes over."""
    fields = [
        message(
            "sensor_msgs/msg/PointField", name=name, offset=offset, datatype=_FIELD_TYPES[kind.str], count=1
        )
        for name, (kind, offset, *_) in (points.dtype.fields or {}).items()
    ]
    return message(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp, frame),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=points.itemsize,
        row_step=points.nbytes,
        data=np.frombuffer(points.tobytes(), np.uint8),
        is_dense=True,
    )


def odometry(stamp: int, parent: str, child: str, parent_from_child: Array, speed: float, rate: float) -> Any:
    """nav_msgs/Odometry of a robot that drives ahead with `speed` (m/s) and turns with `rate` (rad/s)."""
    position = message(
        "geometry_msgs/msg/Point", **dict(zip("xyz", parent_from_child[:3, 3].tolist(), strict=True))
    )
    pose = message("geometry_msgs/msg/Pose", position=position, orientation=quaternion(parent_from_child))
    twist = message(
        "geometry_msgs/msg/Twist",
        linear=vector(np.array([speed, 0.0, 0.0])),
        angular=vector(np.array([0.0, 0.0, rate])),
    )
    covariance = np.diag(PLANAR_ODOMETRY).ravel()
    return message(
        "nav_msgs/msg/Odometry",
        header=header(stamp, parent),
        child_frame_id=child,
        pose=message("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=covariance),
        twist=message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=covariance),
    )


def camera_info(stamp: int, frame: str, camera: Camera) -> Any:
    """sensor_msgs/CameraInfo."""
    projection = np.hstack([camera.matrix, np.zeros((3, 1))])
    return message(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp, frame),
        height=camera.height,
        width=camera.width,
        distortion_model="rational_polynomial" if len(camera.distortion) == 8 else "plumb_bob",
        d=np.array(camera.distortion or (0.0,) * 5),
        k=camera.matrix.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=message(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


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
