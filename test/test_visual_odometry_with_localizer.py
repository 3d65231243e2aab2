"""Visual odometry and the localizer together, over real DDS: tf and the scale's fixes."""

from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from localizer_helpers import OPTICAL, FakeCamera, View
from localizer_helpers import running as running_localizer
from rclpy.parameter import Parameter
from ros_helpers import collect, spinning, time_message
from test_visual_odometry_node import BASE_FROM_OPTICAL, START, checkpoint  # noqa: F401 a fixture

from ofvl_core.localizer import Localizer
from ofvl_ros.messages import matrix, transform_stamped
from ofvl_ros.visual_odometry_node import VisualOdometryNode

JOINED = {("map", "odom"), ("odom", "base_link")}
"""Parent and child of what the two nodes put into tf."""


def parents(camera: FakeCamera) -> set[tuple[str, str]]:
    return {
        (one.header.frame_id, one.child_frame_id)
        for message in camera.transforms
        for one in message.transforms
    }


def test_the_localizer_hangs_the_map_above_it_and_its_poses_come_back(
    checkpoint: Path,  # noqa: F811
    tiny_checkpoint: Path,
    tiny_scenes: list[Path],
) -> None:
    view = View(Localizer(tiny_checkpoint, "cpu"), tiny_scenes[0])
    context = rclpy.Context()
    rclpy.init(context=context)
    at_rest = {"rest_distance": 50.0, "rest_angle": 3.0}
    parameters = {"checkpoint": str(checkpoint), "device": "cpu"} | at_rest
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    remapped = ["--ros-args", "-r", "fix:=pose_with_covariance"]
    try:
        node = VisualOdometryNode(context=context, parameter_overrides=overrides, cli_args=remapped)
        with (
            spinning(node),
            running_localizer(
                tiny_checkpoint, base_frame="base_link", tf_mode="map_to_odom", transform_timeout=1.0
            ) as camera,
        ):
            mounted = transform_stamped(BASE_FROM_OPTICAL, "base_link", OPTICAL, time_message(0))
            camera.static.sendTransform(mounted)
            diagnostics: list[DiagnosticArray] = collect(camera.node, DiagnosticArray, "/diagnostics")

            def facts() -> dict[str, str]:
                values = [one.values for message in diagnostics for one in message.status]
                return {pair.key: pair.value for pairs in values for pair in pairs}

            def is_joined() -> bool:
                return int(facts().get("fixes", "0")) > 0 and parents(camera) >= JOINED

            assert camera.publish_until(is_joined, view.message(START), view.camera), camera.log
        node.destroy_node()
    finally:
        context.try_shutdown()
    assert parents(camera) == JOINED
    sent = [one for message in camera.transforms for one in message.transforms]
    map_from_odom, odom_from_base = (
        [matrix(one.transform) for one in sent if one.child_frame_id == child][-1]
        for child in ("odom", "base_link")
    )
    map_from_camera = map_from_odom @ odom_from_base @ BASE_FROM_OPTICAL
    np.testing.assert_allclose(map_from_camera, view.map_from_camera, atol=0.05)
