"""The filter: its algebra against Monte Carlo, its honesty when fixes err alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.covariance import carried, normalised_error_squared, pose_difference
from ofvl_core.fusion import FLOOR, Belief, Fix, FusionOptions, largest_deviations
from ofvl_core.geometry import transform_from_rotation_vector

INDEPENDENT = FusionOptions(correlated_share=0.0)
COVARIANCE = np.diag([0.05**2, 0.04**2, 0.03**2, 0.01**2, 0.02**2, 0.03**2])


def drawn(random, pose, covariance):
    """A pose that a `pose` with this covariance may truly be."""
    error = random.multivariate_normal(np.zeros(6), covariance)
    result = transform_from_rotation_vector(error[3:], np.zeros(3)) @ pose
    result[:3, 3] = pose[:3, 3] + error[:3]
    return result


def some_pose(random):
    return transform_from_rotation_vector(random.normal(size=3), random.normal(size=3) * 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_two_independent_fixes_give_their_information_together(seed):
    random = np.random.default_rng(seed)
    pose = some_pose(random)
    first, second = np.diag(random.uniform(0.01, 0.1, 6)), np.diag(random.uniform(0.01, 0.1, 6))
    belief = Belief.of_fix(Fix(pose, first - FLOOR), INDEPENDENT).corrected(
        Fix(pose, second - FLOOR), INDEPENDENT
    )
    together = np.linalg.inv(np.linalg.inv(first) + np.linalg.inv(second))
    assert np.allclose(belief.covariance, together, atol=1e-9)
    assert np.allclose(belief.map_from_base, pose, atol=1e-9)


def test_an_update_moves_towards_a_better_fix():
    vague, sharp = np.eye(6) * 0.1**2, np.eye(6) * 1e-8
    there = transform_from_rotation_vector([0.02, -0.01, 0.03], [0.1, 0.2, -0.1])
    belief = Belief.of_prior(Fix(np.eye(4), vague * 100)).corrected(Fix(there, sharp), INDEPENDENT)
    assert np.abs(pose_difference(belief.map_from_base, there)).max() < 1e-2


def test_motion_carries_the_covariance_as_the_adjoint_does():
    random = np.random.default_rng(1)
    still = FusionOptions(drift_per_metre=0, turn_drift_per_metre=0, turn_drift_per_radian=0)
    pose, motion = some_pose(random), some_pose(random)
    before = Belief.of_fix(Fix(pose, COVARIANCE), still)
    after = before.moved(motion, 0.0, still)
    assert np.allclose(after.covariance, carried(before.covariance, pose, motion), atol=1e-12)
    assert np.allclose(after.map_from_base, pose @ motion)


@pytest.mark.parametrize("metres, radians", [(4.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
def test_odometry_drifts_with_the_root_of_the_way(metres, radians):
    options = FusionOptions()
    whole = transform_from_rotation_vector([0, 0, radians], [metres, 0, 0])
    start = Belief.of_prior(Fix(np.eye(4), np.eye(6) * 1e-12))
    _, rotation = largest_deviations(start.moved(whole, 0.0, options).covariance)
    expected = options.turn_drift_per_metre**2 * metres + options.turn_drift_per_radian**2 * radians
    assert rotation**2 == pytest.approx(expected, rel=1e-6)


def test_standing_still_leaves_the_error_that_views_share():
    """A hundred fixes from one view are worth little more than one."""
    options = FusionOptions()
    fix = Fix(np.eye(4), COVARIANCE)
    belief = Belief.of_fix(fix, options)
    for _ in range(100):
        belief = belief.moved(np.eye(4), 0.1, options).corrected(fix, options)
    kept = np.diag(belief.covariance) / np.diag(COVARIANCE + FLOOR)
    assert (kept > 0.95 * options.correlated_share).all()
    assert (kept < 1.0).all()


def test_the_bias_is_what_makes_standing_still_honest():
    """100 robots stand still: the true error of each is mostly the bias that its view gives all its fixes."""
    options, random = FusionOptions(), np.random.default_rng(0)
    errors = []
    for _ in range(100):
        shared = drawn(random, np.eye(4), COVARIANCE * options.correlated_share)
        beliefs = None
        for _ in range(30):
            fix = Fix(drawn(random, shared, COVARIANCE * (1 - options.correlated_share)), COVARIANCE)
            beliefs = (
                Belief.of_fix(fix, options)
                if beliefs is None
                else beliefs.moved(np.eye(4), 0.1, options).corrected(fix, options)
            )
        errors.append(normalised_error_squared(beliefs.map_from_base, beliefs.covariance, np.eye(4)))
    assert 0.85 <= np.mean(np.array(errors) <= 12.6) <= 1.0
    assert 3.0 < np.mean(errors) < 7.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_covariances_stay_covariances(seed):
    random, options = np.random.default_rng(seed), FusionOptions()
    belief = Belief.of_fix(Fix(some_pose(random), COVARIANCE), options)
    for _ in range(20):
        motion = transform_from_rotation_vector(random.normal(size=3) * 0.3, random.normal(size=3) * 0.3)
        belief = belief.moved(motion, 0.3, options)
        fix = Fix(drawn(random, belief.map_from_base, COVARIANCE), COVARIANCE * random.uniform(0.2, 5))
        belief = belief.corrected(fix, options)
        assert np.allclose(belief.joint, belief.joint.T, atol=1e-9)
        assert np.linalg.eigvalsh(belief.joint)[0] > 0
        rotation = belief.map_from_base[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


def test_motion_that_nobody_measured_is_forgiven():
    belief = Belief.of_fix(Fix(np.eye(4), COVARIANCE), FusionOptions())
    away = Fix(transform_from_rotation_vector([0, 0, 0.5], [1.0, 0, 0]), COVARIANCE)
    assert belief.squared_distance(away) > 100
    assert belief.squared_distance(away, (1.0, 0.5)) == pytest.approx(0, abs=1e-9)
    assert 0 < belief.squared_distance(away, (0.9, 0.4)) < belief.squared_distance(away)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0, -1.0])
def test_what_is_no_covariance_is_not_usable(broken):
    assert not Fix(np.eye(4), np.diag(np.full(6, broken))).is_usable()
    assert not Fix(np.full((4, 4), np.nan), COVARIANCE).is_usable()
    assert Fix(np.eye(4), COVARIANCE).is_usable()
