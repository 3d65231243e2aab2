"""A D435 and a VLP-16 that cost next to nothing: the part of recording.py that runs as a process of its own.

Publishes messages that were serialised beforehand, with the stamp of the moment written into their bytes.
Begins when each topic has a subscriber. At the end of the time or of its input, whichever comes first, it
writes all stamps, and each topic's message but for the stamp.
"""

import argparse
import array
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2, PointField
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster

POINTS = 29_000
"""What a VLP-16 returns in a tenth of a second."""

TICK = 1 / 200
"""Seconds between two messages of the fastest sensor."""


class Sensor(NamedTuple):
    """A topic: its messages' type, a message, their rate in Hz, QoS, and where in the bytes the stamp is."""

    type: type
    message: Any
    rate: float
    reliability: ReliabilityPolicy
    stamp_at: int = 4


def sensors() -> dict[str, Sensor]:
    """The robot's topics, with the QoS that its drivers offer."""
    random = np.random.default_rng(0)
    reliable, best_effort = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
    color = Image(height=480, width=640, encoding="rgb8", step=3 * 640)
    color.data = array.array("B", random.bytes(480 * color.step))
    depth = Image(height=480, width=640, encoding="16UC1", step=2 * 640)
    depth.data = array.array("B", random.bytes(480 * depth.step))
    cloud = PointCloud2(height=1, width=POINTS, point_step=22, row_step=22 * POINTS, is_dense=True)
    cloud.fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in (
            ("x", 0, PointField.FLOAT32),
            ("y", 4, PointField.FLOAT32),
            ("z", 8, PointField.FLOAT32),
            ("intensity", 12, PointField.FLOAT32),
            ("ring", 16, PointField.UINT16),
            ("time", 18, PointField.FLOAT32),
        )
    ]
    cloud.data = array.array("B", random.bytes(cloud.row_step))
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
    moving = TransformStamped(child_frame_id="base_link")
    for message, frame in (
        (color, "camera_color_optical_frame"),
        (depth, "camera_color_optical_frame"),
        (info, "camera_color_optical_frame"),
        (cloud, "velodyne"),
        (moving, "odom"),
    ):
        message.header.frame_id = frame
    return {
        "image": Sensor(Image, color, 30, reliable),
        "camera_info": Sensor(CameraInfo, info, 30, reliable),
        "depth": Sensor(Image, depth, 30, reliable),
        "depth_camera_info": Sensor(CameraInfo, info, 30, reliable),
        "velodyne_points": Sensor(PointCloud2, cloud, 10, best_effort),
        "imu": Sensor(Imu, Imu(), 200, best_effort),
        "tf": Sensor(TFMessage, TFMessage(transforms=[moving]), 50, reliable, stamp_at=8),
    }


class Stream:
    """A sensor's publisher; `stamps` are those of all it has published."""

    def __init__(self, node: Node, topic: str, sensor: Sensor) -> None:
        self.stamps: list[int] = []
        self.rate = sensor.rate
        self._stamp_at = sensor.stamp_at
        self._bytes = bytearray(serialize_message(sensor.message))  # what pads it differs every time
        qos = QoSProfile(depth=10, reliability=sensor.reliability)
        self._publisher = node.create_publisher(sensor.type, f"/{topic}", qos)

    @property
    def message(self) -> bytes:
        """What is published, with some stamp."""
        return bytes(self._bytes)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self) -> None:
        """Publish the next message."""
        stamp = time.time_ns()
        struct.pack_into("<iI", self._bytes, self._stamp_at, *divmod(stamp, 1_000_000_000))
        self.stamps.append(stamp)
        self._publisher.publish(bytes(self._bytes))

    def wait(self) -> None:
        """Until all has arrived where reliable delivery was asked for."""
        self._publisher.wait_for_all_acked(Duration(seconds=2))


def publish(streams: list[Stream], seconds: float, ended: threading.Event) -> None:
    """Publish each stream at its rate."""
    began = time.monotonic()
    for tick in range(round(seconds / TICK)):
        if ended.wait(max(0.0, began + tick * TICK - time.monotonic())):
            return
        for stream in streams:
            if int((tick + 1) * TICK * stream.rate + 1e-9) > int(tick * TICK * stream.rate + 1e-9):
                stream.publish()


def main() -> None:
    """Wait to be heard, publish, write the stamps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("published", type=Path, help="file of what was published, .npz")
    chosen = parser.parse_args()
    rclpy.init(args=[])
    node = Node("sensors")
    static = StaticTransformBroadcaster(node)
    static.sendTransform(TransformStamped(child_frame_id="velodyne"))
    streams = {topic: Stream(node, topic, sensor) for topic, sensor in sensors().items()}
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    while not all(stream.is_heard for stream in streams.values()) and not ended.wait(0.05):
        pass
    print("heard", flush=True)
    publish(list(streams.values()), chosen.seconds, ended)
    for stream in streams.values():
        stream.wait()
    stamps = {topic: np.array(stream.stamps) for topic, stream in streams.items()}
    messages = {f"{topic} message": np.frombuffer(one.message, np.uint8) for topic, one in streams.items()}
    np.savez(chosen.published, **stamps, **messages)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
