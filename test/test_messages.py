"""Poses and their covariances between messages and the core's types."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core.errors import ConfigError
from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_ros.messages import (
    UNSTATED_VARIANCES,
    pose,
    pose_matrix,
    pose_stamped,
    pose_with_covariance_stamped,
    prior_covariance,
)

ANGLES = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3)
METRES = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)
SEED = st.integers(0, 2**32 - 1)
YAW_VARIANCE = 0.06853891945200942


def rviz_covariance() -> np.ndarray:
    """What "2D Pose Estimate" publishes."""
    return np.diag([0.25, 0.25, 0.0, 0.0, 0.0, YAW_VARIANCE])


def with_covariance(covariance: np.ndarray) -> PoseWithCovariance:
    return PoseWithCovariance(covariance=covariance.ravel())


@given(ANGLES, METRES)
def test_poses_are_read_back(angles: list[float], metres: list[float]) -> None:
    frame_from_body = transform_from_rotation_vector(angles, metres)
    np.testing.assert_allclose(pose_matrix(pose(frame_from_body)), frame_from_body, atol=1e-12)


def test_stamped_poses_name_frame_and_time() -> None:
    map_from_base = transform_from_rotation_vector((0.1, 0.2, 0.3), (1, 2, 3))
    covariance = np.arange(36.0).reshape(6, 6)
    plain = pose_stamped(map_from_base, "map", Time(sec=7))
    full = pose_with_covariance_stamped(map_from_base, covariance, "map", Time(sec=7))
    assert plain.header == full.header
    assert (full.header.frame_id, full.header.stamp.sec) == ("map", 7)
    assert plain.pose == full.pose.pose
    assert full.pose.covariance[1] == covariance[0, 1]  # row by row
    assert full.pose.covariance[6] == covariance[1, 0]


@pytest.mark.parametrize(
    ("position", "orientation", "cause"),
    [
        ((0, 0, 0), (0, 0, 0, 0), "not a unit quaternion"),
        ((0, 0, 0), (0, 0, 1, 1), "not a unit quaternion"),
        ((0, 0, 0), (0, 0, 0, np.nan), "not a unit quaternion"),
        ((0, np.inf, 0), (0, 0, 0, 1), "finite metres"),
    ],
)
def test_what_is_no_pose_is_refused(position: tuple, orientation: tuple, cause: str) -> None:
    message = Pose(
        position=Point(**dict(zip("xyz", map(float, position), strict=True))),
        orientation=Quaternion(**dict(zip("xyzw", map(float, orientation), strict=True))),
    )
    with pytest.raises(ConfigError, match=cause):
        pose_matrix(message)


@given(SEED)
def test_a_stated_covariance_is_kept(seed: int) -> None:
    root = np.random.default_rng(seed).normal(size=(6, 6)) * [1, 1, 1, 1e-3, 1e-3, 1e-3]
    covariance = root.T @ root
    np.testing.assert_allclose(prior_covariance(with_covariance(covariance)), covariance, rtol=1e-9)


def test_what_rviz_leaves_open_is_not_certain() -> None:
    expected = np.diag([0.25, 0.25, 0.25, YAW_VARIANCE, YAW_VARIANCE, YAW_VARIANCE])
    np.testing.assert_allclose(prior_covariance(with_covariance(rviz_covariance())), expected)
    np.testing.assert_allclose(prior_covariance(PoseWithCovariance()), np.diag(UNSTATED_VARIANCES))
    np.testing.assert_allclose(expected, np.diag(UNSTATED_VARIANCES))


@pytest.mark.parametrize(
    "wrong",
    [
        {(0, 0): -1.0},
        {(0, 0): np.nan},
        {(5, 5): np.inf},
        {(0, 1): 0.1},
        {(0, 1): 0.3, (1, 0): 0.3},
        {(0, 2): 0.1, (2, 0): 0.1},
    ],
)
def test_what_is_no_covariance_is_refused(wrong: dict[tuple[int, int], float]) -> None:
    covariance = rviz_covariance()
    for place, value in wrong.items():
        covariance[place] = value
    with pytest.raises(ConfigError, match="symmetric 6x6 matrix"):
        prior_covariance(with_covariance(covariance))


@given(st.lists(st.floats(), min_size=36, max_size=36))
def test_any_36_numbers_are_a_covariance_or_refused(numbers: list[float]) -> None:
    symmetric = np.array(numbers).reshape(6, 6)
    symmetric = np.where(np.tri(6, dtype=bool), symmetric, symmetric.T)
    for covariance in (np.array(numbers), symmetric, np.diag(np.diag(symmetric))):
        try:
            prior = prior_covariance(with_covariance(covariance))
        except ConfigError:
            continue
        assert np.isfinite(prior).all()
        assert (np.diag(prior) > 0).all()
