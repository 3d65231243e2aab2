"""Data sets as bags, and bags over DDS."""

import json
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_helpers import NANOSECONDS, NodeProcess, collect, ros_node, wait_until
from rosbags.highlevel import AnyReader
from rosbags.interfaces import ConnectionExtRosbag2, QosDurability
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from ofvl_core import realsense
from ofvl_core.bag import BAG_VERSION, bag_from_dataset, frame_stamps
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.images import read_color, read_depth
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import transform
from ofvl_core.trajectory import write_tum
from ofvl_ros.images import rgb_array

WIDTH, HEIGHT = 640, 480
"""A real camera's, because larger images are what gets lost."""

FRAMES = 4
"""In each of the two sequences."""

ODOMETRY_ROWS = 12
"""Of each sequence, 0.05 s apart from 0.1 s before its first frame: all within the margin."""

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def write_scene(root: Path, robot: bool) -> Path:
    """A scene of noise whose test split has two sequences at 10 Hz, with their own times."""
    random = np.random.default_rng(5)
    for sequence in (1, 2):
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir(parents=True)
        for number in range(FRAMES):
            stem = folder / f"frame-{number:06d}"
            color = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            depth = random.integers(1, 5000, (HEIGHT, WIDTH), dtype=np.uint16)
            cv2.imwrite(f"{stem}.color.png", color)
            cv2.imwrite(f"{stem}.depth.png", depth)
            np.savetxt(f"{stem}.pose.txt", np.eye(4))
        stamps = [f"{number:06d} {50 * sequence + 0.1 * number:.9f}" for number in range(FRAMES)]
        (folder / "timestamps.txt").write_text("\n".join(stamps))
        if robot:
            rows = range(ODOMETRY_ROWS)
            write_tum(
                folder / "odometry.txt",
                [
                    (50 * sequence - 0.1 + 0.05 * row, transform((0.01 * row, 0, 0), (0, 0, 0, 1)))
                    for row in rows
                ],
            )
    np.savetxt(root / "camera-intrinsics.txt", np.array([[600, 0, 319.5], [0, 610, 239.5], [0, 0, 1]]))
    (root / "TestSplit.txt").write_text("sequence1\nsequence2\n")
    if robot:
        joints = [("base_link", "camera_link"), ("camera_link", "camera_color_optical_frame")]
        static = [
            {"parent": parent, "child": child, "translation": [0.1, 0, 0.6], "rotation_xyzw": [0, 0, 0, 1]}
            for parent, child in joints
        ]
        frames = {
            "odom_frame": "odom",
            "base_frame": "base_link",
            "camera_frame": "camera_link",
            "optical_frame": "camera_color_optical_frame",
            "static_transforms": static,
        }
        (root / "robot.json").write_text(json.dumps(frames))
    return root


@pytest.fixture(scope="module")
def robot_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("robot") / "room", robot=True)


@pytest.fixture(scope="module")
def robot_bag(robot_scene: Path) -> Path:
    out = robot_scene.parent / "robot_bag"
    bag_from_dataset(robot_scene, out)
    return out


def read(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    """(stamp, message) of each topic."""
    with AnyReader([bag]) as reader:
        topics: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in reader.topics}
        for connection, stamp, data in reader.messages():
            topics[connection.topic].append((stamp, reader.deserialize(data, connection.msgtype)))
    return topics


