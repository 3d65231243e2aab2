"""Nodes, processes and messages for tests over real DDS."""

import array
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from processes import Forked
from processes import wait_until as wait_until
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from ofvl_core.camera import Camera
from ofvl_ros import commands

ROOT = Path(__file__).parents[1]
NANOSECONDS = 1_000_000_000


@contextmanager
def spinning(*nodes: Node) -> Iterator[None]:
    """Spin the nodes in a thread."""
    executor = SingleThreadedExecutor(context=nodes[0].context)
    for node in nodes:
        executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()


@contextmanager
def ros_node(name: str = "test") -> Iterator[Node]:
    """A spinning node in a context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node(name, context=context)
    try:
        with spinning(node):
            yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


def collect(node: Node, message_class: type, topic: str, qos: QoSProfile | int = 100) -> list:
    """A list that grows by each message received on `topic`."""
    received: list[Any] = []
    node.create_subscription(message_class, topic, received.append, qos)
    return received


class NodeProcess(Forked):
    """A node of this project as a process of its own, with what it logged."""

    def __init__(self, executable: str, *remappings: str, **parameters: Any) -> None:
        arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        arguments += [word for remapping in remappings for word in ("-r", remapping)]
        super().__init__(
            getattr(commands, executable),
            "--ros-args",
            *arguments,
            FASTRTPS_DEFAULT_PROFILES_FILE=str(ROOT / "config" / "fastdds.xml"),
            RCUTILS_COLORIZED_OUTPUT="0",
        )

    def __enter__(self) -> "NodeProcess":
        return self

    @property
    def log(self) -> str:
        """What the process has written so far."""
        return self.output + self.errors

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal."""
        self.send_signal(number)


def time_message(nanoseconds: int) -> Time:
    """A stamp."""
    return Time(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def image_message(
    pixels: NDArray[np.uint8], encoding: str = "rgb8", stamp: int = 0, frame: str = "", padding: int = 0
) -> Image:
    """An Image of pixels (H, W) or (H, W, C), its rows padded with bytes that no decoder may show."""
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=222)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.data = array.array("B", rows.tobytes())
    message.header.stamp = time_message(stamp)
    message.header.frame_id = frame
    return message


def camera_info_message(camera: Camera) -> CameraInfo:
    """The CameraInfo of a camera without distortion."""
    info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = camera.matrix.ravel()
    return info
