"""The localizer node over real DDS."""

import gc
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from localizer_helpers import EASY, OPTICAL, FakeCamera, View, running
from nav_msgs.msg import Path as PathMessage
from processes import catches
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_helpers import (
    NANOSECONDS,
    NodeProcess,
    camera_info_message,
    collect,
    image_message,
    ros_node,
    time_message,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array, invert, transform
from ofvl_core.keyframes import Search
from ofvl_core.localizer import Localization, Localizer
from ofvl_core.recognition import SceneSearch, SearchOptions
from ofvl_ros import frames, inputs, localizer_node, pipeline
from ofvl_ros.messages import matrix, pose_matrix, pose_with_covariance_stamped, transform_stamped
from ofvl_ros.newest import NewestWorker

BASE_FROM_OPTICAL = transform((0.1, 0.02, 0.6), (-0.5, 0.5, -0.5, 0.5))


@pytest.fixture(scope="module")
def views(tiny_checkpoint: Path, tiny_scenes: list[Path]) -> dict[str, View]:
    """A view of each scene, by scene."""
    localizer = Localizer(tiny_checkpoint, "cpu")
    return {view.scene: view for view in (View(localizer, root) for root in tiny_scenes)}


@pytest.fixture
def quick_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "EXAMINE_PERIOD", 0.05)
    monkeypatch.setattr(frames, "SETTLE_TIME", 0.2)


# ---------------------------------------------------------------------------------------- from image to pose


