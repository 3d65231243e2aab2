"""Rigid transforms: round trips and errors, for any pose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ofvl_core import geometry

numbers = st.floats(-100, 100)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)
angles = st.tuples(*[st.floats(-3.0, 3.0)] * 3).map(np.array)
poses = st.builds(geometry.transform_from_rotation_vector, angles, vectors)


@given(poses, vectors)
def test_inverse_undoes_a_transform(a_from_b, point):
    b_from_a = geometry.invert(a_from_b)
    assert np.allclose(a_from_b @ b_from_a, np.eye(4), atol=1e-9)
    there = geometry.apply(a_from_b, point[None])
    assert np.allclose(geometry.apply(b_from_a, there)[0], point, atol=1e-9)


@given(poses)
def test_quaternion_round_trip(pose):
    quaternion = geometry.quaternion_xyzw(pose)
    assert quaternion[3] >= 0
    assert np.allclose(geometry.transform(pose[:3, 3], quaternion), pose, atol=1e-9)


@given(poses, poses, st.floats(0, 1))
def test_interpolation_moves_at_constant_speed(start, end, fraction):
    between = geometry.interpolate(start, end, fraction)
    whole_m, whole_deg = geometry.pose_error(start, end)
    part_m, part_deg = geometry.pose_error(start, between)
    assert part_m == pytest.approx(fraction * whole_m, abs=1e-6)
    if whole_deg < 179:  # at 180 degrees there are two shortest ways
        assert part_deg == pytest.approx(fraction * whole_deg, abs=1e-4)


@given(poses, angles, vectors)
def test_pose_error_does_not_depend_on_the_world_frame(pose, rotation, shift):
    other = pose @ geometry.transform_from_rotation_vector(rotation * 0.1, shift * 0.01)
    moved = geometry.transform_from_rotation_vector(rotation, shift)
    before = geometry.pose_error(other, pose)
    after = geometry.pose_error(moved @ other, moved @ pose)
    assert after == pytest.approx(before, abs=1e-5)


def test_pose_error_of_a_known_motion():
    moved = geometry.transform_from_rotation_vector(np.radians([0, 30, 0]), [3, 0, 4])
    metres, degrees = geometry.pose_error(moved, np.eye(4))
    assert metres == pytest.approx(5)
    assert degrees == pytest.approx(30)


def test_nearest_rigid_mends_rounding():
    pose = geometry.transform_from_rotation_vector([0.3, -0.2, 0.9], [1, 2, 3])
    mended = geometry.nearest_rigid(np.round(pose, 3))
    assert np.allclose(mended[:3, :3] @ mended[:3, :3].T, np.eye(3), atol=1e-12)
    assert Rotation.from_matrix(mended[:3, :3].T @ pose[:3, :3]).magnitude() < 1e-3
