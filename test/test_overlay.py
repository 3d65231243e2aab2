"""tf2_ros as the nodes use it: the overlay must pass these tests, and so does the real Jazzy package."""

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
import tf2_ros
import yaml
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.time import Time
from ros_helpers import ros_node, wait_until
from scipy.spatial.transform import Rotation

from ofvl_core.geometry import invert, pose_error, transform

ROOT = Path(__file__).resolve().parent.parent
IN_PIP_HOME = (ROOT / "overlay") in Path(tf2_ros.__file__).parents
since_jazzy = pytest.mark.skipif(os.environ.get("ROS_DISTRO") == "humble", reason="newer than Humble")

# As every ROS 2 since Iron computes it; nodes that disagree on it may not hear each other.
TF_MESSAGE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
NO_ROTATION = (0.0, 0.0, 0.0, 1.0)


def stamped(parent, child, seconds=0.0, translation=(0.0, 0.0, 0.0), quaternion=NO_ROTATION):
    message = TransformStamped()
    message.header.stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
    message.header.frame_id, message.child_frame_id = parent, child
    for field, value in zip("xyz", translation, strict=True):
        setattr(message.transform.translation, field, float(value))
    for field, value in zip("xyzw", quaternion, strict=True):
        setattr(message.transform.rotation, field, float(value))
    return message


def matrix(message):
    t, r = message.transform.translation, message.transform.rotation
    return transform([t.x, t.y, t.z], [r.x, r.y, r.z, r.w])


def at(seconds):
    return Time(nanoseconds=round(seconds * 1e9))


def position(buffer, target, source, seconds):
    found = buffer.lookup_transform(target, source, at(seconds)).transform.translation
    return [found.x, found.y, found.z]


@pytest.fixture
def robot():
    """map -> odom (moving) -> base (moving) -> camera (static), seen from 1 s to 3 s."""
    buffer = tf2_ros.Buffer()
    quarter_turn = Rotation.from_euler("z", 90, degrees=True).as_quat()
    for seconds in (1.0, 2.0, 3.0):
        buffer.set_transform(stamped("map", "odom", seconds, (10.0, 0.0, 0.0), quarter_turn), "slam")
        buffer.set_transform(stamped("odom", "base", seconds, (seconds, 0.0, 0.0)), "wheels")
    buffer.set_transform_static(stamped("base", "camera", 0.0, (0.5, 0.0, 1.0)), "urdf")
    return buffer


