"""Transforms between frames, from tf as it was recorded."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_helpers import ROS1, ROS2, SECOND, write_bag

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, invert, transform_from_rotation_vector
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.tf_tree import TfTree

START = 1000 * SECOND


def some_transform(seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return transform_from_rotation_vector(rng.normal(size=3), rng.normal(size=3))


def along_x(metres: float) -> Array:
    return transform_from_rotation_vector((0, 0, 0), (metres, 0, 0))


@given(
    parents=st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    still=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_two_frames_of_a_tree_are_connected(parents: list[int], still: bool, seed: int) -> None:
    """Frame n hangs on one of those before it; with `still` on /tf, where it never changes."""
    tree, root_from = TfTree(), [np.eye(4)]
    for child, number in enumerate(parents, 1):
        parent = number % child
        parent_from_child = some_transform(seed + child)
        root_from.append(root_from[parent] @ parent_from_child)
        for stamp in (START, START + SECOND) if still else (START,):
            message = ROS2.tf(stamp, (f"/frame{parent}", f"frame{child}", parent_from_child))
            tree.add(message, is_static=not still)
    for a, root_from_a in enumerate(root_from):
        for b, root_from_b in enumerate(root_from):
            found = tree.static(f"frame{a}", f"/frame{b}")
            np.testing.assert_allclose(found, invert(root_from_a) @ root_from_b, atol=1e-9)
    if not still:
        assert {tree.root(f"frame{number}") for number in range(len(root_from))} == {"frame0"}


@pytest.mark.parametrize("ros", [ROS1, ROS2])
def test_a_bags_tree_is_read(tmp_path: Path, ros: object) -> None:
    storage = "ros1" if ros is ROS1 else "mcap"
    make = ROS1 if ros is ROS1 else ROS2
    base_from_lidar, lidar_from_camera = some_transform(1), some_transform(2)
    bag = write_bag(
        tmp_path / "drive.bag",
        [
            ("/tf_static", START, make.tf(0, ("base", "velodyne", base_from_lidar))),
            ("/tf_static", START, make.tf(0, ("velodyne", "camera", lidar_from_camera))),
            *[
                ("/tf", START + n * SECOND, make.tf(START + n * SECOND, ("/odom", "/base", along_x(n))))
                for n in range(4)
            ],
        ],
        storage,
    )
    with Recording(bag) as recording:
        tree = TfTree.from_recording(recording)
    np.testing.assert_allclose(tree.static("camera", "base"), invert(base_from_lidar @ lidar_from_camera))
    path = tree.path("odom", "camera")
    np.testing.assert_array_equal(path.stamps, START + np.arange(4) * SECOND)
    np.testing.assert_allclose(path.poses[3], along_x(3) @ base_from_lidar @ lidar_from_camera, atol=1e-12)
    np.testing.assert_allclose(tree.path("camera", "odom").poses, invert(path.poses), atol=1e-12)
    assert tree.root("camera") == "base"


def test_moving_transforms_are_joined_at_the_stamps_of_the_faster() -> None:
    tree = TfTree()
    for tenth in range(11):
        stamp = START + tenth * SECOND // 10
        tree.add(ROS2.tf(stamp, ("odom", "base", along_x(tenth))), is_static=False)
        if tenth in (2, 8):
            tree.add(ROS2.tf(stamp, ("map", "odom", along_x(10.0 * tenth))), is_static=False)
    path = tree.path("map", "base")
    np.testing.assert_array_equal(path.stamps, START + np.arange(2, 9) * SECOND // 10)
    np.testing.assert_allclose(path.poses[:, 0, 3], 11.0 * np.arange(2, 9))


def test_a_transform_published_late_or_twice_is_in_its_place() -> None:
    tree = TfTree()
    for second in (0, 2, 1, 1):
        tree.add(ROS2.tf(START + second * SECOND, ("odom", "base", along_x(second))), is_static=False)
    path = tree.path("odom", "base")
    np.testing.assert_array_equal(path.stamps, START + np.arange(3) * SECOND)
    np.testing.assert_allclose(path.poses[:, 0, 3], [0, 1, 2])


def test_of_two_transforms_of_one_stamp_the_later_counts() -> None:
    tree = TfTree()
    for second, metres in ((0, 0), (2, 5), (1, 1), (2, 2), (0, 7)):
        tree.add(ROS2.tf(START + second * SECOND, ("odom", "base", along_x(metres))), is_static=False)
    np.testing.assert_allclose(tree.path("odom", "base").poses[:, 0, 3], [7, 1, 2])


def test_a_long_drives_transforms_need_little_memory() -> None:
    """Ten minutes of ten edges at 50 Hz are 300 000 transforms."""
    tree, count = TfTree(), 2000
    tracemalloc.start()
    for number in range(count):
        tree.add(ROS2.tf(START + number, ("odom", "base", along_x(number))), is_static=False)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count < 100
    np.testing.assert_allclose(tree.path("odom", "base").poses[:, 0, 3], np.arange(count))


def test_what_is_stated_takes_the_place_of_what_was_recorded() -> None:
    tree = TfTree()
    tree.add(ROS2.tf(0, ("camera", "velodyne", some_transform(1))), is_static=True)
    tree.set_static("velodyne", "camera", some_transform(2))
    np.testing.assert_allclose(tree.static("velodyne", "camera"), some_transform(2), atol=1e-12)


def test_what_is_not_connected_is_named() -> None:
    tree = TfTree()
    tree.add(ROS2.tf(0, ("base", "velodyne", np.eye(4)), ("camera_link", "color", np.eye(4))), is_static=True)
    for second in range(3):
        tree.add(ROS2.tf(START + second * SECOND, ("odom", "base", along_x(second))), is_static=False)
        tree.add(ROS2.tf(START + (second + 9) * SECOND, ("map", "odom", along_x(second))), is_static=False)
    with pytest.raises(
        DataError,
        match=r"no fixed transform between 'velodyne' and 'color': .* 'velodyne' with base; 'color' with ",
    ):
        tree.static("velodyne", "color")
    with pytest.raises(DataError, match="'odom' with nothing"):
        tree.static("velodyne", "odom")
    with pytest.raises(DataError, match="'none' with nothing"):
        tree.path("odom", "none")
    with pytest.raises(DataError, match="nothing that moves between 'base' and 'velodyne'"):
        tree.path("base", "velodyne")
    with pytest.raises(DataError, match="one after another, never at one time"):
        tree.path("map", "base")


def test_what_is_no_rotation_is_named() -> None:
    tree, message = TfTree(), ROS2.tf(0, ("base", "velodyne", np.eye(4)))
    message.transforms[0].transform.rotation.w = 0.0
    with pytest.raises(DataError, match=r"tf from 'base' to 'velodyne': .* not a unit quaternion"):
        tree.add(message, is_static=True)
