"""The localizer node under test, a camera for it, and images that it can localize."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import (
    NANOSECONDS,
    camera_info_message,
    collect,
    image_message,
    spinning,
    time_message,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster

from ofvl_core.camera import Camera
from ofvl_core.datasets import load_scene
from ofvl_core.geometry import Array
from ofvl_core.localizer import Localizer
from ofvl_ros.localizer_node import LATCHED, LocalizerNode

OPTICAL = "camera_color_optical_frame"
PERIOD = NANOSECONDS // 20
"""Between the stamps of two images that a test publishes."""

EASY = {"start_fixes": 1, "max_image_age": 1e12, "max_position_deviation": 1e3, "max_rotation_deviation": 1e3}
"""Parameters with which one image of any time is enough: the tiny model's uncertainties mean little."""


class View:
    """An image that the tiny model can localize, and where it then says that it was taken."""

    def __init__(self, localizer: Localizer, scene_root: Path) -> None:
        self.localizer, self.scene_data = localizer, load_scene(scene_root)
        scene = self.scene_data
        self.scene, self.camera = scene.name, scene.camera
        for frame in [*scene.splits["test"], *scene.splits["train"]]:
            self.frame, self.pixels = frame, scene.read_color(frame)
            localization = localizer.localize(self.pixels, self.camera, self.scene)
            if localization.world_from_camera is not None and localization.inlier_share > 0.3:
                self.map_from_camera: Array = localization.world_from_camera
                return
        pytest.fail(f"the tiny model localizes no image of {scene_root}")

    def message(self, stamp: int = NANOSECONDS, **changes: Any) -> Image:
        return image_message(changes.pop("pixels", self.pixels), stamp=stamp, frame=OPTICAL, **changes)


class FakeCamera:
    """Publishes a camera's topics and hears all that the node under test says."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.images = node.create_publisher(Image, "image", 10)
        self.infos = node.create_publisher(CameraInfo, "camera_info", 10)
        self.static = StaticTransformBroadcaster(node)
        self.poses: list[PoseStamped] = collect(node, PoseStamped, "pose")
        self.measured: list[PoseWithCovarianceStamped] = collect(
            node, PoseWithCovarianceStamped, "pose_with_covariance"
        )
        self.transforms: list[TFMessage] = collect(node, TFMessage, "/tf")
        self.statuses: list[DiagnosticStatus] = collect(
            node, DiagnosticStatus, "localization_status", LATCHED
        )
        self.scenes: list[String] = collect(node, String, "scenes", LATCHED)
        latched = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._log: list[Log] = collect(node, Log, "/rosout", latched)

    @property
    def log(self) -> str:
        return "\n".join(entry.msg for entry in self._log)

    @property
    def states(self) -> list[str]:
        """The states that localization_status has told so far."""
        return [status.values[0].value for status in self.statuses]

    @property
    def reasons(self) -> str:
        """The reasons that localization_status has given so far."""
        return "\n".join(status.message for status in self.statuses)

    @property
    def images_seen(self) -> int:
        """How many images the network has looked at, by what localization_status says."""
        blind = {"no camera_info", "bad image", "stale image", "inactive", "no images"}
        return sum(state not in blind for state in self.states) - 1  # one from before the first image

    def publish_until(self, condition: Callable[[], Any], image: Image, camera: Camera | None) -> bool:
        """Whether the condition comes true while the image is published, its stamp growing from time to
        time, with the camera's info if given."""
        nanoseconds = image.header.stamp.sec * NANOSECONDS + image.header.stamp.nanosec

        def publish_and_check() -> bool:
            nonlocal nanoseconds
            if camera is not None:
                self.infos.publish(camera_info_message(camera))
            image.header.stamp = time_message(nanoseconds)
            self.images.publish(image)
            nanoseconds += PERIOD
            return wait_until(condition, 0.1)

        return wait_until(publish_and_check)

    def localize(self, view: View, stamp: int = NANOSECONDS) -> bool:
        """Whether the view's image gives a pose."""
        before = len(self.poses)
        return self.publish_until(lambda: len(self.poses) > before, view.message(stamp), view.camera)

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        """Whether the node took the value, and its reason if not."""
        client = self.node.create_client(SetParameters, "localizer/set_parameters")
        assert client.wait_for_service(10.0)
        parameter = Parameter(name, value=value).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        assert wait_until(future.done)
        (result,) = future.result().results
        return result.successful, result.reason

    def call(self, service: str) -> tuple[bool, dict[str, Any]]:
        """Success and answer of one of the node's Trigger services."""
        client = self.node.create_client(Trigger, f"localizer/{service}")
        assert client.wait_for_service(10.0)
        future = client.call_async(Trigger.Request())
        assert wait_until(future.done)
        return future.result().success, json.loads(future.result().message)


@contextmanager
def running(
    checkpoint: Path, /, start: bool = True, namespace: str = "", **parameters: Any
) -> Iterator[FakeCamera]:
    """The node under test, started if asked for, and a camera for it, in a context of their own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {"checkpoint": str(checkpoint), "device": "cpu", "base_frame": "", "scene": "room_1"}
    overrides = [Parameter(name, value=value) for name, value in (values | EASY | parameters).items()]
    try:
        node = LocalizerNode(context=context, parameter_overrides=overrides, namespace=namespace)
        other = Node("camera", context=context, namespace=namespace)
        camera = FakeCamera(other)
        with spinning(node, other):
            if start:
                assert node.start()
            yield camera
        node.destroy_node()
        other.destroy_node()
    finally:
        context.try_shutdown()