def test_chain_is_composed_in_the_direction_of_the_names(robot):
    # The camera is 0.5 ahead of the base, which drove along odom's x, which is the map's y.
    np.testing.assert_allclose(position(robot, "map", "camera", 2.0), [10.0, 2.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(position(robot, "camera", "base", 2.0), [-0.5, 0.0, -1.0], atol=1e-12)
    found = robot.lookup_transform("map", "camera", at(2.0))
    assert (found.header.frame_id, found.child_frame_id) == ("map", "camera")
    assert (found.header.stamp.sec, found.header.stamp.nanosec) == (2, 0)


def test_siblings_meet_at_their_common_ancestor(robot):
    robot.set_transform_static(stamped("base", "lidar", 0.0, (0.0, 0.25, 0.0)), "urdf")
    np.testing.assert_allclose(position(robot, "lidar", "camera", 0.0), [0.5, -0.25, 1.0], atol=1e-12)


def test_interpolates_between_stamps():
    buffer = tf2_ros.Buffer()
    buffer.set_transform(stamped("odom", "base", 1.0), "a")
    turned = Rotation.from_euler("z", 80, degrees=True).as_quat()
    buffer.set_transform(stamped("odom", "base", 2.0, (4.0, 0.0, -8.0), turned), "a")
    found = matrix(buffer.lookup_transform("odom", "base", at(1.25)))
    expected = transform([1.0, 0.0, -2.0], Rotation.from_euler("z", 20, degrees=True).as_quat())
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_time_zero_is_the_latest_time_that_all_links_reach(robot):
    robot.set_transform(stamped("odom", "base", 4.0, (4.0, 0.0, 0.0)), "wheels")
    found = robot.lookup_transform("map", "camera", Time())
    assert found.header.stamp.sec == 3
    assert robot.lookup_transform("odom", "base", Time()).header.stamp.sec == 4
    assert robot.lookup_transform("base", "camera", Time()).header.stamp.sec == 0


def test_accepts_the_time_of_a_message_header(robot):
    found = robot.lookup_transform("odom", "base", TimeMessage(sec=1, nanosec=500_000_000))
    assert found.transform.translation.x == pytest.approx(1.5)


def test_static_links_hold_at_every_time(robot):
    assert robot.lookup_transform("base", "camera", at(1e6)).header.stamp.sec == 1_000_000


def test_frame_to_itself_is_the_identity_even_if_unknown(robot):
    np.testing.assert_array_equal(matrix(robot.lookup_transform("new", "new", at(7.0))), np.eye(4))


@pytest.mark.parametrize(
    ("target", "source", "seconds", "exception", "words"),
    [
        ("map", "nowhere", 2.0, tf2_ros.LookupException, "nowhere"),
        ("map", "island", 2.0, tf2_ros.ConnectivityException, "not part of the same tree"),
        ("map", "island", 0.0, tf2_ros.ConnectivityException, "not part of the same tree"),
        ("map", "base", 3.5, tf2_ros.ExtrapolationException, "into the future"),
        ("map", "base", 0.5, tf2_ros.ExtrapolationException, "into the past"),
        ("base", "map", 3.5, tf2_ros.ExtrapolationException, r"from frame \[map\] to frame \[base\]"),
        ("map", "", 2.0, tf2_ros.InvalidArgumentException, "cannot be empty"),
        ("map", "/base", 2.0, tf2_ros.InvalidArgumentException, "cannot start with a '/'"),
    ],
)
def test_reasons_for_failure(robot, target, source, seconds, exception, words):
    robot.set_transform(stamped("ocean", "island", 2.0), "a")
    with pytest.raises(exception, match=words):
        robot.lookup_transform(target, source, at(seconds))
    assert issubclass(exception, tf2_ros.TransformException)
    possible, reason = robot.can_transform(target, source, at(seconds), return_debug_tuple=True)
    assert not possible
    assert reason


def test_gap_above_the_common_ancestor_does_not_matter(robot):
    # map -> odom ends at 3 s, which nobody asks for here.
    robot.set_transform(stamped("odom", "base", 5.0, (5.0, 0.0, 0.0)), "wheels")
    assert position(robot, "odom", "camera", 4.0) == pytest.approx([4.5, 0.0, 1.0])


def test_loop_is_reported_and_not_followed_forever():
    buffer = tf2_ros.Buffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        buffer.set_transform(stamped(parent, child, 1.0), "broken")
    buffer.set_transform(stamped("x", "y", 1.0), "a")
    for seconds in (0.0, 1.0):
        with pytest.raises(tf2_ros.LookupException, match="loop"):
            buffer.lookup_transform("y", "a", at(seconds))


def test_forgets_what_is_older_than_the_cache_time():
    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=2))
    for seconds in range(1, 7):
        buffer.set_transform(stamped("odom", "base", seconds), "a")
    assert buffer.can_transform("odom", "base", at(4.0))
    assert not buffer.can_transform("odom", "base", at(2.5))
    buffer.set_transform(stamped("odom", "base", 2.5), "late")
    assert not buffer.can_transform("odom", "base", at(2.5))


def test_quaternions_are_normalised():
    buffer = tf2_ros.Buffer()
    buffer.set_transform(stamped("odom", "base", 1.0, quaternion=(0.0, 0.0, 2.0, 0.0)), "a")
    rotation = buffer.lookup_transform("odom", "base", at(1.0)).transform.rotation
    assert abs(rotation.z) == pytest.approx(1.0)


def test_late_transforms_take_their_place_in_time():
    buffer = tf2_ros.Buffer()
    for seconds in (3.0, 1.0, 2.0):
        buffer.set_transform(stamped("odom", "base", seconds, (seconds**2, 0.0, 0.0)), "a")
    assert position(buffer, "odom", "base", 1.5)[0] == pytest.approx(2.5)
    assert position(buffer, "odom", "base", 2.5)[0] == pytest.approx(6.5)


def test_new_parent_replaces_the_old_one(robot):
    robot.set_transform(stamped("other_map", "odom", 3.5), "slam")
    assert robot.can_transform("other_map", "odom", Time())
    with pytest.raises(tf2_ros.ConnectivityException):
        robot.lookup_transform("map", "odom", Time())


