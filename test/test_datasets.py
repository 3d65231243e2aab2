"""This project's own layout: what is read, and one clear error for each way it can be wrong."""

import json
import logging

import cv2
import numpy as np
import pytest
from scenes import misfit, write_room, write_scene

from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.datasets.images import read_color, read_depth
from ofvl_core.datasets.robot import load_robot
from ofvl_core.errors import DataError
from ofvl_core.trajectory import read_tum, write_tum


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "kitchen")


@pytest.mark.parametrize("color", ["png", "jpg"])
def test_a_scene_is_read(tmp_path, color):
    scene = load_scene(write_scene(tmp_path / "hall", color=color))
    assert scene.name == "hall"
    assert (scene.camera.width, scene.camera.height, scene.camera.fx, scene.camera.cy) == (80, 60, 60.0, 29.5)
    frame = scene.frames("test")[3]
    assert (frame.name, frame.sequence, frame.timestamp) == ("seq-02/frame-000003", "seq-02", 0.1)
    assert np.allclose(frame.world_from_camera, np.loadtxt(frame.color.parent / "frame-000003.pose.txt"))
    assert scene.read_color(frame).shape == (60, 80, 3)
    assert scene.read_depth(frame).dtype == np.uint16


def test_lifted_depth_is_the_room(tmp_path):
    scene = load_scene(write_room(tmp_path / "room", frames=3))
    assert not scene.depth_format.registration
    for frame in scene.frames("train") + scene.frames("test"):
        metres, colors = misfit(scene, frame)
        assert metres < 0.001
        assert colors <= 1


def test_colour_is_rgb(scene):
    path = scene / "seq-01" / "frame-000000.color.png"
    cv2.imwrite(str(path), np.full((60, 80, 3), (255, 0, 0), np.uint8))  # blue, as OpenCV writes it
    assert read_color(path)[0, 0].tolist() == [0, 0, 255]


def test_timestamps_file_wins_over_frame_numbers(scene):
    rows = "".join(f"{number:06d} {100 + number / 7}\n" for number in range(4))
    (scene / "seq-01" / "timestamps.txt").write_text(rows)
    assert load_scene(scene).frames("train")[2].timestamp == pytest.approx(100 + 2 / 7)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_poses_with_nan_or_inf_are_counted_and_skipped(scene, caplog, value):
    (scene / "seq-01" / "frame-000001.pose.txt").write_text(f"1 0 0 {value}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    with caplog.at_level(logging.WARNING):
        frames = load_scene(scene).frames("train")
    assert [frame.name[-1] for frame in frames] == ["0", "2", "3"]
    assert "skipped 1 of 4 frames" in caplog.text


def test_both_invalid_depths_read_as_zero(scene):
    path = scene / "seq-01" / "frame-000000.depth.png"
    depth = np.full((60, 80), 1234, np.uint16)
    depth[0, 0], depth[0, 1] = 0, 65535
    cv2.imwrite(str(path), depth)
    assert read_depth(path)[0, :3].tolist() == [0, 0, 1234]


def damage(scene, name, content):
    path = scene / name
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)


FRAME = "seq-01/frame-000000"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (f"{FRAME}.pose.txt", None, "missing"),
        (f"{FRAME}.pose.txt", "", "4x4"),
        (f"{FRAME}.pose.txt", "1 2\n3 4\n", "4x4"),
        (f"{FRAME}.pose.txt", b"\xff\xfe\x00", "not text"),
        (f"{FRAME}.pose.txt", "2 0 0 0\n0 2 0 0\n0 0 2 0\n0 0 0 1\n", "no rotation"),
        (f"{FRAME}.color.png", b"", "not a readable image"),
        (f"{FRAME}.color.png", b"\x89PNG\r\n", "not a readable image"),
        ("camera-intrinsics.txt", "1 2 3\n", "3x3"),
        ("camera-intrinsics.txt", "nan 0 0\n0 60 0\n0 0 1\n", "NaN"),
        ("camera-intrinsics.txt", "0 0 0\n0 0 0\n0 0 1\n", "intrinsics are not set"),
        ("TrainSplit.txt", "kitchen\n", "not a sequence"),
        ("TrainSplit.txt", b"\xff\xfe\x00", "not text"),
        ("TrainSplit.txt", "sequence9\n", "seq-09"),
        ("seq-01/timestamps.txt", "000000 soon\n", "frame-number seconds"),
        ("seq-01/timestamps.txt", "000000 1.0\n", "no time stamp"),
    ],
)
def test_a_damaged_scene_is_named(scene, name, content, says):
    damage(scene, name, content)
    with pytest.raises(Exception, match=says) as caught:
        load_scene(scene)
    assert "\n" not in str(caught.value)


def test_an_empty_split_is_named(scene):
    (scene / "TestSplit.txt").write_text("")
    loaded = load_scene(scene)
    with pytest.raises(DataError, match=r"test split is empty.*TestSplit\.txt"):
        loaded.frames("test")


