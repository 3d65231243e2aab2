"""The visual odometry node over real DDS, with a small untrained model: its motions are as good as any."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rcl_interfaces.msg import Log
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from ros_helpers import (
    NANOSECONDS,
    NodeProcess,
    camera_info_message,
    collect,
    image_message,
    spinning,
    time_message,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from ofvl_core.camera import Camera
from ofvl_core.checkpoint_folder import save_folder
from ofvl_core.collaborative.checkpoint import (
    Accuracy,
    Manifest,
    SceneRecord,
    TrainingRecord,
    make_model,
)
from ofvl_core.collaborative.config import CollaborativeConfig
from ofvl_core.collaborative.estimator import Estimator
from ofvl_core.collaborative.odometry import OdometryOptions, Reading, VisualOdometry
from ofvl_core.collaborative.scale import ScaleEstimator
from ofvl_core.errors import OfvlError
from ofvl_core.geometry import Array, invert, transform
from ofvl_core.recording.images import depth_array
from ofvl_core.recording.messages import camera_from_info, stamp_ns
from ofvl_ros import frames, visual_odometry_node
from ofvl_ros.messages import matrix, pose_matrix, pose_with_covariance_stamped, transform_stamped
from ofvl_ros.visual_odometry_node import VisualOdometryNode

OPTICAL = "camera_color_optical_frame"
BASE_FROM_OPTICAL = transform((0.1, 0.02, 0.6), (-0.5, 0.5, -0.5, 0.5))
CAMERA = Camera(128, 96, 90.0, 90.0, 63.5, 47.5)
PERIOD = NANOSECONDS // 10
START = 1_000 * NANOSECONDS
ACCURACY = Accuracy(
    metres_per_unit=1.0,
    scale_deviation=0.4,
    rotation_deviation=0.01,
    position_deviation=0.2,
    orientation_deviation=0.05,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one scene, in whose metres the camera moves by half a metre between images."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    config = CollaborativeConfig()
    scene = SceneRecord(
        name="hall", camera=CAMERA, input_focal=60.0, frames=2, interval=0.1, accuracy=ACCURACY
    )
    manifest = Manifest(
        architecture=config.network, scenes=[scene], training=TrainingRecord(config=config, finished=True)
    )
    torch.manual_seed(0)
    save_folder(folder, manifest, make_model(manifest).state_dict())
    estimator = Estimator(folder, "cpu")
    lengths = [np.linalg.norm(motion[:3, 3]) for motion in motions(estimator, 6)]
    scene.accuracy = ACCURACY.model_copy(update={"metres_per_unit": 0.5 / float(np.median(lengths))})
    save_folder(folder, manifest, estimator.model.state_dict())
    return folder


def picture(number: int) -> NDArray[np.uint8]:
    """An image like no other."""
    return np.random.default_rng(number).integers(0, 255, (CAMERA.height, CAMERA.width, 3), np.uint8)


def motions(estimator: Estimator, count: int) -> list[Array]:
    found = [estimator.estimate(picture(number), CAMERA, "hall") for number in range(count)]
    return [one.previous_from_current for one in found if one.previous_from_current is not None]


def expected(checkpoint: Path, count: int) -> list[Reading]:
    """What the node should say of that many images, each of which moves the camera."""
    scale = ScaleEstimator(0.4, 20.0)
    odometry = VisualOdometry(OdometryOptions(0.4, 0.01, max_gap=0.4), scale)
    estimator = Estimator(checkpoint, "cpu")
    readings = [odometry.update(START, None, BASE_FROM_OPTICAL)]
    for number, motion in enumerate(motions(estimator, count), 1):
        readings.append(odometry.update(START + number * PERIOD, motion, BASE_FROM_OPTICAL))
    assert all(reading.is_anchor for reading in readings)
    return readings


class Robot:
    """Publishes a camera's topics and hears all that the node under test says."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.images = node.create_publisher(Image, "image", 10)
        self.infos = node.create_publisher(CameraInfo, "camera_info", 10)
        self.fixes = node.create_publisher(PoseWithCovarianceStamped, "fix", 100)
        self.static = StaticTransformBroadcaster(node)
        self.odometry: list[Odometry] = collect(node, Odometry, "odometry")
        self.relocalized: list[Any] = collect(node, PoseWithCovarianceStamped, "relocalized_pose")
        self.transforms: list[TFMessage] = collect(node, TFMessage, "/tf")
        self.diagnostics: list[DiagnosticArray] = collect(node, DiagnosticArray, "/diagnostics")
        latched = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._log: list[Log] = collect(node, Log, "/rosout", latched)

    @property
    def log(self) -> str:
        return "\n".join(entry.msg for entry in self._log)

    def facts(self) -> dict[str, str]:
        """The newest status, from after this call."""
        before = len(self.diagnostics)
        assert wait_until(lambda: len(self.diagnostics) > before + 1)
        return {pair.key: pair.value for pair in self.diagnostics[-1].status[0].values}

    def mount(self) -> None:
        """Say where the camera sits."""
        transform = transform_stamped(BASE_FROM_OPTICAL, "base_link", OPTICAL, time_message(0))
        self.static.sendTransform(transform)

    def connect(self) -> None:
        """Wait until the node hears the camera, and has heard camera_info."""
        assert wait_until(
            lambda: self.images.get_subscription_count() and self.infos.get_subscription_count()
        )
        self.infos.publish(camera_info_message(CAMERA))
        wait_until(lambda: False, 0.3)

    def show(self, number: int, stamp: int | None = None, pixels: NDArray[np.uint8] | None = None) -> None:
        """Send an image."""
        stamp = START + number * PERIOD if stamp is None else stamp
        image = picture(number) if pixels is None else pixels
        self.images.publish(image_message(image, stamp=stamp, frame=OPTICAL))

    def follow(
        self, number: int, stamp: int | None = None, pixels: NDArray[np.uint8] | None = None
    ) -> Odometry:
        """The odometry of an image."""
        before = len(self.odometry)
        self.show(number, stamp, pixels)
        assert wait_until(lambda: len(self.odometry) > before, 20.0), self.log
        return self.odometry[-1]


