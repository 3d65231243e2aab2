"""Poses over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core.geometry import interpolate, transform_from_rotation_vector
from ofvl_core.stamped_path import StampedPath

SECOND = 1_000_000_000


def random_path(seed: int = 0, count: int = 5) -> StampedPath:
    """Poses a second apart, on stamps as large as today's."""
    random = np.random.default_rng(seed)
    poses = np.array([transform_from_rotation_vector(*random.normal(size=(2, 3))) for _ in range(count)])
    return StampedPath(1_760_000_000 * SECOND + np.arange(count) * SECOND, poses)


@given(fraction=st.floats(0, 1), leg=st.integers(0, 3))
def test_between_two_poses_it_is_the_straight_line_and_slerp(fraction, leg):
    path = random_path()
    asked = path.stamps[leg] + round(fraction * SECOND)
    expected = interpolate(path.poses[leg], path.poses[leg + 1], round(fraction * SECOND) / SECOND)
    np.testing.assert_allclose(path.at(np.array([asked]))[0], expected, atol=1e-7)


def test_at_its_stamps_it_is_its_poses():
    path = random_path()
    np.testing.assert_allclose(path.at(path.stamps), path.poses, atol=1e-9)


def test_it_is_held_beyond_its_ends():
    path = random_path()
    beyond = path.at(np.array([path.stamps[0] - SECOND, path.stamps[-1] + SECOND]))
    np.testing.assert_allclose(beyond, path.poses[[0, -1]], atol=1e-9)


def test_a_single_pose_holds_for_ever():
    path = StampedPath(np.array([5]), np.eye(4)[None])
    assert path.at(np.array([1, 9])).shape == (2, 4, 4)
    assert path.covers(np.array([5, 6]), 1.0).tolist() == [True, False]


@pytest.mark.parametrize(("largest_gap", "expected"), [(1.0, [0, 1, 1, 1, 0]), (0.9, [0, 0, 0, 0, 0])])
def test_it_covers_what_lies_between_poses_near_one_another(largest_gap, expected):
    path = random_path()
    asked = path.stamps[0] + np.array([-1, 0, SECOND // 2, 4 * SECOND, 4 * SECOND + 1])
    assert path.covers(asked, largest_gap).tolist() == [bool(value) for value in expected]


def test_an_empty_path_covers_nothing():
    path = StampedPath(np.empty(0, np.int64), np.empty((0, 4, 4)))
    assert not path.covers(np.array([1, 2]), 1.0).any()
