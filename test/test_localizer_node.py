"""The localizer node over real DDS."""

import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_helpers import (
    NANOSECONDS,
    ROOT,
    NodeProcess,
    camera_info_message,
    collect,
    image_message,
    ros_node,
    spinning,
    time_message,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster

from ofvl_core.camera import Camera
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.images import read_color
from ofvl_core.errors import CheckpointError, ConfigError, OfvlError
from ofvl_core.geometry import Array, invert, transform
from ofvl_core.localizer import Localizer
from ofvl_ros import frames, localizer_node
from ofvl_ros.localizer_node import PARAMETERS, LocalizerNode
from ofvl_ros.messages import matrix, transform_stamped
from ofvl_ros.newest import NewestWorker

OPTICAL = "camera_color_optical_frame"
BASE_FROM_OPTICAL = transform((0.1, 0.02, 0.6), (-0.5, 0.5, -0.5, 0.5))


class View:
    """An image that the tiny model can localize, and where it then says that it was taken."""

    def __init__(self, localizer: Localizer, scene_root: Path) -> None:
        scene = load_scene(scene_root)
        self.scene, self.camera = scene.name, scene.camera
        for frame in [*scene.splits["test"], *scene.splits["train"]]:
            self.pixels = read_color(frame.color)
            localization = localizer.localize(self.pixels, self.camera, self.scene)
            if localization.world_from_camera is not None:
                self.map_from_camera: Array = localization.world_from_camera
                return
        pytest.fail(f"the tiny model localizes no image of {scene_root}")

    def message(self, stamp: int = NANOSECONDS, **changes: Any) -> Image:
        return image_message(changes.pop("pixels", self.pixels), stamp=stamp, frame=OPTICAL, **changes)


@pytest.fixture(scope="module")
def views(tiny_checkpoint: Path, tiny_scenes: list[Path]) -> dict[str, View]:
    """A view of each scene, by scene."""
    localizer = Localizer(tiny_checkpoint, "cpu")
    return {view.scene: view for view in (View(localizer, root) for root in tiny_scenes)}


class FakeCamera:
    """Publishes a camera's topics and hears all that the node under test says."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.images = node.create_publisher(Image, "image", 10)
        self.infos = node.create_publisher(CameraInfo, "camera_info", 10)
        self.static = StaticTransformBroadcaster(node)
        self.poses: list[PoseStamped] = collect(node, PoseStamped, "pose")
        self.transforms: list[TFMessage] = collect(node, TFMessage, "/tf")
        latched = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._log: list[Log] = collect(node, Log, "/rosout", latched)

    @property
    def log(self) -> str:
        return "\n".join(entry.msg for entry in self._log)

    def publish_until(self, condition: Any, image: Image, camera: Camera | None) -> bool:
        """Whether the condition comes true while the image is published, with the camera's info if given."""

        def publish_and_check() -> bool:
            if camera is not None:
                self.infos.publish(camera_info_message(camera))
            self.images.publish(image)
            return wait_until(condition, 0.1)

        return wait_until(publish_and_check)

    def set_scene(self, scene: str) -> tuple[bool, str]:
        """Whether the node took the scene, and its reason if not."""
        client = self.node.create_client(SetParameters, "localizer/set_parameters")
        assert client.wait_for_service(10.0)
        parameter = Parameter("scene", value=scene).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        assert wait_until(future.done)
        (result,) = future.result().results
        return result.successful, result.reason


@contextmanager
def running(checkpoint: Path, /, **parameters: Any) -> Iterator[FakeCamera]:
    """The node under test, and a camera for it, in a context of their own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {"checkpoint": str(checkpoint), "device": "cpu", "base_frame": "", **parameters}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    try:
        node = LocalizerNode(context=context, parameter_overrides=overrides)
        other = Node("camera", context=context)
        with spinning(node, other):
            yield FakeCamera(other)
        node.destroy_node()
        other.destroy_node()
    finally:
        context.try_shutdown()


def pose_matrix(message: PoseStamped) -> Array:
    position, rotation = message.pose.position, message.pose.orientation
    return transform((position.x, position.y, position.z), (rotation.x, rotation.y, rotation.z, rotation.w))


def test_an_image_becomes_a_pose(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        image = view.message(stamp=123_456_789_012)
        assert camera.publish_until(lambda: camera.poses, image, view.camera), camera.log
    pose = camera.poses[0]
    assert pose.header.stamp == time_message(123_456_789_012)
    assert pose.header.frame_id == "map"
    np.testing.assert_allclose(pose_matrix(pose), view.map_from_camera, atol=1e-6)


def test_the_scene_switches_while_images_flow(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    stop = threading.Event()
    first, second = views["room_1"], views["room_2"]
    stamps = {first.scene: 1 * NANOSECONDS, second.scene: 2 * NANOSECONDS}

    with running(tiny_checkpoint, scene="room_1", publish_tf=False) as camera:

        def flow() -> None:
            while not stop.is_set():
                for view in (first, second):
                    camera.infos.publish(camera_info_message(view.camera))
                    camera.images.publish(view.message(stamps[view.scene]))
                    stop.wait(0.1)

        def seen(view: View) -> bool:
            """Whether the view was localized in its own scene; in the other it lands elsewhere or nowhere."""
            return any(
                pose.header.stamp == time_message(stamps[view.scene])
                and np.allclose(pose_matrix(pose), view.map_from_camera, atol=1e-6)
                for pose in list(camera.poses)
            )

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            assert wait_until(lambda: seen(first)), camera.log
            assert not seen(second)
            assert camera.set_scene("room_2") == (True, "")
            camera.poses.clear()
            assert wait_until(lambda: seen(second)), camera.log
            assert not seen(first)
        finally:
            stop.set()
            thread.join()


def test_an_unknown_scene_is_refused_and_the_old_one_stays(
    tiny_checkpoint: Path, views: dict[str, View]
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        taken, reason = camera.set_scene("kitchen")
        assert not taken
        assert all(word in reason for word in ("'kitchen'", "room_1", "room_2"))
        assert camera.publish_until(lambda: camera.poses, view.message(), view.camera), camera.log
    np.testing.assert_allclose(pose_matrix(camera.poses[0]), view.map_from_camera, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda image: setattr(image, "encoding", "yuv422"), "encoding 'yuv422' is not supported"),
        (lambda image: setattr(image, "data", image.data[:-7]), "cut short"),
        (lambda image: setattr(image, "width", 0), "image is empty"),
    ],
)
def test_a_bad_image_is_named_and_the_next_served(
    tiny_checkpoint: Path, views: dict[str, View], spoil: Any, cause: str
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        bad = view.message()
        spoil(bad)
        assert camera.publish_until(lambda: cause in camera.log, bad, view.camera), camera.log
        assert not camera.poses
        assert camera.publish_until(lambda: camera.poses, view.message(), view.camera), camera.log


def test_an_image_of_another_size_than_its_camera_info_is_named(
    tiny_checkpoint: Path, views: dict[str, View]
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        half = view.message(pixels=np.ascontiguousarray(view.pixels[::2, ::2]))
        sizes = f"image is {half.width}x{half.height} but .* {view.camera.width}x{view.camera.height}"
        assert camera.publish_until(lambda: re.search(sizes, camera.log), half, view.camera), camera.log
        assert camera.publish_until(lambda: camera.poses, view.message(), view.camera), camera.log


def test_an_uncalibrated_camera_is_named(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:

        def named() -> bool:
            camera.infos.publish(CameraInfo(width=view.camera.width, height=view.camera.height))
            return "camera intrinsics are not set" in camera.log

        assert camera.publish_until(named, view.message(), None), camera.log


def test_images_without_camera_info_wait_for_it(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        hint = "no camera_info on /camera_info: remap 'camera_info'"
        assert camera.publish_until(lambda: hint in camera.log, view.message(), None), camera.log
        assert camera.publish_until(lambda: camera.poses, view.message(), view.camera), camera.log


def test_the_pose_is_the_bases_once_tf_tells(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, base_frame="base_link", transform_timeout=0.05) as camera:
        hint = r"tf does not lead from 'camera_color_optical_frame' to 'base_link'.*set base_frame to ''"
        assert camera.publish_until(lambda: re.search(hint, camera.log), view.message(), view.camera), (
            camera.log
        )
        assert not camera.poses
        camera.static.sendTransform(
            transform_stamped(BASE_FROM_OPTICAL, "base_link", OPTICAL, time_message(0))
        )
        assert camera.publish_until(lambda: camera.poses, view.message(), view.camera), camera.log
    map_from_base = view.map_from_camera @ invert(BASE_FROM_OPTICAL)
    np.testing.assert_allclose(pose_matrix(camera.poses[0]), map_from_base, atol=1e-6)


def test_the_map_is_broadcast_above_the_cameras_root(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "EXAMINE_PERIOD", 0.1)
    monkeypatch.setattr(frames, "SETTLE_TIME", 0.5)
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        camera.static.sendTransform(
            transform_stamped(BASE_FROM_OPTICAL, "camera_link", OPTICAL, time_message(0))
        )
        image = view.message(stamp=5 * NANOSECONDS)
        assert camera.publish_until(lambda: camera.transforms, image, view.camera), camera.log
    (broadcast,) = camera.transforms[0].transforms
    assert (broadcast.header.frame_id, broadcast.child_frame_id) == ("map", "camera_link")
    assert broadcast.header.stamp == image.header.stamp
    np.testing.assert_allclose(
        matrix(broadcast.transform), view.map_from_camera @ invert(BASE_FROM_OPTICAL), atol=1e-6
    )


def test_tf_can_be_left_to_others(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "SETTLE_TIME", 0.0)
    view = views["room_1"]
    with running(tiny_checkpoint, publish_tf=False) as camera:
        assert camera.publish_until(lambda: len(camera.poses) > 2, view.message(), view.camera), camera.log
    assert not camera.transforms


def test_a_recording_that_starts_again_is_noticed(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        late, early = view.message(stamp=50 * NANOSECONDS), view.message(stamp=10 * NANOSECONDS)
        assert camera.publish_until(lambda: camera.poses, late, view.camera), camera.log
        assert camera.publish_until(
            lambda: camera.poses[-1].header.stamp == early.header.stamp, early, view.camera
        ), camera.log
        assert wait_until(lambda: "stamps jumped back" in camera.log), camera.log


def test_silence_is_reported_with_the_topic(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer_node, "SILENCE", 0.3)
    with running(tiny_checkpoint) as camera:
        assert wait_until(lambda: "no image on /image for 0.3 s: its publisher" in camera.log), camera.log
        camera.node.destroy_publisher(camera.images)
        assert wait_until(lambda: "/image for 0.3 s: nobody publishes it" in camera.log), camera.log


def test_a_publisher_that_cannot_be_heard_is_reported(tiny_checkpoint: Path) -> None:
    with running(tiny_checkpoint, image_qos="reliable") as camera:
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera.node.create_publisher(Image, "image", best_effort)
        assert wait_until(lambda: "set image_qos to best_effort" in camera.log), camera.log


def truncate(checkpoint: Path) -> None:
    weights = next(checkpoint.glob("weights-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (shutil.rmtree, "does not exist"),
        (truncate, "truncated or damaged"),
        (lambda checkpoint: (checkpoint / "manifest.json").unlink(), "is not a checkpoint"),
    ],
)
def test_a_bad_checkpoint_ends_the_process_with_one_line(
    tiny_checkpoint: Path, tmp_path: Path, spoil: Any, cause: str
) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, checkpoint)
    spoil(checkpoint)
    with NodeProcess("localizer_node", checkpoint=checkpoint) as process:
        assert process.wait() == 1
    assert process.log.count("\n") == 1, process.log
    assert "[FATAL]" in process.log
    assert str(checkpoint) in process.log
    assert cause in process.log


@pytest.mark.parametrize(
    ("parameters", "error", "cause"),
    [
        ({"checkpoint": ""}, ConfigError, "no checkpoint is given"),
        ({"checkpoint": "/nowhere"}, CheckpointError, "does not exist"),
        ({"scene": "kitchen"}, OfvlError, "'kitchen'.*room_1, room_2"),
        ({"image_qos": "perfect"}, ConfigError, "best_effort or reliable"),
        ({"device": "tpu"}, ConfigError, "tpu"),
        ({"transform_timeout": "soon"}, ConfigError, "transform_timeout must be a float"),
    ],
)
def test_parameters_that_make_no_sense_are_named(
    tiny_checkpoint: Path, parameters: dict[str, Any], error: type[OfvlError], cause: str
) -> None:
    with pytest.raises(error, match=cause), running(tiny_checkpoint, **parameters):
        pass


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_the_process_ends_cleanly_while_images_flow(
    tiny_checkpoint: Path, views: dict[str, View], signals: list[signal.Signals]
) -> None:
    view = views["room_1"]
    with (
        NodeProcess("localizer_node", checkpoint=tiny_checkpoint, device="cpu", base_frame="''") as process,
        ros_node() as node,
    ):
        camera = FakeCamera(node)
        assert wait_until(lambda: "ready" in process.log, 60.0), process.log
        assert camera.publish_until(lambda: camera.poses, view.message(), view.camera), process.log
        camera.images.publish(view.message())
        for number in signals:
            process.interrupt(number)
        assert process.wait(20.0) == 0
    assert "Traceback" not in process.log
    assert "ERROR" not in process.log


def test_the_parameter_file_documents_what_is_declared(tiny_checkpoint: Path) -> None:
    text = (ROOT / "config" / "localize.yaml").read_text()
    documented = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert documented == {name: spec.default for name, spec in PARAMETERS.items()}
    for name in documented:
        assert re.search(rf"# .*\n    {name}:", text), f"{name} has no comment"
    with running(tiny_checkpoint) as camera:
        client = camera.node.create_client(DescribeParameters, "localizer/describe_parameters")
        assert client.wait_for_service(10.0)
        future = client.call_async(DescribeParameters.Request(names=list(PARAMETERS)))
        assert wait_until(future.done)
        descriptors = {descriptor.name: descriptor for descriptor in future.result().descriptors}
    for name, spec in PARAMETERS.items():
        assert descriptors[name].description == spec.description
        assert descriptors[name].read_only != spec.changeable


def test_the_worker_takes_the_newest_and_counts_the_rest() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        begun.set()
        go_on.wait()
        done.append(item)

    worker: NewestWorker[int] = NewestWorker(work, lambda error: None)
    worker.put(1)
    begun.wait()
    for item in (2, 3, 4):
        worker.put(item)
    go_on.set()
    assert wait_until(lambda: done == [1, 4])
    assert worker.dropped == 2
    worker.close()


def test_the_worker_outlives_what_its_work_raises() -> None:
    failures: list[Exception] = []
    done: list[float] = []
    worker: NewestWorker[int] = NewestWorker(lambda item: done.append(1 / item), failures.append)
    worker.put(0)
    assert wait_until(lambda: failures)
    worker.put(2)
    assert wait_until(lambda: done == [0.5])
    assert isinstance(failures[0], ZeroDivisionError)
    worker.close()
    worker.close()
