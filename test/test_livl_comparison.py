"""Two trajectories of one drive."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_core.livl.comparison import aligned, compare
from ofvl_core.stamped_path import StampedPath


def lap(count: int = 100) -> StampedPath:
    """Once around a circle of 3 m radius in 10 s."""
    angles = np.linspace(0, 2 * np.pi, count)
    poses = [
        transform_from_rotation_vector((0, 0, angle + np.pi / 2), (3 * np.cos(angle), 3 * np.sin(angle), 0))
        for angle in angles
    ]
    return StampedPath((np.arange(count) * 1e8).astype(np.int64), np.array(poses))


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_the_frame_of_a_path_does_not_matter(numbers):
    path = lap()
    moved = StampedPath(path.stamps, transform_from_rotation_vector(numbers[:3], numbers[3:]) @ path.poses)
    result = compare(path, moved)
    assert result.position < 1e-6 and result.rotation < 1e-6
    assert not result.parted
    assert result.way == pytest.approx(6 * np.pi, rel=0.01)


def test_a_straight_drive_leaves_nothing_open():
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 5, 20)
    turned = transform_from_rotation_vector((0.4, 0, 0), (1, 2, 3))
    np.testing.assert_allclose(aligned(poses, np.linalg.inv(turned) @ poses), turned, atol=1e-9)


def test_drift_is_seen_and_the_worst_place_named():
    path = lap()
    drifting = path.poses.copy()
    drifting[80:, 0, 3] += 1.0
    result = compare(path, StampedPath(path.stamps, drifting))
    assert result.parted
    assert result.largest > 0.5
    assert result.largest_at >= 8.0


def test_another_scale_is_seen():
    path = lap()
    scaled = path.poses.copy()
    scaled[:, :3, 3] *= 1.2
    assert compare(path, StampedPath(path.stamps, scaled)).parted


def test_paths_of_different_times_cannot_be_compared():
    path = lap()
    assert compare(path, StampedPath(path.stamps + 10**12, path.poses)) is None
