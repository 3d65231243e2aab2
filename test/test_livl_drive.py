"""Bags of other robots, and bad ones: what becomes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from livl_helpers import (
    CAMERA_ON_ROBOT,
    EVERYTHING,
    FRAMES,
    HEIGHT,
    LATE,
    LIDAR_ON_ROBOT,
    START,
    TOPIC,
    TREE,
    WIDTH,
    changed,
    marked,
    pose,
    recorded,
)
from recording_helpers import ROS1, ROS2, SECOND, file_of, write_bag

from ofvl_core.datasets import load_scene
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_core.livl.build import build
from ofvl_core.livl.options import Options
from ofvl_core.trajectory import write_tum


@pytest.mark.parametrize(("ros", "storage"), [(ROS1, "ros1"), (ROS2, "mcap"), (ROS2, "sqlite3")])
def test_bags_of_both_ros_give_the_same_data_set(ros, storage, tmp_path):
    bag = write_bag(tmp_path / ("drive.bag" if storage == "ros1" else "drive"), recorded(ros), storage)
    scene = load_scene(build([bag], tmp_path / "data", "hall", TOPIC))
    frames = scene.frames("train")
    assert len(frames) == FRAMES
    assert scene.camera.distortion == (0.1, -0.2, 0.001, 0.002, 0.05)
    expected = pose(7) @ np.linalg.inv(LIDAR_ON_ROBOT) @ CAMERA_ON_ROBOT
    np.testing.assert_allclose(frames[7].world_from_camera, expected, atol=1e-6)
    assert frames[7].timestamp == pytest.approx(7 / 30, abs=1e-5)
    assert (scene.read_depth(frames[7]) == 2000).all()


def splits(bag: Path, out: Path, options: Options = TOPIC) -> list[tuple[str, str, int]]:
    """Name, split and frames of the sequences that a bag becomes."""
    manifest = json.loads((build([bag], out, "hall", options) / "manifest.json").read_text())
    return [(each["name"], each["split"], each["frames"]) for each in manifest["sequences"]]


def test_marks_make_sequences(tmp_path):
    events = marked(recorded(ROS2), (-1, "test"), (0, "train"), (15, "test"), (25, "train"))
    bag = write_bag(tmp_path / "drive", events)
    found = splits(bag, tmp_path / "data")
    assert found == [("seq-01", "train", 15), ("seq-02", "test", 10), ("seq-03", "train", 15)]


def test_an_old_camera_info_at_the_beginning_does_not_move_the_marks(tmp_path):
    old = ROS2.camera_info(START - 300 * SECOND, WIDTH, HEIGHT)
    events = [("/camera/color/camera_info", START, old), *recorded(ROS2)]
    bag = write_bag(tmp_path / "drive", marked(events, (0, "train"), (30, "test")))
    assert [split for _, *split in splits(bag, tmp_path / "data")] == [["train", 30], ["test", 10]]


def test_whom_the_user_names_is_for_testing_whatever_was_marked(tmp_path):
    bags = []
    for number in range(2):
        events = [(t, s + number * 100 * SECOND, m) for t, s, m in marked(recorded(ROS2), (0, "train"))]
        bags.append(write_bag(tmp_path / f"drive_{number}", events))
    options = Options(poses="topic", compare="none", time_offset=0.0, spacing=EVERYTHING, test=("drive_0",))
    scene = load_scene(build(bags, tmp_path / "data", "hall", options))
    assert {frame.sequence for frame in scene.frames("test")} == {"seq-01"}


def test_a_damaged_image_costs_one_frame(tmp_path):
    def cut(at: int, message: Any) -> Any:
        if at == 7:
            message.data = message.data[: len(message.data) // 2]
        return message

    bag = write_bag(tmp_path / "drive", changed(recorded(ROS2), "/camera/color/image_raw", cut))
    root = build([bag], tmp_path / "data", "hall", TOPIC)
    assert len(load_scene(root).frames("train")) == FRAMES - 1
    (sequence,) = json.loads((root / "manifest.json").read_text())["sequences"]
    assert sequence["dropped"]["damaged"] == 1


def test_a_camera_that_dies_leaves_what_it_saw(tmp_path):
    events = changed(recorded(ROS2), "/camera/color/image_raw", lambda at, m: m if at < 10 else None)
    root = build([write_bag(tmp_path / "drive", events)], tmp_path / "data", "hall", TOPIC)
    assert len(load_scene(root).frames("train")) == 10


def test_bags_recorded_at_the_same_time_are_copies(tmp_path):
    bags = [write_bag(tmp_path / name, recorded(ROS2)) for name in ("drive", "drive_repaired")]
    with pytest.raises(DataError, match="were recorded at the same time; leave one out"):
        build(bags, tmp_path / "data", "hall", TOPIC)


def test_no_folder_but_a_data_set_is_ever_replaced(tmp_path):
    bag = write_bag(tmp_path / "hall" / "drive", recorded(ROS2))
    with pytest.raises(DataError, match="is no data set"):
        build([bag], tmp_path, "hall", TOPIC, overwrite=True)
    (tmp_path / "hall" / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds the bag"):
        build([bag], tmp_path, "hall", TOPIC, overwrite=True)
    with pytest.raises(ConfigError, match="is a bag"):
        build([bag], bag, "hall", TOPIC)
    assert file_of(bag).exists()


def test_overwriting_replaces_a_data_set(tmp_path):
    bag = write_bag(tmp_path / "drive", recorded(ROS2))
    root = build([bag], tmp_path / "data", "hall", TOPIC)
    (root / "left.txt").write_text("from before")
    assert build([bag], tmp_path / "data", "hall", TOPIC, overwrite=True) == root
    assert not (root / "left.txt").exists()
    assert load_scene(root).frames("train")


def test_two_trajectories_that_part_are_told(tmp_path):
    other = tmp_path / "other.txt"
    rows = [(stamp * 1e-9, pose(2 * at)) for at, stamp in enumerate(START + np.arange(FRAMES) * SECOND // 30)]
    write_tum(other, rows)
    bag = write_bag(tmp_path / "drive", recorded(ROS2))
    options = Options(poses="topic", compare=str(other), time_offset=0.0, spacing=EVERYTHING)
    root = build([bag], tmp_path / "data", "hall", options)
    warnings = json.loads((root / "manifest.json").read_text())["warnings"]
    assert any("part by" in warning and str(other) in warning for warning in warnings)


def test_depth_that_is_not_aligned_is_brought_to_the_colour_camera(tmp_path):
    """The depth camera sits 0.2 m to the right: what it sees in its middle is right of the colour image's."""
    beside = transform_from_rotation_vector((0, 0, 0), (0.2, 0, 0))
    events = []
    for topic, stamp, message in recorded(ROS2, [*TREE, ("color", "depth", beside)]):
        if "aligned_depth" in topic:
            topic = topic.replace("aligned_depth_to_color", "depth")
            message.header.frame_id = "depth"
            if topic.endswith("image_raw"):
                stripe = np.zeros((HEIGHT, WIDTH), np.uint16)
                stripe[:, WIDTH // 2 - 5 : WIDTH // 2 + 5] = 2000
                message = ROS2.image(stamp - LATE, stripe, "16UC1", "depth")
            else:
                message = ROS2.camera_info(stamp - LATE, WIDTH, HEIGHT, "depth")
        events.append((topic, stamp, message))
    root = build([write_bag(tmp_path / "drive", events)], tmp_path / "data", "hall", TOPIC)
    scene = load_scene(root)
    depth = scene.read_depth(scene.frames("train")[0])
    columns = np.nonzero(depth.any(axis=0))[0]
    assert columns.mean() > depth.shape[1] / 2 + 5
    assert depth.max() == 2000


def test_a_robot_without_lidar_needs_poses_of_its_camera(tmp_path):
    events = [event for event in recorded(ROS2) if event[0] != "/velodyne_points"]
    bag = write_bag(tmp_path / "drive", events)
    with pytest.raises(DataError, match=r"no topic found for cloud; it holds .*image_raw.*--topic cloud="):
        build([bag], tmp_path / "data", "hall", Options())
    poses = Options(poses="/aft_mapped_to_init", body="color", time_offset=0.0, spacing=EVERYTHING)
    scene = load_scene(build([bag], tmp_path / "data", "hall", poses))
    np.testing.assert_allclose(scene.frames("train")[7].world_from_camera, pose(7), atol=1e-6)


@pytest.mark.parametrize("missing", ["color/image_raw", "aligned_depth_to_color/image_raw", "camera_info"])
def test_what_is_missing_is_named_with_what_is_there(tmp_path, missing):
    events = [event for event in recorded(ROS2) if missing not in event[0]]
    with pytest.raises(DataError, match=r"no topic found for .*velodyne_points \(sensor_msgs") as raised:
        build([write_bag(tmp_path / "drive", events)], tmp_path / "data", "hall", TOPIC)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "data").glob("hall*"))