@pytest.mark.parametrize(
    "message",
    [
        stamped("base", "base", 1.0),
        stamped("", "base", 1.0),
        stamped("odom", "", 1.0),
        stamped("odom", "base", 1.0, (math.nan, 0.0, 0.0)),
        stamped("odom", "base", 1.0, quaternion=(0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_senseless_transforms_are_ignored(message):
    buffer = tf2_ros.Buffer()
    buffer.set_transform(message, "broken")
    buffer.set_transform_static(message, "broken")
    assert buffer.all_frames_as_yaml() == "[]"


def test_leading_slashes_of_a_sender_are_stripped():
    buffer = tf2_ros.Buffer()
    buffer.set_transform(stamped("/odom", "/base", 1.0, (1.0, 2.0, 3.0)), "old")
    assert position(buffer, "odom", "base", 1.0) == [1.0, 2.0, 3.0]


def test_clear_forgets_what_moves_and_keeps_what_is_static(robot):
    robot.clear()
    assert robot.can_transform("base", "camera", at(2.0))
    assert not robot.can_transform("odom", "base", at(2.0))
    assert not robot.can_transform("odom", "base", Time())


def test_frames_as_yaml_name_parents_and_rates(robot):
    frames = yaml.safe_load(robot.all_frames_as_yaml())
    assert {name: frame["parent"] for name, frame in frames.items()} == {
        "odom": "map",
        "base": "odom",
        "camera": "base",
    }
    assert frames["base"] == {
        "parent": "odom",
        "broadcaster": "wheels",
        "rate": 1.5,
        "most_recent_transform": 3.0,
        "oldest_transform": 1.0,
        "buffer_length": 2.0,
    }


def test_waits_for_a_transform_that_is_on_its_way():
    buffer = tf2_ros.Buffer()
    start = time.monotonic()
    threading.Timer(0.2, buffer.set_transform, [stamped("odom", "base", 1.0), "a"]).start()
    buffer.lookup_transform("odom", "base", at(1.0), timeout=Duration(seconds=10))
    assert 0.1 < time.monotonic() - start < 5.0


def test_gives_up_waiting_with_the_reason():
    buffer = tf2_ros.Buffer()
    buffer.set_transform(stamped("odom", "base", 1.0), "a")
    start = time.monotonic()
    with pytest.raises(tf2_ros.ExtrapolationException):
        buffer.lookup_transform("odom", "base", at(2.0), timeout=Duration(seconds=0.2))
    assert 0.15 < time.monotonic() - start < 5.0


def test_threads_may_write_and_read_at_once():
    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=1))
    failures = []

    def read():
        for _ in range(300):
            try:
                found = matrix(buffer.lookup_transform("odom", "base", Time()))
                # Both links of every pair are written alike: anything else is a torn read.
                assert abs(found[0, 3]) < 1e-9
            except tf2_ros.TransformException:
                continue
            except Exception as exception:
                failures.append(exception)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for index in range(300):
        for child in ("odom", "base"):
            buffer.set_transform(stamped("map", child, 1 + index * 0.01, (index, 0.0, 0.0)), "a")
    for reader in readers:
        reader.join()
    assert not failures


coordinates = st.floats(-100, 100)
poses = st.builds(
    lambda translation, vector: (translation, tuple(Rotation.from_rotvec(vector).as_quat())),
    st.tuples(coordinates, coordinates, coordinates),
    st.tuples(*[st.floats(-3, 3)] * 3),
)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.integers(2, 7))
def test_any_tree_agrees_with_multiplied_matrices(data, size):
    buffer = tf2_ros.Buffer()
    root_from = {"0": np.eye(4)}
    for child in range(1, size):
        parent = str(data.draw(st.integers(0, child - 1)))
        translation, quaternion = data.draw(poses)
        message = stamped(parent, str(child), 1.0, translation, quaternion)
        insert = buffer.set_transform_static if data.draw(st.booleans()) else buffer.set_transform
        insert(message, "any")
        root_from[str(child)] = root_from[parent] @ matrix(message)
    target, source = data.draw(st.tuples(*[st.sampled_from(sorted(root_from))] * 2))
    found = matrix(buffer.lookup_transform(target, source, at(1.0)))
    metres, degrees = pose_error(found, invert(root_from[target]) @ root_from[source])
    assert metres < 1e-9
    assert degrees < 1e-4


@pytest.fixture
def node():
    # A name of its own: endpoints of the test before may still be in the graph.
    with ros_node(f"overlay_{time.monotonic_ns()}") as node:
        yield node


def test_broadcasts_arrive_in_a_listening_buffer(node):
    buffer = tf2_ros.Buffer(node=node)
    listener = tf2_ros.TransformListener(buffer, node)
    broadcaster = tf2_ros.TransformBroadcaster(node)
    assert wait_until(lambda: len(endpoints(node, "/tf")) == 2)
    broadcaster.sendTransform(stamped("map", "odom", 5.0))
    broadcaster.sendTransform([stamped("odom", "base", 5.0), stamped("base", "imu", 5.0)])
    assert buffer.can_transform("map", "imu", at(5.0), timeout=Duration(seconds=15))
    assert "broadcaster: 'default_authority'" in buffer.all_frames_as_yaml()
    listener.unregister()


@since_jazzy
def test_static_transforms_reach_a_listener_that_comes_late(node):
    broadcaster = tf2_ros.StaticTransformBroadcaster(node)
    broadcaster.sendTransform(stamped("base", "camera", translation=(1.0, 0.0, 0.0)))
    # Neither replaces what was latched: a new child joins it, and Jazzy keeps a child's first transform.
    broadcaster.sendTransform(
        [stamped("base", "lidar"), stamped("base", "camera", translation=(2.0, 0.0, 0.0))]
    )
    buffer = tf2_ros.Buffer()
    tf2_ros.TransformListener(buffer, node)
    assert buffer.can_transform("lidar", "camera", Time(), timeout=Duration(seconds=15))
    assert position(buffer, "base", "camera", 0.0) == [1.0, 0.0, 0.0]


def test_listener_can_spin_by_itself():
    rclpy.init()
    try:
        node = rclpy.create_node("spun")
        buffer = tf2_ros.Buffer()
        listener = tf2_ros.TransformListener(buffer, node, spin_thread=True)
        tf2_ros.StaticTransformBroadcaster(node).sendTransform(stamped("base", "camera"))
        assert buffer.can_transform("base", "camera", Time(), timeout=Duration(seconds=15))
        listener.unregister()
    finally:
        rclpy.shutdown()


@since_jazzy
def test_clock_that_jumps_back_clears_the_buffer(node):
    node.set_parameters([Parameter("use_sim_time", value=True)])
    clock = node.get_clock()
    clock.set_ros_time_override(at(100.0))
    buffer = tf2_ros.Buffer(node=node)
    buffer.set_transform(stamped("odom", "base", 99.0), "a")
    clock.set_ros_time_override(at(101.0))
    assert buffer.can_transform("odom", "base", Time())
    clock.set_ros_time_override(at(3.0))
    assert not buffer.can_transform("odom", "base", Time())


def test_topics_have_the_quality_of_service_of_tf2(node):
    tf2_ros.TransformListener(tf2_ros.Buffer(), node)
    tf2_ros.TransformBroadcaster(node)
    tf2_ros.StaticTransformBroadcaster(node)
    for topic, durability in (("/tf", "VOLATILE"), ("/tf_static", "TRANSIENT_LOCAL")):
        assert wait_until(lambda topic=topic: len(endpoints(node, topic)) == 2)
        for endpoint in endpoints(node, topic):
            assert endpoint.qos_profile.reliability.name == "RELIABLE"
            assert endpoint.qos_profile.durability.name == durability


@since_jazzy
def test_tf2_msgs_is_the_interface_every_ros_node_speaks(node):
    tf2_ros.TransformBroadcaster(node)
    assert wait_until(lambda: endpoints(node, "/tf"))
    (publisher,) = endpoints(node, "/tf")
    assert publisher.topic_type == "tf2_msgs/msg/TFMessage"
    assert str(publisher.topic_type_hash) == TF_MESSAGE_HASH


def endpoints(node, topic):
    found = node.get_publishers_info_by_topic(topic) + node.get_subscriptions_info_by_topic(topic)
    return [endpoint for endpoint in found if endpoint.node_name == node.get_name()]


def imported_from(tmp_path, python_path):
    environment = {**os.environ, "PYTHONPATH": python_path}
    command = [sys.executable, "-c", "import tf2_ros; print(tf2_ros.__file__)"]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    ).stdout.strip()


@pytest.mark.skipif(not IN_PIP_HOME, reason="a real tf2_ros is installed and in use")
def test_real_tf2_ros_wins_over_the_overlay(tmp_path):
    real = tmp_path / "opt ros" / "tf2_ros"
    real.mkdir(parents=True)
    (real / "__init__.py").write_text("")
    assert imported_from(tmp_path, str(real.parent)) == str(real / "__init__.py")
    assert Path(imported_from(tmp_path, "")).is_relative_to(ROOT / "overlay")
    overlay = str(ROOT / "overlay" / "tf2_ros")
    inside_environment = [entry for entry in sys.path if entry.endswith("site-packages")]
    assert sys.path.index(overlay) > max(map(sys.path.index, inside_environment))
