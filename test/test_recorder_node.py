"""The recorder node over real DDS."""

import ast
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import Log
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from ros_helpers import ROOT, NodeProcess, collect, image_message, ros_node, spinning, wait_until
from rosbags.interfaces import ConnectionExtRosbag2, QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger
from test_recorder_sharpness import scene
from test_recording_writer import contents, small_disc  # noqa: F401 a fixture
from tf2_msgs.msg import TFMessage

from ofvl_core.errors import ConfigError, DataError
from ofvl_core.recording import writer
from ofvl_core.recording.repair import repair
from ofvl_ros import recorder_inputs, recorder_node, recorder_states
from ofvl_ros.recorder_node import LATCHED, RecorderNode
from ofvl_ros.recorder_parameters import PARAMETERS, TRANSPORTS, sources

RELIABLE = QoSProfile(depth=100)
HOLDS = DurabilityPolicy.TRANSIENT_LOCAL
BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
PIXELS = cv2.resize(scene(), (64, 48), interpolation=cv2.INTER_AREA)
PERIOD = 33_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_node, "LOOK_PERIOD", 0.05)
    monkeypatch.setattr(recorder_node, "STATUS_PERIOD", 0.1)
    monkeypatch.setattr(recorder_node, "MISSING", 0.5)


class Robot:
    """Publishes a robot's topics and hears what the recorder says."""

    def __init__(self, node: Node, recorder: RecorderNode) -> None:
        self.node, self.recorder = node, recorder
        self._publishers: dict[str, Any] = {}
        self._number = 0
        self.statuses: list[DiagnosticStatus] = collect(node, DiagnosticStatus, "recorder/status", LATCHED)
        self.diagnostics: list[DiagnosticArray] = collect(node, DiagnosticArray, "/diagnostics")
        latched = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._log: list[Log] = collect(node, Log, "/rosout", latched)

    @property
    def log(self) -> str:
        return "\n".join(entry.msg for entry in self._log)

    @property
    def state(self) -> str:
        """The newest state told."""
        return self.facts["state"] if self.statuses else ""

    @property
    def facts(self) -> dict[str, str]:
        """The newest status."""
        return {pair.key: pair.value for pair in self.statuses[-1].values}

    def offer(self, topic: str, kind: type, qos: QoSProfile = RELIABLE) -> None:
        """Have a publisher that the recorder hears."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self._publishers[topic] = publisher
        assert wait_until(lambda: publisher.get_subscription_count() == 1, 10), topic

    def publish(self, topic: str, message: Any) -> bytes:
        """Publish a message; its bytes."""
        data = serialize_message(message)
        self._publishers[topic].publish(data)
        return bytes(data)

    def image(self, topic: str = "image", pixels: Any = PIXELS) -> bytes:
        """Publish the next image; its bytes."""
        self._number += 1
        return self.publish(topic, image_message(pixels, stamp=self._number * PERIOD))

    def count(self, topic: str = "/image") -> int:
        """How many messages of a topic the recorder has received for this bag."""
        inputs = self.recorder._inputs.values()
        return next(one.stream.messages for one in inputs if one.topic.name == topic)

    def recorded(self, count: int, topic: str = "/image") -> bool:
        """Whether the recorder gets to so many messages of a topic."""
        return wait_until(lambda: self.count(topic) >= count, 10)

    def flow_until(self, condition: Callable[[], Any], *topics: str) -> bool:
        """Whether the condition comes true while images flow on these topics."""

        def step() -> bool:
            for topic in topics:
                self.image(topic)
            return bool(condition())

        return wait_until(lambda: step() or time.sleep(0.01), 20)

    def call(self, service: str) -> tuple[bool, dict[str, Any]]:
        """Success and answer of one of the recorder's services."""
        client = self.node.create_client(Trigger, f"recorder/{service}")
        assert client.wait_for_service(10.0)
        future = client.call_async(Trigger.Request())
        assert wait_until(future.done)
        return future.result().success, json.loads(future.result().message)