def test_wrong_sized_images_are_named(scene):
    camera = load_scene(scene).camera
    path = scene / "seq-01" / "frame-000002.color.png"
    cv2.imwrite(str(path), np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(DataError, match="40x30 but the scene's images are 80x60"):
        read_color(path, camera)


@pytest.mark.parametrize(
    ("depth", "says"),
    [
        (np.ones((60, 80), np.uint8), "16-bit"),
        (np.ones((60, 80, 3), np.uint16), "16-bit"),
    ],
)
def test_useless_depth_is_named(tmp_path, depth, says):
    path = tmp_path / "depth.png"
    cv2.imwrite(str(path), depth)
    with pytest.raises(DataError, match=says):
        read_depth(path)


@pytest.mark.parametrize("value", [0, 65535])
def test_depth_without_a_valid_pixel_is_logged_and_empty(scene, caplog, value):
    cv2.imwrite(str(scene / "seq-01" / "frame-000001.depth.png"), np.full((60, 80), value, np.uint16))
    loaded = load_scene(scene)
    with caplog.at_level(logging.WARNING):
        assert not loaded.read_depth(loaded.frames("train")[1]).any()
    assert "no valid pixel" in caplog.text


def test_a_frame_without_depth_is_named(scene):
    (scene / "seq-01" / "frame-000001.depth.png").unlink()
    loaded = load_scene(scene)
    with pytest.raises(DataError, match=r"frame-000001\.color\.png: has no depth"):
        loaded.read_depth(loaded.frames("train")[1])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_images_are_refused(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    assert read_color(path).shape == (60, 80, 3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="truncated"):
        read_color(path)


def test_scenes_are_found_in_a_folder_of_scenes(tmp_path):
    for name in ("b", "a"):
        write_scene(tmp_path / name, frames=1)
    assert [path.name for path in find_scenes([tmp_path])] == ["a", "b"]
    assert find_scenes([tmp_path / "b"]) == [tmp_path / "b"]


def test_nothing_found_is_said(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_scenes([tmp_path / "missing"])
    with pytest.raises(DataError, match="no scene found"):
        find_scenes([tmp_path])
    (tmp_path / "chess.zip").touch()
    with pytest.raises(DataError, match=r"unzip chess\.zip"):
        find_scenes([tmp_path])
    with pytest.raises(DataError, match="not a scene in a known layout"):
        load_scene(tmp_path)


def test_a_scene_is_named_in_letters_digits_and_dashes(tmp_path):
    assert load_scene(write_scene(tmp_path / "Küche (alt) 1")).name == "K_che_alt_1"


def test_scenes_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        write_scene(tmp_path / folder / "room", frames=1)
    with pytest.raises(DataError, match="names repeat"):
        find_scenes([tmp_path / "one", tmp_path / "two"])


def test_robot_description(scene):
    assert load_robot(scene) is None
    still = [0, 0, 0, 1]
    optical = [-0.5, 0.5, -0.5, 0.5]
    transforms = [
        ("base_link", "camera_link", [1, 0, 0.5], still),
        ("camera_link", "optical", [0, 0, 0], optical),
    ]
    keys = ("parent", "child", "translation", "rotation_xyzw")
    robot = {
        "odom_frame": "odom",
        "base_frame": "base_link",
        "camera_frame": "camera_link",
        "optical_frame": "optical",
        "static_transforms": [dict(zip(keys, transform, strict=True)) for transform in transforms],
    }
    (scene / "robot.json").write_text(json.dumps(robot))
    base_from_optical = load_robot(scene).base_from_optical
    assert np.allclose(
        base_from_optical @ [0, 0, 1, 1], [2, 0, 0.5, 1]
    )  # ahead of the camera is ahead of the base

    robot["static_transforms"].pop()
    (scene / "robot.json").write_text(json.dumps(robot))
    with pytest.raises(DataError, match="no static transforms lead"):
        _ = load_robot(scene).base_from_optical
    (scene / "robot.json").write_text("{}")
    with pytest.raises(DataError, match="not a robot description"):
        load_robot(scene)


def test_tum_round_trip(tmp_path, scene):
    frames = load_scene(scene).frames("train")
    path = tmp_path / "trajectory.txt"
    write_tum(path, [(frame.timestamp, frame.world_from_camera) for frame in frames])
    stamps, poses = read_tum(path)
    assert stamps.tolist() == pytest.approx([frame.timestamp for frame in frames])
    assert np.allclose(poses, [frame.world_from_camera for frame in frames], atol=1e-8)


@pytest.mark.parametrize("content", ["1 2 3\n", "a b c d e f g h\n", "0 0 0 nan 0 0 0 1\n"])
def test_broken_tum_files_are_named(tmp_path, content):
    path = tmp_path / "trajectory.txt"
    path.write_text(content)
    with pytest.raises(DataError, match="TUM"):
        read_tum(path)