def header_stamp(message: Any) -> int:
    return message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_holds_the_data_set(robot_scene: Path, tmp_path: Path, storage: str) -> None:
    out = tmp_path / "nested" / "bag"
    progress: list[tuple[int, int]] = []
    count = bag_from_dataset(robot_scene, out, storage=storage, progress=lambda *done: progress.append(done))

    topics = read(out)
    assert count == sum(len(messages) for messages in topics.values())
    assert progress == [(done, 2 * FRAMES) for done in range(1, 2 * FRAMES + 1)]
    assert {topic: len(messages) for topic, messages in topics.items()} == {
        realsense.COLOR_IMAGE: 2 * FRAMES,
        realsense.COLOR_INFO: 2 * FRAMES,
        realsense.DEPTH_IMAGE: 2 * FRAMES,
        realsense.DEPTH_INFO: 2 * FRAMES,
        "/tf": 2 * ODOMETRY_ROWS,
        "/tf_static": 1,
    }
    frames = load_scene(robot_scene).frames("test")
    images = topics[realsense.COLOR_IMAGE]
    for frame, due, (stamp, image) in zip(frames, frame_stamps(frames), images, strict=True):
        assert stamp == due == header_stamp(image)
        assert (image.encoding, image.step, image.header.frame_id) == (
            "rgb8",
            3 * WIDTH,
            "camera_color_optical_frame",
        )
        pixels = image.data.reshape(HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(pixels, read_color(frame.color))
    depth = topics[realsense.DEPTH_IMAGE][0][1]
    assert frames[0].depth is not None
    assert depth.encoding == "16UC1"
    millimetres = depth.data.view(np.uint16).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(millimetres, read_depth(frames[0].depth))
    info = topics[realsense.COLOR_INFO][0][1]
    np.testing.assert_array_equal(info.k, [600, 0, 319.5, 0, 610, 239.5, 0, 0, 1])
    assert (info.width, info.height, info.distortion_model) == (WIDTH, HEIGHT, "plumb_bob")


def test_time_only_moves_forward_and_odometry_goes_with_its_sequence(robot_bag: Path) -> None:
    with AnyReader([robot_bag]) as reader:
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert stamps == sorted(stamps)
    topics = read(robot_bag)
    images = [stamp for stamp, _ in topics[realsense.COLOR_IMAGE]]
    assert images[FRAMES] - images[FRAMES - 1] == NANOSECONDS
    odometry = [(stamp, message.transforms[0]) for stamp, message in topics["/tf"]]
    assert [stamp for stamp, _ in odometry] == [header_stamp(transform) for _, transform in odometry]
    for first_frame, first_row in ((0, 0), (FRAMES, ODOMETRY_ROWS)):
        stamp, first = odometry[first_row]
        assert images[first_frame] - stamp == NANOSECONDS // 10
        assert (first.header.frame_id, first.child_frame_id) == ("odom", "base_link")
        assert first.transform.translation.x == 0.0


def test_static_transforms_are_latched_and_come_first(robot_bag: Path) -> None:
    with AnyReader([robot_bag]) as reader:
        first, _, _ = next(reader.messages())
    assert first.topic == "/tf_static"
    assert isinstance(first.ext, ConnectionExtRosbag2)
    assert first.ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL
    ((_, message),) = read(robot_bag)["/tf_static"]
    assert [(t.header.frame_id, t.child_frame_id) for t in message.transforms] == [
        ("base_link", "camera_link"),
        ("camera_link", "camera_color_optical_frame"),
    ]


def test_without_a_robot_the_tree_is_the_cameras_own(tmp_path: Path) -> None:
    out = tmp_path / "bag"
    bag_from_dataset(write_scene(tmp_path / "scene", robot=False), out)
    topics = read(out)
    assert "/tf" not in topics
    ((_, message),) = topics["/tf_static"]
    assert [(t.header.frame_id, t.child_frame_id) for t in message.transforms] == [
        ("camera_link", "camera_color_frame"),
        ("camera_color_frame", "camera_color_optical_frame"),
    ]


def test_humble_can_read_the_format(robot_bag: Path) -> None:
    # Version 9 writes QoS profiles as YAML maps, which Humble's reader refuses.
    assert BAG_VERSION == 8
    assert re.search(r'offered_qos_profiles: "- ', (robot_bag / "metadata.yaml").read_text())


def test_an_existing_bag_is_not_overwritten(robot_scene: Path, robot_bag: Path) -> None:
    before = sorted((file.name, file.stat().st_mtime_ns) for file in robot_bag.iterdir())
    with pytest.raises(DataError, match="exists already"):
        bag_from_dataset(robot_scene, robot_bag)
    assert before == sorted((file.name, file.stat().st_mtime_ns) for file in robot_bag.iterdir())


def test_an_unknown_storage_is_named(robot_scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown storage 'zip'; choose one of mcap, sqlite3"):
        bag_from_dataset(robot_scene, tmp_path / "bag", storage="zip")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, storage: str) -> None:
    scene = write_scene(tmp_path / "scene", robot=True)
    (scene / "seq-02" / "frame-000003.color.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"frame-000003\.color\.png"):
        bag_from_dataset(scene, tmp_path / "bag", storage=storage)
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_playing_delivers_everything_once(robot_scene: Path, tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    count = bag_from_dataset(robot_scene, bag, storage=storage)
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    with ros_node() as node:
        received = {
            realsense.COLOR_IMAGE: collect(node, Image, realsense.COLOR_IMAGE),
            realsense.COLOR_INFO: collect(node, CameraInfo, realsense.COLOR_INFO),
            realsense.DEPTH_IMAGE: collect(node, Image, realsense.DEPTH_IMAGE),
            realsense.DEPTH_INFO: collect(node, CameraInfo, realsense.DEPTH_INFO),
            "/tf": collect(node, TFMessage, "/tf"),
            "/tf_static": collect(node, TFMessage, "/tf_static", LATCHED),
        }
        unacknowledged = collect(node, Image, realsense.COLOR_IMAGE, best_effort)
        clock = collect(node, Clock, "/clock", best_effort)
        with NodeProcess(
            "bag_player", bag=bag, rate=2.0, wait_for_subscriber=realsense.COLOR_IMAGE
        ) as player:
            assert player.wait() == 0
        expected = read(bag)
        assert wait_until(lambda: len(received["/tf"]) == len(expected["/tf"]), 2.0), player.log
    assert re.search(rf"played {count} messages in \d+\.\d s", player.log)
    for topic, messages in expected.items():
        assert len(received[topic]) == len(messages), topic
    assert len(unacknowledged) >= 1.5 * FRAMES  # of twice that; without the DDS profile most are lost
    for name in (realsense.COLOR_IMAGE, realsense.COLOR_INFO, realsense.DEPTH_IMAGE, realsense.DEPTH_INFO):
        assert [header_stamp(message) for message in received[name]] == [
            header_stamp(message) for _, message in expected[name]
        ]
    for message, (_, recorded) in zip(
        received[realsense.COLOR_IMAGE], expected[realsense.COLOR_IMAGE], strict=True
    ):
        np.testing.assert_array_equal(rgb_array(message).ravel(), recorded.data)
    ticks = [tick.clock.sec * NANOSECONDS + tick.clock.nanosec for tick in clock]
    assert len(ticks) > 50
    assert ticks == sorted(ticks)


def test_late_subscribers_still_get_the_static_transforms(robot_bag: Path) -> None:
    with (
        NodeProcess("bag_player", bag=robot_bag, loop="true", start_delay=0.0) as player,
        ros_node() as node,
    ):
        images = collect(node, Image, realsense.COLOR_IMAGE)
        assert wait_until(lambda: images), player.log
        static = collect(node, TFMessage, "/tf_static", LATCHED)
        assert wait_until(lambda: static), player.log

        def fell_back() -> bool:
            stamps = [header_stamp(message) for message in images]
            return stamps != sorted(stamps)

        assert wait_until(fell_back), "the bag was not started again"
        player.interrupt(signal.SIGTERM)
        assert player.wait() == 0
    assert "Traceback" not in player.log


def test_a_type_that_is_not_installed_is_skipped_with_a_warning(tmp_path: Path) -> None:
    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(get_types_from_msg("int32 number", "elsewhere_msgs/msg/Count"))
    with Writer(tmp_path / "bag", version=8) as writer:
        for topic, kind, message in (
            ("/count", "elsewhere_msgs/msg/Count", types.types["elsewhere_msgs/msg/Count"](7)),
            ("/text", "std_msgs/msg/String", types.types["std_msgs/msg/String"]("hello")),
        ):
            connection = writer.add_connection(topic, kind, typestore=types)
            writer.write(connection, NANOSECONDS, types.serialize_cdr(message, kind))
    with NodeProcess("bag_player", bag=tmp_path / "bag", start_delay=0.0) as player:
        assert player.wait() == 0
    assert player.log.count("elsewhere_msgs/msg/Count is not installed") == 1
    assert "played 1 messages" in player.log


def damaged(folder: Path, kind: str, bag: Path) -> Path:
    """A path that is no good bag, of a kind."""
    path = folder / kind
    if kind == "empty_folder":
        path.mkdir()
    elif kind == "ros1.bag":
        path.write_bytes(b"#ROSBAG V2.0\n")
    elif kind == "truncated.mcap":
        content = next(bag.glob("*.mcap")).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty.db3":
        sqlite3.connect(path).close()
        path.touch()
    return path


@pytest.mark.parametrize("kind", ["missing", "empty_folder", "ros1.bag", "truncated.mcap", "empty.db3"])
def test_a_bag_that_cannot_be_played_is_named(tmp_path: Path, robot_bag: Path, kind: str) -> None:
    path = damaged(tmp_path, kind, robot_bag)
    with NodeProcess("bag_player", bag=path) as player:
        assert player.wait() == 1
    assert player.log.count("\n") == 1, player.log
    assert "[FATAL]" in player.log
    assert f"{path}: " in player.log


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({}, "bag is '': it must be a recording"),
        ({"rate": 0.0}, "rate is 0.0: it must be above 0"),
        ({"rate": 2}, "parameter rate must be a float"),
        ({"wait_for_subscriber": "/nothing"}, "name one of .*/tf_static"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(
    robot_bag: Path, parameters: dict[str, Any], cause: str
) -> None:
    bag = {"bag": robot_bag} if parameters else {}
    with NodeProcess("bag_player", **bag, **parameters) as player:
        assert player.wait() == 1
    assert re.search(cause, player.log)
    assert "Traceback" not in player.log