def test_an_image_becomes_a_pose(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        assert camera.localize(view, stamp=123_456_789_012), camera.log
        assert wait_until(lambda: camera.measured)
        assert wait_until(lambda: "localized" in camera.states)
    pose, measured = camera.poses[0], camera.measured[0]
    assert pose.header.stamp.sec >= 123
    assert pose.header.frame_id == measured.header.frame_id == "map"
    np.testing.assert_allclose(pose_matrix(pose.pose), view.map_from_camera, atol=1e-6)
    np.testing.assert_allclose(pose_matrix(measured.pose.pose), view.map_from_camera, atol=1e-6)
    assert np.linalg.eigvalsh(measured.pose.covariance.reshape(6, 6))[0] > 0


def test_poses_need_agreement_before_the_first_is_published(
    tiny_checkpoint: Path, views: dict[str, View]
) -> None:
    with running(tiny_checkpoint, start_fixes=3) as camera:
        assert camera.localize(views["room_1"]), camera.log
        assert wait_until(lambda: "localized" in camera.states)
    before = camera.states[: camera.states.index("localized")]
    assert before.count("starting") >= 3  # one of them from before the first image


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_compressed_images_are_localized(
    tiny_checkpoint: Path, views: dict[str, View], encoding: str
) -> None:
    import cv2

    view = views["room_1"]
    _, data = cv2.imencode(f".{encoding}", view.pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    with running(tiny_checkpoint, image_transport="compressed") as camera:
        publisher = camera.node.create_publisher(CompressedImage, "image/compressed", 10)
        message = CompressedImage(format=encoding, data=data.tobytes())
        message.header.frame_id = OPTICAL
        for second in range(1, 100):
            message.header.stamp = time_message(second * NANOSECONDS)
            camera.infos.publish(camera_info_message(view.camera))
            publisher.publish(message)
            if wait_until(lambda: camera.poses, 0.1):
                break
    assert camera.poses, camera.log
    assert np.linalg.norm(pose_matrix(camera.poses[0].pose)[:3, 3] - view.map_from_camera[:3, 3]) < 0.3


def test_aligned_depth_makes_another_pose(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    scene_depth = view.scene_data.read_depth(view.frame)
    with running(tiny_checkpoint, depth_transport="raw") as camera:
        depths = camera.node.create_publisher(Image, "depth", 10)
        for number in range(1, 100):
            stamp = number * NANOSECONDS
            depth = image_message(scene_depth.view(np.uint8), "16UC1", stamp, OPTICAL)
            depth.width //= 2
            depths.publish(depth)
            camera.infos.publish(camera_info_message(view.camera))
            camera.images.publish(view.message(stamp))
            if wait_until(lambda: camera.poses, 0.2):
                break
    assert camera.poses, camera.log
    pose = pose_matrix(camera.poses[0].pose)
    expected = view.localizer.localize(
        view.pixels, view.camera, view.scene, np.where(scene_depth > 0, scene_depth / 1000, np.nan)
    ).world_from_camera
    np.testing.assert_allclose(pose, expected, atol=1e-5)
    assert np.abs(pose - view.map_from_camera).max() > 1e-4


def test_pictures_are_published_to_those_who_look(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    with running(tiny_checkpoint) as camera:
        received: dict[str, list[Any]] = {
            topic: collect(camera.node, kind, topic, inputs_qos())
            for topic, kind in {
                "scene_coordinates": PointCloud2,
                "overlay": Image,
                "markers": MarkerArray,
                "path": PathMessage,
            }.items()
        }
        view = views["room_1"]
        assert camera.publish_until(lambda: all(received.values()), view.message(), view.camera), received
    assert received["scene_coordinates"][0].header.frame_id == "map"
    assert received["overlay"][0].header.frame_id == OPTICAL
    assert received["path"][0].poses[0].header.frame_id == "map"


def inputs_qos() -> QoSProfile:
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


# -------------------------------------------------------------------------------------------------- scenes


def test_the_scene_switches_while_images_flow(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    stop = threading.Event()
    first, second = views["room_1"], views["room_2"]

    with running(tiny_checkpoint, tf_mode="none", max_speed=1e3, max_turn_rate=1e3) as camera:
        sent: dict[float, str] = {}

        def flow() -> None:
            for number in range(1, 10_000):
                if stop.is_set():
                    return
                view = (first, second)[number % 2]
                sent[number / 10] = view.scene
                camera.infos.publish(camera_info_message(view.camera))
                camera.images.publish(view.message(number * NANOSECONDS // 10))
                stop.wait(0.1)

        def seen(view: View) -> bool:
            """Whether the view was localized in its own scene; in the other it lands elsewhere or nowhere."""
            return any(
                np.allclose(pose_matrix(pose.pose), view.map_from_camera, atol=1e-6)
                for pose in list(camera.poses)
            )

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            assert wait_until(lambda: seen(first)), camera.log
            assert not seen(second)
            assert camera.set_parameter("scene", "room_2") == (True, "")
            camera.poses.clear()
            assert wait_until(lambda: seen(second)), camera.log
            assert not seen(first)
            assert wait_until(lambda: json.loads(camera.scenes[-1].data)["active"] == "room_2")
        finally:
            stop.set()
            thread.join()


def test_a_path_stays_in_its_scene(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    with running(tiny_checkpoint) as camera:
        paths = collect(camera.node, PathMessage, "path", 1)
        for number, view in enumerate(views.values(), 1):
            assert camera.set_parameter("scene", view.scene) == (True, "")
            place = view.map_from_camera[:3, 3]

            def ends_here(place: Array = place) -> bool:
                return bool(paths) and np.allclose(positions(paths[-1])[-1], place, atol=1e-3)

            message = view.message(number * 1000 * NANOSECONDS)
            assert camera.publish_until(ends_here, message, view.camera), camera.log
            assert np.allclose(positions(paths[-1]), place, atol=1e-3)


def positions(path: PathMessage) -> Array:
    return np.array([pose_matrix(pose.pose)[:3, 3] for pose in path.poses])


def test_each_scene_can_have_a_map_frame(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    with running(tiny_checkpoint, map_frame="map_of_{scene}", scene="room_2") as camera:
        assert camera.localize(views["room_2"]), camera.log
    assert camera.poses[0].header.frame_id == "map_of_room_2"


def test_an_unknown_scene_is_refused_and_the_old_one_stays(
    tiny_checkpoint: Path, views: dict[str, View]
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        taken, reason = camera.set_parameter("scene", "kitchen")
        assert not taken
        assert all(word in reason for word in ("'kitchen'", "room_1", "room_2", "auto"))
        assert camera.localize(view), camera.log
        success, answer = camera.call("list_scenes")
    np.testing.assert_allclose(pose_matrix(camera.poses[0].pose), view.map_from_camera, atol=1e-6)
    assert success
    assert answer == {"scenes": ["room_1", "room_2"], "active": "room_1", "asked_for": "room_1"}


# ---------------------------------------------------------------------------------------------- bad images


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda image: setattr(image, "encoding", "thermal"), "encoding 'thermal' is not supported"),
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
        assert camera.states[-1] == "bad image"
        assert camera.localize(view, stamp=1000 * NANOSECONDS), camera.log


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_images_give_no_pose(
    tiny_checkpoint: Path, views: dict[str, View], value: int
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        blank = view.message(pixels=np.full_like(view.pixels, value))
        seen = camera.publish_until(lambda: camera.images_seen > 3, blank, view.camera)
        assert seen, camera.log
        assert not camera.poses


def test_an_image_of_another_size_than_its_camera_info_is_named(
    tiny_checkpoint: Path, views: dict[str, View]
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        half = view.message(pixels=np.ascontiguousarray(view.pixels[::2, ::2]))
        sizes = f"image is {half.width}x{half.height} but .* {view.camera.width}x{view.camera.height}"
        assert camera.publish_until(lambda: re.search(sizes, camera.log), half, view.camera), camera.log
        assert camera.localize(view, stamp=1000 * NANOSECONDS), camera.log


def test_the_resolution_may_change_while_images_flow(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, max_speed=1e3, max_turn_rate=1e3) as camera:
        assert camera.localize(view), camera.log
        half = np.ascontiguousarray(view.pixels[::2, ::2])
        count = len(camera.poses)
        assert camera.publish_until(
            lambda: len(camera.poses) > count,
            view.message(1000 * NANOSECONDS, pixels=half),
            view.camera.resized(half.shape[1], half.shape[0]),
        ), camera.log


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
        hint = "no camera_info: images arrive without"
        assert camera.publish_until(lambda: hint in camera.log, view.message(), None), camera.log
        assert camera.localize(view, stamp=1000 * NANOSECONDS), camera.log


@pytest.mark.parametrize(("offset", "words"), [(-100, r"100\.\d s old"), (100, "ahead of the clock")])
def test_stale_and_future_images_are_not_used(
    tiny_checkpoint: Path, views: dict[str, View], offset: int, words: str
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, max_image_age=5.0) as camera:
        now = camera.node.get_clock().now().nanoseconds
        image = view.message(now + offset * NANOSECONDS)
        assert camera.publish_until(lambda: re.search(words, camera.log), image, view.camera), camera.log
        assert not camera.poses
        assert camera.localize(view, stamp=camera.node.get_clock().now().nanoseconds), camera.log


def test_a_recording_that_starts_again_is_noticed(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        assert camera.localize(view, stamp=50 * NANOSECONDS), camera.log
        assert camera.localize(view, stamp=10 * NANOSECONDS), camera.log
        assert camera.poses[-1].header.stamp.sec < 20
        assert wait_until(lambda: "stamps jumped back" in camera.log), camera.log


def test_silence_is_reported_with_the_topic(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "SILENCE", 0.3)
    monkeypatch.setattr(localizer_node, "STATUS_PERIOD", 0.1)
    monkeypatch.setattr(localizer_node, "REPEAT", 0.3)
    with running(tiny_checkpoint) as camera:
        assert wait_until(lambda: "no image on /image for 0.3 s: its publisher" in camera.log), camera.log
        assert camera.states[-1] == "no images"
        camera.node.destroy_publisher(camera.images)
        assert wait_until(lambda: "/image for 0.3 s: nobody publishes it" in camera.log), camera.log


def test_a_publisher_that_cannot_be_heard_is_reported(tiny_checkpoint: Path) -> None:
    with running(tiny_checkpoint, image_qos="reliable") as camera:
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera.node.create_publisher(Image, "image", best_effort)
        assert wait_until(lambda: "set image_qos to best_effort" in camera.log), camera.log


# ------------------------------------------------------------------------------------------------------ tf


def test_the_pose_is_the_bases_once_tf_tells(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, base_frame="base_link", transform_timeout=0.05) as camera:
        hint = r"no transform: tf does not lead from 'base_link' to .*set base_frame to ''"
        assert camera.publish_until(lambda: re.search(hint, camera.log), view.message(), view.camera), (
            camera.log
        )
        assert not camera.poses
        camera.static.sendTransform(
            transform_stamped(BASE_FROM_OPTICAL, "base_link", OPTICAL, time_message(0))
        )
        assert camera.localize(view, stamp=1000 * NANOSECONDS), camera.log
    map_from_base = view.map_from_camera @ invert(BASE_FROM_OPTICAL)
    np.testing.assert_allclose(pose_matrix(camera.poses[0].pose), map_from_base, atol=1e-6)


def test_the_map_is_broadcast_above_the_cameras_root(
    tiny_checkpoint: Path, views: dict[str, View], quick_tree: None
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        camera.static.sendTransform(
            transform_stamped(BASE_FROM_OPTICAL, "camera_link", OPTICAL, time_message(0))
        )
        image = view.message(stamp=5 * NANOSECONDS)
        assert camera.publish_until(lambda: camera.transforms, image, view.camera), camera.log
    (broadcast,) = camera.transforms[0].transforms
    assert (broadcast.header.frame_id, broadcast.child_frame_id) == ("map", "camera_link")
    assert broadcast.header.stamp.sec < 100  # the image's, not the clock's
    np.testing.assert_allclose(
        matrix(broadcast.transform), view.map_from_camera @ invert(BASE_FROM_OPTICAL), atol=1e-6
    )


def moving_odometry(camera: FakeCamera, odom_from_base: Array, first: int, count: int) -> None:
    """tf of a robot that stands at a place of its odometry, from a stamp on."""
    from tf2_ros import TransformBroadcaster

    broadcaster = TransformBroadcaster(camera.node)
    for number in range(count):
        stamp = time_message(first + number * NANOSECONDS // 2)
        broadcaster.sendTransform(transform_stamped(odom_from_base, "odom", "base_link", stamp))


def test_with_odometry_the_map_is_above_odom_and_lasts(
    tiny_checkpoint: Path, views: dict[str, View], quick_tree: None
) -> None:
    view = views["room_1"]
    odom_from_base = transform((3.0, -2.0, 0.0), (0, 0, 0.6, 0.8))
    with running(tiny_checkpoint, base_frame="base_link") as camera:
        camera.static.sendTransform(
            transform_stamped(BASE_FROM_OPTICAL, "base_link", OPTICAL, time_message(0))
        )
        moving_odometry(camera, odom_from_base, NANOSECONDS, 12)
        assert wait_until(lambda: len(camera.transforms) >= 12)
        own = len(camera.transforms)

        def map_to_odom() -> list[Any]:
            broadcast = [message.transforms[0] for message in camera.transforms[own:]]
            return [one for one in broadcast if one.child_frame_id == "odom"]

        image = view.message(stamp=2 * NANOSECONDS)
        assert camera.publish_until(map_to_odom, image, view.camera), camera.log
        so_far = len(map_to_odom())
        assert wait_until(lambda: len(map_to_odom()) > so_far + 10), "it ends with the images"
    last = map_to_odom()[-1]
    assert last.header.frame_id == "map"
    map_from_optical = matrix(last.transform) @ odom_from_base @ BASE_FROM_OPTICAL
    np.testing.assert_allclose(map_from_optical, view.map_from_camera, atol=1e-3)


def test_tf_can_be_left_to_others(tiny_checkpoint: Path, views: dict[str, View], quick_tree: None) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, tf_mode="none") as camera:
        assert camera.publish_until(lambda: len(camera.poses) > 5, view.message(), view.camera), camera.log
    assert not camera.transforms


def test_a_frame_that_has_a_parent_gets_no_second(
    tiny_checkpoint: Path, views: dict[str, View], quick_tree: None
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, tf_mode="map_to_base") as camera:
        camera.static.sendTransform(
            transform_stamped(BASE_FROM_OPTICAL, "camera_link", OPTICAL, time_message(0))
        )
        hint = f"'{OPTICAL}' already has the parent 'camera_link'"
        assert camera.publish_until(lambda: hint in camera.log, view.message(), view.camera), camera.log
    assert not camera.transforms


# --------------------------------------------------------------------------------------------- initialpose


def test_a_prior_moves_the_track(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    elsewhere = transform((50.0, 50.0, 0.0), (0, 0, 0, 1))
    with running(tiny_checkpoint, kidnapped_fixes=10_000) as camera:
        priors = camera.node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)
        assert camera.localize(view), camera.log
        wrong = pose_with_covariance_stamped(elsewhere, np.eye(6) * 0.01, "odom", time_message(0))
        priors.publish(wrong)
        assert wait_until(lambda: "give it in 'map'" in camera.log), camera.log
        priors.publish(pose_with_covariance_stamped(elsewhere, np.eye(6) * 0.01, "map", time_message(0)))
        assert wait_until(lambda: "taken as a prior" in camera.log), camera.log
        image = view.message(1000 * NANOSECONDS)
        assert camera.publish_until(lambda: camera.states[-1] == "rejected", image, view.camera), camera.log


def test_amcl_is_told_once(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, initialpose="publish", tf_mode="none") as camera:
        told: list[PoseWithCovarianceStamped] = collect(camera.node, PoseWithCovarianceStamped, "initialpose")
        assert wait_until(lambda: camera.node.count_publishers("initialpose"))
        assert not wait_until(lambda: camera.poses, 0.5)  # and it has found us
        assert camera.publish_until(lambda: len(camera.poses) > 3, view.message(), view.camera), camera.log
    assert len(told) == 1
    np.testing.assert_allclose(pose_matrix(told[0].pose.pose), view.map_from_camera, atol=1e-6)


# ------------------------------------------------------------------------------------ services and lifecycle


def test_a_trigger_localizes_the_next_image(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, continuous=False) as camera:
        image = view.message()
        for _ in range(5):
            camera.infos.publish(camera_info_message(view.camera))
            camera.images.publish(image)
        assert not wait_until(lambda: camera.poses, 0.5)
        answers: list[tuple[bool, dict[str, Any]]] = []
        thread = threading.Thread(target=lambda: answers.append(camera.call("trigger_localization")))
        thread.start()
        assert camera.publish_until(lambda: answers, image, view.camera), camera.log
        thread.join()
    ((success, answer),) = answers
    assert success
    assert len(camera.poses) == 1, "one image was asked for"
    assert (answer["state"], answer["scene"], answer["frame"]) == ("localized", "room_1", "map")
    np.testing.assert_allclose(answer["position"], view.map_from_camera[:3, 3], atol=1e-6)


def test_only_who_is_not_tracked_looks_through_all_keyframes(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[Search] = []
    refined = Localizer.refined

    def noted(self: Localizer, found: Localization, *arguments: Any) -> Localization:
        searches.append(arguments[-1])
        return refined(self, found, *arguments)

    view = views["room_1"]
    with running(tiny_checkpoint, start_fixes=2) as camera:
        monkeypatch.setattr(Localizer, "refined", noted)
        assert camera.publish_until(lambda: len(camera.poses) >= 3, view.message(), view.camera), camera.log
        located = searches.index("never")
        assert located >= 2
        assert (set(searches[:located]), set(searches[located:])) == ({"always"}, {"never"})
        priors = camera.node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)
        elsewhere = transform((50.0, 50.0, 0.0), (0, 0, 0, 1))
        priors.publish(pose_with_covariance_stamped(elsewhere, np.eye(6) * 0.01, "map", time_message(0)))
        assert wait_until(lambda: "taken as a prior" in camera.log), camera.log
        image = view.message(50 * NANOSECONDS)
        assert camera.publish_until(lambda: "lost" in searches[:-1], image, view.camera), camera.log
        assert searches[searches.index("lost") + 1] == "always", "the first contradicts the prior"
        assert camera.set_parameter("continuous", False) == (True, "")
        searches.clear()

        def is_answered(seconds: int) -> bool:
            thread = threading.Thread(target=lambda: camera.call("trigger_localization"))
            thread.start()
            image = view.message(seconds * NANOSECONDS)
            return camera.publish_until(lambda: not thread.is_alive(), image, view.camera)

        assert is_answered(100) and is_answered(101), camera.log  # the first says where the robot is
        assert set(searches) == {"always"}


def test_a_trigger_without_images_is_answered(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer_node, "TRIGGER_TIMEOUT", 0.3)
    monkeypatch.setattr(localizer_node, "STATUS_PERIOD", 0.1)
    with running(tiny_checkpoint) as camera:
        success, answer = camera.call("trigger_localization")
    assert not success
    assert answer["state"] in ("starting", "no images")


def damage(checkpoint: Path) -> None:
    weights = next(checkpoint.glob("weights-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])


def test_a_bad_checkpoint_leaves_the_old_one_serving(
    tiny_checkpoint: Path, tmp_path: Path, views: dict[str, View]
) -> None:
    view = views["room_1"]
    bad, good = tmp_path / "bad", tmp_path / "good"
    shutil.copytree(tiny_checkpoint, bad)
    shutil.copytree(tiny_checkpoint, good)
    damage(bad)
    with running(tiny_checkpoint) as camera:
        assert camera.localize(view), camera.log
        assert camera.set_parameter("checkpoint", str(bad)) == (True, "")
        success, answer = camera.call("reload")
        assert not success
        assert "truncated or damaged" in answer["reason"]
        assert camera.localize(view, stamp=100 * NANOSECONDS), camera.log
        assert camera.set_parameter("checkpoint", str(good)) == (True, "")
        assert camera.call("reload") == (
            True,
            {"reason": "", "scenes": ["room_1", "room_2"], "active": "room_1", "asked_for": "room_1"},
        )
        assert camera.localize(view, stamp=200 * NANOSECONDS), camera.log


def change_state(camera: FakeCamera, transition: int) -> bool:
    client = camera.node.create_client(ChangeState, "localizer/change_state")
    assert client.wait_for_service(10.0)
    future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
    assert wait_until(future.done)
    return future.result().success


def state_of(camera: FakeCamera) -> str:
    client = camera.node.create_client(GetState, "localizer/get_state")
    assert client.wait_for_service(10.0)
    future = client.call_async(GetState.Request())
    assert wait_until(future.done)
    return future.result().current_state.label


def test_the_lifecycle_twice_over(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint, start=False) as camera:
        assert state_of(camera) == "unconfigured"
        assert not change_state(camera, Transition.TRANSITION_ACTIVATE)  # and the node lives on
        for lap in (1, 2):
            assert change_state(camera, Transition.TRANSITION_CONFIGURE), camera.log
            assert change_state(camera, Transition.TRANSITION_ACTIVATE), camera.log
            assert state_of(camera) == "active"
            assert camera.localize(view, stamp=lap * 1000 * NANOSECONDS), camera.log
            assert change_state(camera, Transition.TRANSITION_DEACTIVATE), camera.log
            assert camera.states[-1] == "inactive"
            count = len(camera.poses)
            camera.images.publish(view.message(lap * 2000 * NANOSECONDS))
            assert not wait_until(lambda count=count: len(camera.poses) > count, 0.3)
            assert change_state(camera, Transition.TRANSITION_CLEANUP), camera.log
        assert change_state(camera, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert state_of(camera) == "finalized"


def test_a_checkpoint_that_appears_later_can_be_configured(tiny_checkpoint: Path, tmp_path: Path) -> None:
    late = tmp_path / "model"
    with running(late, start=False) as camera:
        assert not change_state(camera, Transition.TRANSITION_CONFIGURE)
        assert wait_until(lambda: "does not exist" in camera.log)
        assert state_of(camera) == "unconfigured"
        shutil.copytree(tiny_checkpoint, late)
        assert change_state(camera, Transition.TRANSITION_CONFIGURE), camera.log


def test_whatever_is_wrong_with_a_reload_the_spin_goes_on(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tiny_checkpoint) as camera:

        def fails(self: localizer_node.LocalizerNode) -> None:
            raise RuntimeError("the driver is gone")

        monkeypatch.setattr(localizer_node.LocalizerNode, "_load", fails)
        success, answer = camera.call("reload")
        assert not success
        assert "the driver is gone; what was loaded before stays" in answer["reason"]
        assert camera.localize(views["room_1"]), camera.log


def test_the_status_tells_of_a_bug(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        assert camera.localize(view), camera.log

        def fails(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(Localizer, "localize_in_each", fails)
            image = view.message(100 * NANOSECONDS)
            assert camera.publish_until(lambda: camera.states[-1] == "failed", image, view.camera)
        assert camera.localize(view, stamp=200 * NANOSECONDS), camera.log


def test_cleanup_unloads_the_model(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    others = {id(one) for one in gc.get_objects() if isinstance(one, Localizer)}
    with running(tiny_checkpoint) as camera:
        (model,) = [
            weakref.ref(one)
            for one in gc.get_objects()
            if isinstance(one, Localizer) and id(one) not in others
        ]
        assert camera.localize(views["room_1"]), camera.log
        assert change_state(camera, Transition.TRANSITION_DEACTIVATE)
        assert change_state(camera, Transition.TRANSITION_CLEANUP)
        gc.collect()
        assert model() is None


def test_a_node_can_be_destroyed_after_its_context(tiny_checkpoint: Path) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    overrides = [Parameter("checkpoint", value=str(tiny_checkpoint)), Parameter("device", value="cpu")]
    node = localizer_node.LocalizerNode(context=context, parameter_overrides=overrides)
    assert node.start()
    context.try_shutdown()
    node.destroy_node()


def test_auto_finds_the_scene_and_another_when_it_is_lost(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a search that needs little: the tiny rooms have few views."""
    monkeypatch.setattr(
        pipeline, "SceneSearch", partial(SceneSearch, options=SearchOptions(enough=0.6, lead=0.2, doubt=0.5))
    )
    stamp = NANOSECONDS

    def drive(view: View, condition: Any) -> bool:
        """Show the training frames of a room, again and again, until something has come true."""
        nonlocal stamp
        frames = view.scene_data.frames("train")
        for number in range(60):
            pixels = view.scene_data.read_color(frames[number % len(frames)])
            camera.infos.publish(camera_info_message(view.camera))
            camera.images.publish(view.message(stamp, pixels=pixels))
            stamp += NANOSECONDS // 10
            if wait_until(condition, 0.15):
                return True
        return False

    def active() -> str:
        return json.loads(camera.scenes[-1].data)["active"]

    with running(tiny_checkpoint, scene="auto", max_speed=1e3, max_turn_rate=1e3) as camera:
        assert drive(views["room_2"], lambda: active() == "room_2"), camera.log
        assert drive(views["room_2"], lambda: camera.poses), camera.log
        assert drive(views["room_1"], lambda: active() == "room_1"), camera.log
        assert wait_until(lambda: {"searching", "lost"} & set(camera.states), 5.0), camera.states


def test_a_wrong_scene_is_named(
    tiny_checkpoint: Path, views: dict[str, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LOOK_AROUND_PERIOD", 0.0)
    monkeypatch.setattr(
        pipeline, "SceneSearch", partial(SceneSearch, options=SearchOptions(enough=0.3, lead=0.1))
    )
    view = views["room_2"]
    with running(tiny_checkpoint, scene="room_1", min_inlier_share=0.4) as camera:
        found = camera.publish_until(lambda: "wrong scene" in camera.states, view.message(), view.camera)
        assert found, camera.log
        assert wait_until(lambda: "the images look like 'room_2'" in camera.log)
    assert not camera.poses


def test_diagnostics_add_up(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    view = views["room_1"]
    with running(tiny_checkpoint) as camera:
        arrays: list[DiagnosticArray] = collect(camera.node, DiagnosticArray, "/diagnostics")
        assert camera.publish_until(lambda: len(camera.poses) > 10, view.message(), view.camera), camera.log
        before = len(arrays)
        assert wait_until(lambda: len(arrays) > before + 1)
    localization, stream = arrays[-1].status
    values = {pair.key: pair.value for pair in stream.values}
    assert localization.level == DiagnosticStatus.OK
    assert localization.message.startswith("localized: in room_1")
    received = int(values["images received (total)"])
    told = ("images localized (total)", "images without a pose (total)", "images dropped (total)")
    assert received == sum(int(values.get(name, 0)) for name in told)
    assert float(values["network and pose (ms, median)"]) > 0
    assert values["device"] == "cpu"


# ------------------------------------------------------------------------------------------ start and end


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (shutil.rmtree, "does not exist"),
        (damage, "truncated or damaged"),
        (lambda checkpoint: (checkpoint / "manifest.json").unlink(), "is not a checkpoint"),
    ],
)
def test_a_bad_checkpoint_ends_the_process_with_one_line(
    tiny_checkpoint: Path, tmp_path: Path, spoil: Any, cause: str
) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, checkpoint)
    spoil(checkpoint)
    with NodeProcess("localizer", checkpoint=checkpoint) as process:
        assert process.wait() == 1
    assert process.log.count("\n") == 1, process.log
    assert "[FATAL]" in process.log
    assert str(checkpoint) in process.log
    assert cause in process.log


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"image_qos": "perfect"}, "best_effort, reliable"),
        ({"device": "tpu"}, "one of auto, cpu, cuda"),
        ({"transform_timeout": "soon"}, "transform_timeout must be a float"),
        ({"min_inlier_share": 1.5}, "from 0 to 1"),
    ],
)
def test_parameters_that_make_no_sense_are_named(
    tiny_checkpoint: Path, parameters: dict[str, Any], cause: str
) -> None:
    with pytest.raises(ConfigError, match=cause), running(tiny_checkpoint, **parameters):
        pass


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"checkpoint": ""}, "no checkpoint is given"),
        ({"checkpoint": "/nowhere"}, "does not exist"),
        ({"scene": "kitchen"}, "'kitchen'.*room_1, room_2"),
        ({"initialpose": "publish"}, "set tf_mode to none"),
    ],
)
def test_what_cannot_be_configured_is_named(
    tiny_checkpoint: Path, parameters: dict[str, Any], cause: str
) -> None:
    with running(tiny_checkpoint, start=False, **parameters) as camera:
        assert not change_state(camera, Transition.TRANSITION_CONFIGURE)
        assert wait_until(lambda: re.search(cause, camera.log)), camera.log


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_the_process_ends_cleanly_while_images_flow(
    tiny_checkpoint: Path, views: dict[str, View], signals: list[signal.Signals]
) -> None:
    view = views["room_1"]
    easy = {"device": "cpu", "base_frame": "''", "scene": "room_1"} | EASY
    with (
        NodeProcess("localizer", checkpoint=tiny_checkpoint, **easy) as process,
        ros_node() as node,
    ):
        camera = FakeCamera(node)
        assert wait_until(lambda: "waiting for images" in process.log, 60.0), process.log
        assert camera.localize(view), process.log
        camera.images.publish(view.message())
        for number in signals:
            process.interrupt(number)
        assert process.wait(20.0) == 0
    assert "Traceback" not in process.log
    assert "ERROR" not in process.log


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_the_process_can_be_interrupted_while_it_starts(tiny_checkpoint: Path, delay: float) -> None:
    with NodeProcess("localizer", checkpoint=tiny_checkpoint) as process:
        assert wait_until(lambda: process.log)  # it loads its model
        threading.Event().wait(delay)
        process.interrupt()
        assert process.wait(20.0) == 0, process.log
    assert not re.search("bug|FATAL|Traceback", process.log), process.log


def test_the_process_can_be_interrupted_while_it_imports() -> None:
    code = "import sys; from ofvl_ros.commands import localizer; sys.exit(localizer())"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert wait_until(lambda: catches(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGINT)
        log, _ = process.communicate(timeout=20)
    assert (process.returncode, log) == (0, "")


def test_two_localizers_share_a_process(tiny_checkpoint: Path, views: dict[str, View]) -> None:
    with (
        running(tiny_checkpoint, scene="room_1", map_frame="one") as first,
        running(tiny_checkpoint, scene="room_2", map_frame="two", namespace="other") as second,
    ):
        assert first.localize(views["room_1"]), first.log
        assert second.localize(views["room_2"]), second.log
    assert {pose.header.frame_id for pose in first.poses} == {"one"}
    assert {pose.header.frame_id for pose in second.poses} == {"two"}


# -------------------------------------------------------------------------------------------------- worker


def test_the_worker_takes_the_newest_and_tells_of_the_rest() -> None:
    begun, go_on, done, dropped = threading.Event(), threading.Event(), [], []

    def work(item: int) -> None:
        begun.set()
        go_on.wait()
        done.append(item)

    worker: NewestWorker[int] = NewestWorker(work, lambda error: None, lambda: dropped.append(1))
    worker.put(1)
    begun.wait()
    for item in (2, 3, 4):
        worker.put(item)
    go_on.set()
    assert wait_until(lambda: done == [1, 4])
    assert len(dropped) == 2
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
