"""Where the map goes in the tf tree, and the messages that say so."""

import copy
import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from hypothesis import given
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from ros_helpers import NANOSECONDS, camera_info_message, time_message
from scipy.spatial.transform import Rotation
from tf2_ros import Buffer, TransformException

from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array, interpolate
from ofvl_core.realsense import BODY_FROM_OPTICAL
from ofvl_ros import frames
from ofvl_ros.frames import CameraTree, MapBroadcaster, MapTransform
from ofvl_ros.messages import camera_from_info, matrix, pose_stamped, transform_stamped

STAMP = 100 * NANOSECONDS
OPTICAL = "camera_color_optical_frame"


def random_transform(seed: int) -> Array:
    random = np.random.default_rng(seed)
    result = np.eye(4)
    result[:3, :3] = Rotation.random(random_state=random).as_matrix()
    result[:3, 3] = random.uniform(-5, 5, 3)
    return result


BASE_FROM_CAMERA = random_transform(1)
CAMERA_FROM_OPTICAL = BODY_FROM_OPTICAL
ODOM_FROM_BASE = [random_transform(3), random_transform(4)]
ODOMETRY_PERIOD = NANOSECONDS // 10


class Tree(Buffer):
    """A buffer that is filled by hand."""

    def static(self, parent: str, child: str, parent_from_child: Array) -> None:
        self.set_transform_static(
            transform_stamped(parent_from_child, parent, child, time_message(0)), "test"
        )

    def moving(self, parent: str, child: str, parent_from_child: Array, stamp: int) -> None:
        self.set_transform(transform_stamped(parent_from_child, parent, child, time_message(stamp)), "test")

    def camera(self) -> None:
        self.static("camera_link", OPTICAL, CAMERA_FROM_OPTICAL)

    def robot(self) -> None:
        self.camera()
        self.static("base_link", "camera_link", BASE_FROM_CAMERA)

    def odometry(self) -> None:
        """Two samples around STAMP, which is a quarter of the way from one to the other."""
        for number, odom_from_base in enumerate(ODOM_FROM_BASE):
            self.moving("odom", "base_link", odom_from_base, STAMP + (4 * number - 1) * ODOMETRY_PERIOD // 4)


@pytest.fixture(autouse=True)
def quick_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "SETTLE_TIME", 0.0)
    monkeypatch.setattr(frames, "EXAMINE_PERIOD", 0.0)


def camera_tree(tree: Tree, mode: str = "auto", base_frame: str = "base_link") -> CameraTree:
    return CameraTree(tree, mode, "map_of_{scene}", "odom", base_frame, Duration(seconds=0.0))


def complete(tree: Tree) -> Tree:
    tree.robot()
    tree.odometry()
    return tree


def test_with_odometry_the_map_is_above_odom() -> None:
    found = camera_tree(complete(Tree()))
    assert found.has_odometry(OPTICAL)
    assert found.map_child(OPTICAL) == "odom"
    odom_from_base = found.transform("odom", "base_link", time_message(STAMP))
    np.testing.assert_allclose(odom_from_base, interpolate(*ODOM_FROM_BASE, 0.25), atol=1e-9)


def test_a_camera_alone_hangs_by_its_link() -> None:
    tree = Tree()
    tree.camera()
    assert not camera_tree(tree).has_odometry(OPTICAL)
    assert camera_tree(tree).map_child(OPTICAL) == "camera_link"


def test_an_optical_frame_alone_is_its_own_root() -> None:
    assert camera_tree(Tree()).map_child(OPTICAL) == OPTICAL


@pytest.mark.parametrize("map_frame", ["map_of_room", "map_of_other room"])
@pytest.mark.parametrize("root", ["odom", "camera_link", OPTICAL])
def test_our_own_broadcast_is_not_mistaken_for_a_parent(root: str, map_frame: str) -> None:
    tree = Tree()
    if root == "odom":
        complete(tree)
    elif root == "camera_link":
        tree.camera()
    found = camera_tree(tree)
    assert found.map_child(OPTICAL) == root
    tree.moving(map_frame, root, random_transform(5), STAMP)
    assert found.map_child(OPTICAL) == root


def test_odometry_that_comes_later_takes_over() -> None:
    tree = Tree()
    tree.robot()
    found = camera_tree(tree)
    assert found.map_child(OPTICAL) == "base_link"
    tree.moving("map_of_room", "base_link", random_transform(5), STAMP)
    tree.odometry()
    assert found.map_child(OPTICAL) == "odom"


def test_nothing_is_attached_while_the_tree_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree()
    found = camera_tree(tree)
    monkeypatch.setattr(frames, "SETTLE_TIME", 1e6)
    assert found.map_child(OPTICAL) is None
    tree.camera()
    monkeypatch.setattr(frames, "SETTLE_TIME", 0.0)
    assert found.map_child(OPTICAL) == "camera_link"


def test_modes_choose_the_frame() -> None:
    tree = Tree()
    tree.robot()
    assert camera_tree(tree, "none").map_child(OPTICAL) is None
    assert camera_tree(tree, "map_to_base").map_child(OPTICAL) == "base_link"
    assert camera_tree(tree, "map_to_camera").map_child(OPTICAL) == "base_link"
    assert camera_tree(complete(tree), "map_to_odom").map_child(OPTICAL) == "odom"


