"""Rigid alignment of points that are known in two frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.alignment import align, rigid

SEEDS = st.integers(0, 2**32 - 1)


def moved_points(random, count):
    """A transform, points, and where it takes them."""
    a_from_b = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3) * 5)
    points = random.normal(size=(count, 3))
    return a_from_b, points, geometry.apply(a_from_b, points)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.integers(3, 20), st.booleans())
def test_exact_points_give_the_exact_transform(seed, count, flat):
    """Also three of them, or many in a plane, where a reflection fits as well."""
    random = np.random.default_rng(seed)
    a_from_b, points, _ = moved_points(random, count)
    points[:, 2] *= not flat
    found = rigid(points, geometry.apply(a_from_b, points), random.uniform(0.1, 1, count))
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)
    assert np.allclose(found, a_from_b, atol=1e-4)


def test_many_alignments_at_once_are_each_of_them():
    random = np.random.default_rng(0)
    points, measured = random.normal(size=(2, 2, 7, 4, 3))
    weights = random.uniform(0.1, 1, (2, 7, 4))
    together = rigid(points, measured, weights)
    assert np.allclose(together[1, 3], rigid(points[1, 3], measured[1, 3], weights[1, 3]))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_weights_are_inverse_variances(seed):
    """Points that count for nothing may lie anywhere."""
    random = np.random.default_rng(seed)
    a_from_b, points, measured = moved_points(random, 12)
    measured[6:] += random.normal(size=(6, 3))
    weights = np.where(np.arange(12) < 6, 1.0, 1e-12)
    assert np.allclose(rigid(points, measured, weights), a_from_b, atol=1e-4)


@pytest.mark.parametrize("inlier_share", [0.15, 0.3, 0.6, 1.0])
def test_transform_among_outliers(inlier_share):
    for seed in range(10):
        random = np.random.default_rng(seed)
        a_from_b, points, measured = moved_points(random, 300)
        outliers = np.arange(300) >= inlier_share * 300
        measured += random.normal(scale=0.01, size=measured.shape)
        measured[outliers] += random.normal(size=(outliers.sum(), 3))
        metres, degrees = geometry.pose_error(align(points, measured, np.full(300, 0.05), 12), a_from_b)
        assert metres < 0.02
        assert degrees < 1


def test_nothing_to_align():
    points, others = np.random.default_rng(1).normal(size=(2, 50, 3))
    assert align(points[:11], points[:11], np.ones(11), 12) is None
    assert align(points, others, np.full(50, 0.3), 12) is None
    assert align(points, others, np.full(50, 0.3), 3) is not None
    assert align(np.zeros((50, 3)), points, np.full(50, 1e-3), 12) is None
