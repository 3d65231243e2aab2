"""Messages of ROS 1 and ROS 2, and bags of them, without ROS."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ofvl_core.bag import BAG_VERSION, STORAGES
from ofvl_core.geometry import quaternion_xyzw

SECOND = 1_000_000_000

Stamped = tuple[str, int, Any]
"""Topic, nanoseconds of receipt, message."""


class Ros:
    """Makes messages of one ROS."""

    def __init__(self, store: Typestore, is_ros1: bool) -> None:
        self.store, self.is_ros1 = store, is_ros1

    def make(self, message_type: str, **fields: Any) -> Any:
        return self.store.types[message_type](**fields)

    def header(self, stamp: int, frame: str) -> Any:
        time = self.make("builtin_interfaces/msg/Time", sec=stamp // SECOND, nanosec=stamp % SECOND)
        number = {"seq": 0} if self.is_ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=time, frame_id=frame, **number)

    def image(self, stamp: int, pixels: np.ndarray, encoding: str = "rgb8", frame: str = "color") -> Any:
        return self.make(
            "sensor_msgs/msg/Image",
            header=self.header(stamp, frame),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.nbytes // pixels.shape[0],
            data=np.ascontiguousarray(pixels).view(np.uint8).ravel(),
        )

    def compressed(self, stamp: int, data: bytes, described: str, frame: str = "color") -> Any:
        return self.make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(stamp, frame),
            format=described,
            data=np.frombuffer(data, np.uint8),
        )

    def camera_info(self, stamp: int, width: int = 8, height: int = 6, frame: str = "color") -> Any:
        numbers = {
            "d": np.array([0.1, -0.2, 0.001, 0.002, 0.05]),
            "k": np.array([100.0, 0, 4, 0, 101, 3, 0, 0, 1]),
            "r": np.eye(3).ravel(),
            "p": np.zeros(12),
        }
        return self.make(
            "sensor_msgs/msg/CameraInfo",
            header=self.header(stamp, frame),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            binning_x=0,
            binning_y=0,
            roi=self.make(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=0,
                y_offset=0,
                height=0,
                width=0,
                do_rectify=False,
            ),
            **{name.upper() if self.is_ros1 else name: values for name, values in numbers.items()},
        )

    def cloud(self, stamp: int, points: np.ndarray, frame: str = "velodyne", row_padding: int = 0) -> Any:
        """A PointCloud2 of a structured array (H, W) or (W,)."""
        kinds = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
        points = np.atleast_2d(points)
        assert points.dtype.fields is not None
        fields = [
            self.make(
                "sensor_msgs/msg/PointField", name=name, offset=offset, datatype=kinds[kind.str[1:]], count=1
            )
            for name, (kind, offset, *_) in points.dtype.fields.items()
        ]
        rows = np.frombuffer(points.tobytes(), np.uint8).reshape(points.shape[0], -1)
        rows = np.pad(rows, ((0, 0), (0, row_padding)), constant_values=222)
        return self.make(
            "sensor_msgs/msg/PointCloud2",
            header=self.header(stamp, frame),
            height=points.shape[0],
            width=points.shape[1],
            fields=fields,
            is_bigendian=any(kind.byteorder == ">" for kind, *_ in points.dtype.fields.values()),
            point_step=points.dtype.itemsize,
            row_step=rows.shape[1],
            data=rows.ravel(),
            is_dense=False,
        )

    def vector(self, kind: str, numbers: Iterable[float]) -> Any:
        values = dict(zip("xyzw", map(float, numbers), strict=False))
        return self.make(f"geometry_msgs/msg/{kind}", **values)

    def tf(self, stamp: int, *transforms: tuple[str, str, np.ndarray]) -> Any:
        """A TFMessage of (parent, child, parent_from_child)."""
        return self.make(
            "tf2_msgs/msg/TFMessage",
            transforms=[
                self.make(
                    "geometry_msgs/msg/TransformStamped",
                    header=self.header(stamp, parent),
                    child_frame_id=child,
                    transform=self.make(
                        "geometry_msgs/msg/Transform",
                        translation=self.vector("Vector3", matrix[:3, 3]),
                        rotation=self.vector("Quaternion", quaternion_xyzw(matrix)),
                    ),
                )
                for parent, child, matrix in transforms
            ],
        )

    def pose(self, matrix: np.ndarray) -> Any:
        return self.make(
            "geometry_msgs/msg/Pose",
            position=self.vector("Point", matrix[:3, 3]),
            orientation=self.vector("Quaternion", quaternion_xyzw(matrix)),
        )

    def odometry(self, stamp: int, matrix: np.ndarray) -> Any:
        twist = self.make(
            "geometry_msgs/msg/Twist",
            linear=self.vector("Vector3", (0, 0, 0)),
            angular=self.vector("Vector3", (0, 0, 0)),
        )
        return self.make(
            "nav_msgs/msg/Odometry",
            header=self.header(stamp, "/camera_init"),
            child_frame_id="/aft_mapped",
            pose=self.make(
                "geometry_msgs/msg/PoseWithCovariance", pose=self.pose(matrix), covariance=np.zeros(36)
            ),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )


ROS1 = Ros(get_typestore(Stores.ROS1_NOETIC), is_ros1=True)
ROS1.store.register(
    get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", "tf2_msgs/msg/TFMessage")
)  # which is not among those that rosbags brings along
ROS2 = Ros(get_typestore(Stores.ROS2_JAZZY), is_ros1=False)


def write_bag(path: Path, messages: Iterable[Stamped], storage: str = "mcap") -> Path:
    """A bag of `storage` 'mcap', 'sqlite3' or 'ros1'; a topic has the type of its first message."""
    ros1 = storage == "ros1"
    writer: Any = (
        Ros1Writer(path) if ros1 else Ros2Writer(path, version=BAG_VERSION, storage_plugin=STORAGES[storage])
    )
    store = (ROS1 if ros1 else ROS2).store
    with writer:
        connections: dict[str, Any] = {}
        for topic, stamp, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            data = store.serialize_ros1(message, kind) if ros1 else store.serialize_cdr(message, kind)
            writer.write(connections[topic], stamp, data)
    return path


def file_of(bag: Path) -> Path:
    """The only file with messages in the folder of a bag."""
    (file,) = (path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    return file