def test_without_calibration_it_says_how_to_give_one(tmp_path):
    bag = write_bag(tmp_path / "drive", recorded(ROS2, TREE[:1]))
    with pytest.raises(DataError, match="give --calibration"):
        build([bag], tmp_path / "data", "hall", TOPIC)
    file = tmp_path / "calibration.yaml"
    file.write_text(
        "transforms:\n- {parent: base_link, child: velodyne, translation: [0, 0, 1.1], "
        "rotation_xyzw: [0, 0, 0, 1]}\n"
    )
    options = Options(poses="topic", compare="none", calibration=file, time_offset=0.0, spacing=EVERYTHING)
    assert load_scene(build([bag], tmp_path / "data", "hall", options)).frames("train")


def test_a_bag_that_was_cut_short_gives_what_is_there_and_says_so(tmp_path):
    bag = write_bag(tmp_path / "drive", recorded(ROS2), "sqlite3")
    file = file_of(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 7 // 10])
    root = build([bag], tmp_path / "data", "hall", TOPIC)
    assert 5 < len(load_scene(root).frames("train")) < FRAMES
    warnings = json.loads((root / "manifest.json").read_text())["warnings"]
    assert any("cut short" in warning for warning in warnings)


def small(at: int, message: Any) -> Any:
    return message if at < 20 else ROS2.image(START + at * SECOND // 30, np.zeros((24, 32, 3), np.uint8))


def no_fields(at: int, message: Any) -> Any:
    return ROS2.cloud(START, np.zeros(9, [("a", "<f4"), ("ring", "<u2")]))


@pytest.mark.parametrize(
    ("topic", "change", "named"),
    [
        ("/camera/color/image_raw", small, r"image of /camera/color/image_raw is 32x24 but its camera_info"),
        ("/velodyne_points", no_fields, r"fields a, ring\) lacks x, y and z"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(tmp_path, topic, change, named):
    bag = write_bag(tmp_path / "drive", changed(recorded(ROS2), topic, change))
    with pytest.raises(DataError, match=named) as raised:
        build([bag], tmp_path / "data", "hall", TOPIC)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data" / "hall").exists()


def test_a_clock_that_jumps_back_loses_what_comes_until_it_has_caught_up(tmp_path, caplog):
    def jump(at: int, message: Any) -> Any:
        if 10 <= at < 15:
            message.header.stamp.sec -= 100
        return message

    bag = write_bag(tmp_path / "drive", changed(recorded(ROS2), "/camera/color/image_raw", jump))
    root = build([bag], tmp_path / "data", "hall", TOPIC)
    assert len(load_scene(root).frames("train")) == FRAMES - 5
    assert "clock" in caplog.text


def test_messages_without_stamps_take_the_time_of_their_receipt(tmp_path, caplog):
    def unstamped(at: int, message: Any) -> Any:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
        return message

    bag = write_bag(tmp_path / "drive", changed(recorded(ROS2), "/aft_mapped_to_init", unstamped))
    scene = load_scene(build([bag], tmp_path / "data", "hall", TOPIC))
    assert len(scene.frames("train")) == FRAMES - 1  # the first image is earlier than the first pose
    assert "no stamp" in caplog.text