@contextmanager
def recording(folder: Path, **parameters: Any) -> Iterator[Robot]:
    """The recorder under test, and a robot for it, in a context of their own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {"output": str(folder), "min_free_space": 0.0, "required": "image"} | parameters
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    try:
        with ExitStack() as nodes:
            recorder = RecorderNode(context=context, parameter_overrides=overrides)
            nodes.callback(recorder.destroy_node)
            other = Node("robot", context=context)
            nodes.callback(other.destroy_node)
            robot = Robot(other, recorder)
            with spinning(recorder, other):
                yield robot
    finally:
        context.try_shutdown()


def of_topic(bag: Path, topic: str) -> list[bytes]:
    return [data for name, _, data in contents(bag) if name == topic]


def static(*children: str) -> TFMessage:
    return TFMessage(transforms=[TransformStamped(child_frame_id=child) for child in children])


# ------------------------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_topic_is_recorded_byte_for_byte(tmp_path: Path, storage: str) -> None:
    kinds = {
        "image": (Image, BEST_EFFORT),
        "camera_info": (CameraInfo, RELIABLE),
        "depth": (Image, RELIABLE),
        "depth_camera_info": (CameraInfo, RELIABLE),
        "velodyne_points": (PointCloud2, BEST_EFFORT),
        "imu": (Imu, BEST_EFFORT),
        "/tf": (TFMessage, RELIABLE),
        "/tf_static": (TFMessage, LATCHED),
    }
    sent: dict[str, list[bytes]] = {}
    with recording(tmp_path, storage=storage) as robot:
        for topic, (kind, qos) in kinds.items():
            robot.offer(topic, kind, qos)
        for number in range(5):
            for topic, (kind, _) in kinds.items():
                if topic == "/tf_static" and number:
                    continue
                message = PIXELS if kind is Image else kind()
                data = robot.image(topic) if message is PIXELS else robot.publish(topic, message)
                sent.setdefault(f"/{topic.lstrip('/')}", []).append(data)
                time.sleep(0.005)  # best effort is taken at its word
        for topic, messages in sent.items():
            assert robot.recorded(len(messages), topic), topic
        success, answer = robot.call("stop")
    assert success and answer["messages"] == sum(map(len, sent.values()))
    bag = tmp_path / "recording_001"
    assert Path(answer["bag"]) == bag
    for topic, messages in sent.items():
        assert of_topic(bag, topic) == messages, topic
    with Reader(bag) as reader:
        offered = {
            connection.topic: connection.ext.offered_qos_profiles[0]
            for connection in reader.connections
            if isinstance(connection.ext, ConnectionExtRosbag2)
        }
    assert offered["/image"].reliability == QosReliability.BEST_EFFORT
    assert offered["/depth"].reliability == QosReliability.RELIABLE
    assert offered["/tf_static"].durability == QosDurability.TRANSIENT_LOCAL
    assert offered["/tf"].durability == QosDurability.VOLATILE


def test_compressed_topics_are_recorded_under_their_names(tmp_path: Path) -> None:
    with recording(tmp_path, image_transport="compressed", depth_transport="compressed") as robot:
        for topic in ("image/compressed", "depth/compressedDepth"):
            robot.offer(topic, CompressedImage)
            robot.publish(topic, CompressedImage(format="jpeg", data=b"not one"))
            assert robot.recorded(1, f"/{topic}")
        assert wait_until(lambda: "is not a whole JPEG" in robot.log)
    topics = {topic for topic, _, _ in contents(tmp_path / "recording_001")}
    assert topics == {"/image/compressed", "/depth/compressedDepth"}


def test_a_late_publisher_that_offers_less_is_heard_as_well(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        robot.offer("image", Image, RELIABLE)
        robot.image()
        assert robot.recorded(1)
        robot.offer("image", Image, BEST_EFFORT)  # waits until it has a subscriber
        assert wait_until(lambda: "subscribed anew" in robot.log)
        before = robot.count()
        assert robot.flow_until(lambda: robot.count() > before + 2, "image")


def test_what_was_latched_before_is_heard_beside_a_volatile_publisher(tmp_path: Path) -> None:
    with ros_node("earlier") as node:
        volatile = node.create_publisher(TFMessage, "/tf_static", RELIABLE)
        latched = node.create_publisher(TFMessage, "/tf_static", QoSProfile(depth=10, durability=HOLDS))
        lidar, camera, imu = (bytes(serialize_message(static(child))) for child in ("lidar", "camera", "imu"))
        latched.publish(lidar)
        latched.publish(camera)
        with recording(tmp_path) as robot:
            assert robot.recorded(2, "/tf_static")
            assert wait_until(volatile.get_subscription_count)  # nobody keeps what it says before
            assert wait_until(lambda: "/tf_static: a publisher offers less" in robot.log)
            assert wait_until(
                lambda: volatile.publish(imu) or robot.recorder._prologue.connects("", "imu"), 10
            )
            assert robot.call("stop")[0]
    assert set(of_topic(tmp_path / "recording_001", "/tf_static")) == {lidar, camera, imu}


def test_a_bag_holds_what_all_known_publishers_offer(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        robot.offer("image", Image, BEST_EFFORT)
        robot.node.create_publisher(Image, "image", RELIABLE)
        assert wait_until(lambda: len(robot.recorder._inputs["image"].topic.offered) == 2)
        assert robot.flow_until(robot.count, "image")
    with Reader(tmp_path / "recording_001") as reader:
        (image,) = [connection for connection in reader.connections if connection.topic == "/image"]
        assert isinstance(image.ext, ConnectionExtRosbag2)
        reliabilities = {offer.reliability for offer in image.ext.offered_qos_profiles}
    assert reliabilities == {QosReliability.BEST_EFFORT, QosReliability.RELIABLE}


# ------------------------------------------------------------------------------------------------------- bags


def test_a_split_loses_nothing_and_each_bag_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_inputs, "FRESH", 1e6)
    with recording(tmp_path, name="hall") as robot:
        robot.offer("/tf_static", TFMessage, LATCHED)
        robot.offer("camera_info", CameraInfo)
        robot.offer("image", Image)
        robot.publish("/tf_static", static("lidar"))
        robot.publish("/tf_static", static("camera"))
        both = robot.publish("/tf_static", static("camera", "lidar"))
        other = robot.publish("/tf_static", static("imu"))
        info = robot.publish("camera_info", CameraInfo(width=64))
        assert robot.recorded(4, "/tf_static") and robot.recorded(1, "/camera_info")
        robot.call("mark_test")
        sent = []
        for number in range(300):
            sent.append(robot.image())
            time.sleep(0.001)
            if number in (100, 200):
                success, answer = robot.call("split")
                assert success and answer["bag"] == str(tmp_path / f"hall_00{number // 100 + 1}")
        assert wait_until(lambda: robot.recorder._inputs["image"].newest == sent[-1])
        assert robot.call("stop")[0]
    bags = [tmp_path / f"hall_00{number}" for number in (1, 2, 3)]
    assert [data for bag in bags for data in of_topic(bag, "/image")] == sent
    for bag in bags[1:]:
        assert len(of_topic(bag, "/image")) > 50
        assert of_topic(bag, "/tf_static") == [both, other]
        assert of_topic(bag, "/camera_info") == [info]
        (mark,) = of_topic(bag, "/ofvl/mark")
        assert b"test" in mark
        assert [topic for topic, _, _ in contents(bag)][:4] == [
            *("/tf_static", "/tf_static", "/camera_info", "/ofvl/mark")
        ]


def test_old_intrinsics_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_inputs, "FRESH", 0.0)
    with recording(tmp_path) as robot:
        robot.offer("/tf_static", TFMessage, LATCHED)
        robot.offer("camera_info", CameraInfo)
        robot.publish("/tf_static", static("lidar"))
        robot.publish("camera_info", CameraInfo(width=64))
        assert robot.recorded(1, "/tf_static") and robot.recorded(1, "/camera_info")
        assert robot.call("split")[0]
        live = robot.publish("camera_info", CameraInfo(width=128))
        assert robot.recorded(1, "/camera_info")
    recorded = contents(tmp_path / "recording_002")
    assert [topic for topic, _, _ in recorded] == ["/tf_static", "/camera_info"]
    assert recorded[1][2] == live


def test_start_stop_and_marks(tmp_path: Path) -> None:
    with recording(tmp_path, autostart=False) as robot:
        marks: list[String] = collect(robot.node, String, "/ofvl/mark", LATCHED)
        robot.offer("image", Image)
        robot.image()
        assert robot.recorded(1) and not list(tmp_path.iterdir())
        assert wait_until(lambda: robot.state == "idle")
        assert robot.call("stop") == (False, {"reason": "nothing is being recorded: ~/start begins"})
        assert robot.call("mark_train")[0]
        assert robot.call("start")[0]
        success, answer = robot.call("start")
        assert not success and "~/split" in answer["reason"]
        sent = robot.image()
        assert robot.recorded(1)
        assert robot.call("mark_test")[0]
        assert robot.call("stop")[0]
        assert robot.call("start")[0] and robot.call("stop")[0]
        assert wait_until(lambda: [mark.data for mark in marks] == ["train", "test"])
    recorded = [(topic, data) for topic, _, data in contents(tmp_path / "recording_001")]
    assert [topic for topic, _ in recorded] == ["/ofvl/mark", "/image", "/ofvl/mark"]
    assert recorded[1][1] == sent and b"train" in recorded[0][1] and b"test" in recorded[2][1]


def test_a_bag_into_which_nothing_came_is_removed_and_said(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        assert robot.call("stop")[0]
        assert wait_until(lambda: "recording_001 is removed: no message came" in robot.log)
    assert not list(tmp_path.iterdir())


def test_existing_bags_stay(tmp_path: Path) -> None:
    (tmp_path / "recording_007").mkdir()
    with recording(tmp_path) as robot:
        assert robot.call("stop")[1]["bag"].endswith("recording_008")


def test_a_recorder_that_cannot_begin_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another folder"), recording(tmp_path / "file"):
        pass
    with (
        pytest.raises(ConfigError, match="required is 'lidar': it must be some of image, "),
        recording(tmp_path, required="lidar"),
    ):
        pass


# ----------------------------------------------------------------------------------------------------- status


def test_the_status_tells_rates_and_that_all_is_well(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        robot.offer("image", Image)
        assert robot.flow_until(
            lambda: robot.state == "recording" and robot.facts["sharpness"] > "0.1", "image"
        )
        facts = robot.facts
        assert float(facts["image (Hz)"]) > 1 and int(facts["image (total)"]) > 1
        assert (facts["image (dropped)"], facts["image (gaps)"], facts["dropped"]) == ("0", "0", "0")
        assert facts["bag"] == str(tmp_path / "recording_001")
        assert robot.statuses[-1].name == "recorder: recording"
        assert wait_until(lambda: robot.diagnostics)


def test_a_topic_that_never_comes_is_named(tmp_path: Path) -> None:
    with recording(tmp_path, required="image depth velodyne_points") as robot:
        robot.offer("image", Image)
        robot.offer("velodyne_points", PointCloud2)
        assert wait_until(lambda: robot.state == "no data")
        assert robot.flow_until(lambda: robot.state == "topic missing", "image")
        reason = robot.statuses[-1].message
        assert "/depth never came: nobody publishes it, start the sensor or remap 'depth'" in reason
        assert "/velodyne_points never came: its publisher sends nothing that gets here" in reason
        assert "/imu" not in reason


def test_static_transforms_can_be_required(tmp_path: Path) -> None:
    with recording(tmp_path, required="/tf_static") as robot:
        robot.offer("image", Image)
        assert robot.flow_until(lambda: robot.state == "topic missing", "image")
        assert "/tf_static never came: nobody publishes it" in robot.statuses[-1].message
        robot.offer("/tf_static", TFMessage, LATCHED)
        robot.publish("/tf_static", static("lidar"))
        assert robot.flow_until(lambda: robot.state == "recording", "image")


def test_a_lidar_that_no_transform_leads_to_is_told(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        robot.offer("image", Image)
        robot.offer("velodyne_points", PointCloud2)
        cloud = PointCloud2()
        cloud.header.frame_id = "velodyne"

        def tells(state: str) -> bool:
            robot.publish("image", image_message(PIXELS, frame="/optical"))
            robot.publish("velodyne_points", cloud)
            return robot.state == state

        assert wait_until(lambda: tells("no transform"), 10)
        assert robot.statuses[-1].level == DiagnosticStatus.WARN
        assert "/tf_static does not lead from /optical to velodyne" in robot.statuses[-1].message
        robot.offer("/tf_static", TFMessage, LATCHED)
        robot.publish("/tf_static", static("optical"))
        robot.publish("/tf_static", static("velodyne"))
        assert robot.recorded(2, "/tf_static")
        assert wait_until(lambda: tells("recording"), 10)


def test_a_static_transform_that_is_no_rotation_is_recorded_all_the_same(tmp_path: Path) -> None:
    broken = static("lidar")
    broken.transforms[0].transform.rotation.w = 0.0
    with recording(tmp_path) as robot:
        robot.offer("/tf_static", TFMessage, LATCHED)
        sent = robot.publish("/tf_static", broken)
        assert robot.recorded(1, "/tf_static")
        assert not robot.recorder._prologue.connects("", "lidar")
    assert of_topic(tmp_path / "recording_001", "/tf_static") == [sent]


def test_a_topic_of_another_type_is_named(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        robot.node.create_publisher(CompressedImage, "image", 1)
        carried = "/image never came: it carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image"
        assert wait_until(lambda: carried in robot.log)


def test_a_sensor_that_dies_is_named_and_welcomed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_states, "SILENCE", 0.4)
    with recording(tmp_path) as robot:
        robot.offer("image", Image)
        robot.offer("depth", Image)
        assert robot.flow_until(lambda: robot.state == "recording", "image", "depth")
        assert robot.flow_until(lambda: robot.state == "sensor silent", "image")
        assert "/depth is silent for" in robot.statuses[-1].message
        assert robot.flow_until(lambda: robot.state == "recording", "image", "depth")
        assert wait_until(lambda: "/depth is back after" in robot.log)


def test_dropped_messages_are_told(tmp_path: Path) -> None:
    with recording(tmp_path, queue_size=0.001) as robot:
        robot.offer("image", Image)
        assert robot.flow_until(lambda: robot.state == "losing messages", "image")
        assert int(robot.facts["dropped"]) >= int(robot.facts["image (dropped)"]) > 0


def test_poor_images_are_told(tmp_path: Path) -> None:
    with recording(tmp_path) as robot:
        robot.offer("image", Image)
        black = np.zeros_like(PIXELS)
        assert wait_until(lambda: robot.image(pixels=black) and robot.state == "poor images", 10)
        assert "of the image is black" in robot.log


def test_a_full_disc_ends_the_bag_once(small_disc: Path) -> None:  # noqa: F811 the fixture
    with recording(small_disc / "bags", min_free_space=4.0) as robot:
        robot.offer("image", Image)
        large = scene()

        def show() -> bool:
            robot.image(pixels=large)
            time.sleep(0.2)  # or it would be full within the second between two looks
            return robot.state == "disc full"

        assert wait_until(show, 20)
        assert wait_until(lambda: "free some space, then start again" in robot.statuses[-1].message)
        assert wait_until(lambda: "free some space, then start again" in robot.log)
        success, answer = robot.call("start")
        assert not success and "free some space first" in answer["reason"]
        assert robot.log.count("free some space, then start again") == 1
        assert of_topic(small_disc / "bags" / "recording_001", "/image")
        shutil.rmtree(small_disc / "bags" / "recording_001")
        assert robot.call("start")[0]
        assert robot.flow_until(lambda: robot.state == "recording", "image")


def test_a_folder_that_is_removed_is_told_and_the_node_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FLUSH_PERIOD", 0.05)
    with recording(tmp_path / "bags") as robot:
        robot.offer("image", Image)
        assert robot.flow_until(lambda: robot.state == "recording", "image")
        shutil.rmtree(tmp_path / "bags")
        assert robot.flow_until(lambda: robot.state == "failed", "image")
        assert robot.statuses[-1].level == DiagnosticStatus.ERROR
        assert "is gone, removed or its disc unmounted" in robot.statuses[-1].message
        assert robot.call("start")[0]
        assert robot.flow_until(lambda: robot.state == "recording", "image")
    assert of_topic(tmp_path / "bags" / "recording_001", "/image")


# ---------------------------------------------------------------------------------------------------- process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_bag(tmp_path: Path, number: signal.Signals) -> None:
    with ros_node("robot") as node, NodeProcess("recorder", output=tmp_path) as process:
        publisher = node.create_publisher(Image, "image", RELIABLE)
        assert wait_until(lambda: publisher.get_subscription_count(), 20), process.log
        for stamp in range(1, 6):
            publisher.publish(image_message(PIXELS, stamp=stamp))
        assert publisher.wait_for_all_acked()
        assert wait_until(lambda: "recording" in process.log)
        time.sleep(0.5)  # acknowledged is not yet taken by the node
        process.interrupt(number)
        assert process.wait() == 0, process.log
    assert "recording_001 is closed" in process.log
    assert "Failed" not in process.log
    assert len(of_topic(tmp_path / "recording_001", "/image")) == 5


def test_a_killed_recorder_leaves_what_it_had(tmp_path: Path) -> None:
    with ros_node("robot") as node, NodeProcess("recorder", output=tmp_path) as process:
        publisher = node.create_publisher(Image, "image", RELIABLE)
        assert wait_until(lambda: publisher.get_subscription_count(), 20), process.log
        publisher.publish(image_message(PIXELS, stamp=1))
        file = tmp_path / "recording_001" / "recording_001.mcap"
        assert wait_until(lambda: file.stat().st_size > PIXELS.size, 10)
        process.interrupt(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    result = repair(tmp_path / "recording_001")
    assert result is not None and result.messages == 1


# ------------------------------------------------------------------------------------------------ launch file


def test_the_launch_file_fits_the_node() -> None:
    tree = ast.parse((ROOT / "launch" / "record.launch.py").read_text())
    dictionaries = {
        ast.unparse(node.targets[0]): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    for key, value in zip(dictionaries["OVERRIDES"].keys, dictionaries["OVERRIDES"].values, strict=True):
        assert isinstance(key, ast.Constant) and isinstance(value, ast.Tuple)
        assert ast.unparse(value.elts[0]) == type(PARAMETERS[key.value].default).__name__
    remapped = {key.value for key in dictionaries["topics"].keys if isinstance(key, ast.Constant)}
    recorded = {source.name for transport in TRANSPORTS for source in sources(transport, transport).values()}
    assert remapped == recorded