def test_a_frame_with_a_parent_is_refused_and_its_parent_named() -> None:
    found = camera_tree(complete(Tree()), "map_to_base")
    with pytest.raises(ConfigError, match="'base_link' already has the parent 'odom'"):
        found.map_child(OPTICAL)
    tree = complete(Tree())
    tree.static("world", "odom", random_transform(6))
    with pytest.raises(ConfigError, match="'odom' already has the parent 'world'"):
        camera_tree(tree).map_child(OPTICAL)


def test_odometry_that_ends_before_the_image_is_not_stretched() -> None:
    tree = Tree()
    tree.robot()
    tree.moving("odom", "base_link", ODOM_FROM_BASE[0], STAMP - NANOSECONDS)
    with pytest.raises(TransformException):
        camera_tree(tree).transform("odom", "base_link", time_message(STAMP))


def test_the_base_is_found_at_the_stamp() -> None:
    tree = Tree()
    tree.robot()
    found = camera_tree(tree).transform(OPTICAL, "base_link", time_message(STAMP))
    np.testing.assert_allclose(found @ BASE_FROM_CAMERA @ CAMERA_FROM_OPTICAL, np.eye(4), atol=1e-9)
    with pytest.raises(TransformException):
        camera_tree(tree).transform(OPTICAL, "wheel", time_message(STAMP))


@given(st.integers(0, 2**32 - 1))
def test_transforms_survive_the_message(seed: int) -> None:
    map_from_body = random_transform(seed)
    stamp = time_message(STAMP + 123)
    transform = transform_stamped(map_from_body, "map", "body", stamp)
    np.testing.assert_allclose(matrix(transform.transform), map_from_body, atol=1e-12)
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "body")
    pose = pose_stamped(map_from_body, "map", stamp)
    assert (pose.header.frame_id, pose.header.stamp) == ("map", stamp)
    for axis in "xyz":
        assert getattr(pose.pose.position, axis) == getattr(transform.transform.translation, axis)
    assert pose.pose.orientation == transform.transform.rotation


CAMERA = Camera(640, 480, 600.0, 610.0, 320.5, 240.25, (0.1, -0.2, 0.001, 0.002, 0.05))


def test_camera_info_is_read_in_opencvs_order() -> None:
    info = camera_info_message(CAMERA)
    info.d = list(CAMERA.distortion)
    assert camera_from_info(info) == CAMERA


@pytest.mark.parametrize(("model", "count"), [("", 0), ("plumb_bob", 4), ("rational_polynomial", 8)])
def test_distortion_models_that_opencv_has_are_taken(model: str, count: int) -> None:
    info = camera_info_message(CAMERA)
    info.distortion_model, info.d = model, [0.01] * count
    assert camera_from_info(info).distortion == (0.01,) * count


@pytest.mark.parametrize(("model", "count"), [("equidistant", 4), ("plumb_bob", 8), ("fisheye", 0), ("", 5)])
def test_other_distortion_models_are_refused(model: str, count: int) -> None:
    info = camera_info_message(CAMERA)
    info.distortion_model, info.d = model, [0.0] * count
    with pytest.raises(ConfigError, match=f"'{model}' with {count} coefficients"):
        camera_from_info(info)


def test_an_uncalibrated_camera_is_refused() -> None:
    info = camera_info_message(CAMERA)
    info.k = np.zeros(9)
    with pytest.raises(ConfigError, match="not set"):
        camera_from_info(info)


class Recorder:
    """Stands where a TransformBroadcaster does, and keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[TransformStamped] = []

    def sendTransform(self, transform: TransformStamped) -> None:  # noqa: N802 (tf2's own name)
        self.sent.append(copy.deepcopy(transform))


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("test", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


ABOVE_ODOM = MapTransform(random_transform(7), "odom", lasts=True)


def test_odom_has_one_parent_at_any_time(node: Node) -> None:
    recorder = Recorder()
    broadcaster = MapBroadcaster(node, recorder, rate=20.0, tolerance=0.3, lifetime=10.0)
    broadcaster.send(ABOVE_ODOM, "map_of_a", time_message(STAMP))
    broadcaster.stop()
    began = time.monotonic()
    while len(recorder.sent) < 2:
        broadcaster.send(ABOVE_ODOM, "map_of_b", time_message(STAMP))
        assert time.monotonic() - began < 10
    last, first = (Time.from_msg(one.header.stamp) for one in recorder.sent)
    assert [one.header.frame_id for one in recorder.sent] == ["map_of_a", "map_of_b"]
    assert (first - last).nanoseconds >= 0.3e9  # sent when the old one's date had passed, itself dated ahead
    np.testing.assert_allclose(matrix(recorder.sent[1].transform), ABOVE_ODOM.map_from_child, atol=1e-9)


def test_a_clock_that_starts_again_holds_nothing_back(node: Node) -> None:
    recorder = Recorder()
    broadcaster = MapBroadcaster(node, recorder, rate=20.0, tolerance=1e4, lifetime=10.0)
    broadcaster.send(ABOVE_ODOM, "map_of_a", time_message(STAMP))
    broadcaster.start_over()
    broadcaster.send(ABOVE_ODOM, "map_of_b", time_message(STAMP))
    assert [one.header.frame_id for one in recorder.sent] == ["map_of_a", "map_of_b"]


def test_what_does_not_last_keeps_the_images_stamp(node: Node) -> None:
    recorder = Recorder()
    broadcaster = MapBroadcaster(node, recorder, rate=20.0, tolerance=0.1, lifetime=10.0)
    broadcaster.send(ABOVE_ODOM._replace(lasts=False), "map", time_message(STAMP))
    (sent,) = recorder.sent
    assert sent.header.stamp == time_message(STAMP)