@contextmanager
def running(checkpoint: Path, /, mounted: bool = True, **parameters: Any) -> Iterator[Robot]:
    """The node under test and a robot for it, in a context of their own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {"checkpoint": str(checkpoint), "device": "cpu"} | parameters
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    try:
        node = VisualOdometryNode(context=context, parameter_overrides=overrides)
        other = Node("camera", context=context)
        robot = Robot(other)
        with spinning(node, other):
            if mounted:
                robot.mount()
            robot.connect()
            yield robot
        node.destroy_node()
        other.destroy_node()
    finally:
        context.try_shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visual_odometry_node, "STATUS_PERIOD", 0.05)
    monkeypatch.setattr(frames, "EXAMINE_PERIOD", 0.01)
    monkeypatch.setattr(frames, "SETTLE_TIME", 0.02)


# ------------------------------------------------------------------------------------------------- what comes


def test_images_become_odometry_tf_depth_and_poses(checkpoint: Path) -> None:
    readings = expected(checkpoint, 5)
    with running(checkpoint) as robot:
        messages = [robot.follow(number) for number in range(5)]
        assert wait_until(lambda: len(robot.relocalized) == 5)
        depths: list[Image] = collect(robot.node, Image, "depth/image", qos_profile_sensor_data)
        infos: list[CameraInfo] = collect(
            robot.node, CameraInfo, "depth/camera_info", qos_profile_sensor_data
        )
        assert wait_until(lambda: robot.node.count_subscribers("depth/image"))
        wait_until(lambda: False, 0.3)
        robot.follow(5)
        assert wait_until(lambda: depths and infos)
        facts = robot.facts()
    for number, (message, reading) in enumerate(zip(messages, readings, strict=True)):
        assert stamp_ns(message) == START + number * PERIOD
        assert (message.header.frame_id, message.child_frame_id) == ("odom", "base_link")
        np.testing.assert_allclose(pose_matrix(message.pose.pose), reading.odom_from_base, atol=1e-4)
        covariance = message.pose.covariance.reshape(6, 6)
        np.testing.assert_allclose(covariance, reading.covariance, rtol=1e-3, atol=1e-6)
        assert np.linalg.eigvalsh(covariance)[0] > 0
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        twist = [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
        np.testing.assert_allclose(twist, reading.velocity, atol=1e-3)
        assert np.linalg.eigvalsh(message.twist.covariance.reshape(6, 6))[0] > 0
    assert np.linalg.norm(readings[-1].odom_from_base[:3, 3]) > 0.5  # it went somewhere
    sent = {stamp_ns(one): one for message in robot.transforms for one in message.transforms}
    (last,) = [one for stamp, one in sent.items() if stamp == START + 4 * PERIOD]
    assert (last.header.frame_id, last.child_frame_id) == ("odom", "base_link")
    np.testing.assert_allclose(matrix(last.transform), pose_matrix(messages[4].pose.pose), atol=1e-9)
    estimator = Estimator(checkpoint, "cpu")
    seen = estimator.estimate(picture(0), CAMERA, "hall")
    assert seen.world_from_camera is not None
    pose = robot.relocalized[0]
    assert pose.header.frame_id == "map"
    found = pose_matrix(pose.pose.pose)
    np.testing.assert_allclose(found, seen.world_from_camera @ invert(BASE_FROM_OPTICAL), atol=1e-4)
    deviations = np.sqrt(np.diag(pose.pose.covariance.reshape(6, 6)))
    np.testing.assert_allclose(deviations[3:], 0.05)
    assert (deviations[:3] >= 0.2 - 1e-9).all()
    depth = estimator.estimate(picture(5), CAMERA, "hall")
    assert depths[0].encoding == "32FC1"
    np.testing.assert_allclose(depth_array(depths[0]), depth.depth, rtol=1e-3)
    assert depths[0].header.frame_id == OPTICAL
    camera = camera_from_info(infos[0])
    assert (camera.width, camera.height) == depth.depth.shape[::-1]
    assert camera.fx == pytest.approx(depth.input_camera.fx)
    assert (facts["state"], facts["images used (total)"]) == ("moving", "6")


def test_fixes_find_the_scale(checkpoint: Path) -> None:
    count, map_from_odom = 10, transform((30.0, 5.0, 0.0), (0.0, 0.0, 0.6, 0.8))
    readings = expected(checkpoint, count)
    covariance = np.diag([0.02**2] * 3 + [0.01**2] * 3)
    with running(checkpoint) as robot:
        assert wait_until(robot.fixes.get_subscription_count)
        for number, reading in enumerate(readings):
            if number < count - 1:
                robot.follow(number)
            camera = reading.odom_from_base @ BASE_FROM_OPTICAL
            camera[:3, 3] = 1.5 * (camera[:3, 3] - BASE_FROM_OPTICAL[:3, 3])
            base = map_from_odom @ camera @ invert(BASE_FROM_OPTICAL)
            stamp = time_message(START + number * PERIOD)
            robot.fixes.publish(pose_with_covariance_stamped(base, covariance, "map", stamp))
        wait_until(lambda: False, 0.3)
        depths: list[Image] = collect(robot.node, Image, "depth/image", qos_profile_sensor_data)
        wait_until(lambda: False, 0.3)
        for number in range(count - 1, count + 2):
            robot.follow(number)
        assert wait_until(lambda: len(depths) == 3)
        facts = robot.facts()
    assert float(facts["scale"]) == pytest.approx(1.5, rel=0.1), robot.log
    assert float(facts["scale deviation"]) < 0.25
    assert int(facts["fixes"]) >= 4
    depth = Estimator(checkpoint, "cpu").estimate(picture(count + 1), CAMERA, "hall").depth
    np.testing.assert_allclose(depth_array(depths[-1]), float(facts["scale"]) * depth, rtol=0.01)


def test_a_fix_that_is_odometry_itself_is_refused(checkpoint: Path) -> None:
    with running(checkpoint) as robot:
        assert wait_until(robot.fixes.get_subscription_count)
        fix = pose_with_covariance_stamped(np.eye(4), np.eye(6), "odom", time_message(START))
        robot.fixes.publish(fix)
        wait_until(lambda: False, 0.3)
        robot.follow(0)
        assert wait_until(lambda: "a fix is ignored: it is given in 'odom'" in robot.log), robot.log


def test_a_robot_at_rest_stays_where_it_is(checkpoint: Path) -> None:
    with running(checkpoint, rest_distance=50.0, rest_angle=3.0) as robot:  # nothing stands out
        messages = [robot.follow(number) for number in range(12)]
        facts = robot.facts()
    assert facts["state"] == "resting"
    poses = [pose_matrix(message.pose.pose) for message in messages[6:]]
    assert all((pose == poses[0]).all() for pose in poses)
    assert messages[-1].twist.twist.linear.x == 0.0


# -------------------------------------------------------------------------------------------- what goes wrong


def test_a_gap_is_bridged_and_told(checkpoint: Path) -> None:
    with running(checkpoint) as robot:
        before = [robot.follow(number) for number in range(3)][-1]
        after = robot.follow(3, stamp=START + 20 * PERIOD)
        assert wait_until(lambda: "coasting: no motion was measured for 1.80 s" in robot.log), robot.log
        assert robot.facts()["state"] == "coasting"
        robot.follow(4, stamp=START + 21 * PERIOD)
        assert robot.facts()["state"] == "moving"
    assert (after.pose.covariance[[0, 7, 14]] > before.pose.covariance[[0, 7, 14]] + 0.5).all()


def test_stamps_that_fall_back_are_not_used_or_begin_anew(checkpoint: Path) -> None:
    with running(checkpoint) as robot:
        for number in range(3):
            robot.follow(number)
        robot.show(3, stamp=START + PERIOD)
        assert wait_until(lambda: "its stamp is not newer than the latest" in robot.log), robot.log
        assert len(robot.odometry) == 3
        again = robot.follow(0, stamp=START - 5 * NANOSECONDS)
    np.testing.assert_allclose(pose_matrix(again.pose.pose), np.eye(4), atol=1e-9)
    stamps = [stamp_ns(message) for message in robot.odometry]
    assert stamps == [*sorted(stamps[:3]), START - 5 * NANOSECONDS]


def test_no_motion_is_measured_across_images_of_no_use(checkpoint: Path) -> None:
    readings = expected(checkpoint, 3)
    with running(checkpoint) as robot:
        robot.follow(0)
        robot.show(7, stamp=START + PERIOD // 2, pixels=picture(0)[:32])
        assert wait_until(lambda: "bad image: image is 128x32 but its camera_info" in robot.log), robot.log
        robot.follow(1)
        last = robot.follow(2)
    np.testing.assert_allclose(pose_matrix(last.pose.pose), readings[2].odom_from_base, atol=1e-4)


def test_without_the_camera_s_place_there_is_no_odometry(checkpoint: Path) -> None:
    with running(checkpoint, mounted=False, transform_timeout=0.05) as robot:
        robot.show(0)
        assert wait_until(lambda: "no transform: tf does not lead from" in robot.log), robot.log
        assert not robot.odometry
        robot.mount()
        wait_until(lambda: False, 0.3)
        robot.follow(1)
        assert robot.facts()["state"] == "starting"


def test_other_odometry_is_left_alone(checkpoint: Path) -> None:
    with running(checkpoint) as robot:
        wheels = TransformBroadcaster(robot.node)
        wheels.sendTransform(transform_stamped(np.eye(4), "odom", "base_link", time_message(START)))
        assert wait_until(lambda: robot.transforms)
        wait_until(lambda: False, 0.2)
        for number in range(4):
            robot.follow(number)
            wait_until(lambda: False, 0.05)
        assert wait_until(lambda: "'base_link' already has a parent in tf" in robot.log), robot.log
    assert len(robot.transforms) == 1
    assert len(robot.odometry) == 4


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"checkpoint": ""}, "no checkpoint is given"),
        ({"checkpoint": "none"}, "does not exist; give the folder that 'ofvl collab train --out' wrote"),
        ({"scene": "attic"}, "scene is 'attic', the checkpoint has hall"),
        ({"scale_from": "wheels"}, "one of fixes, relocalization, none"),
        ({"max_gap": 0.0}, "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(checkpoint: Path, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(OfvlError, match=said), running(checkpoint, **parameters):
        pass


def test_the_process_ends_well_when_it_is_interrupted(checkpoint: Path) -> None:
    with NodeProcess("visual_odometry", checkpoint=checkpoint) as process:
        assert wait_until(lambda: "waiting for images on /image" in process.log), process.log
        process.interrupt()
        assert process.wait() == 0, process.log
    assert "Traceback" not in process.log
