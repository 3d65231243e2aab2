"""The scale of the network's path, from poses that somebody else tells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.collaborative.scale import (
    LEAST_DEVIATION,
    LEAST_FIXES,
    MOST_FIXES,
    ScaleEstimator,
    Waypoint,
)
from ofvl_core.fusion import Fix
from ofvl_core.geometry import Array, transform, transform_from_rotation_vector

PERIOD = 100_000_000
STEP = 0.1
"""Units of the network's path between two waypoints."""

MAP = transform((40.0, -7.0, 2.0), (0.0, 0.0, 0.6, 0.8))
SURE = np.diag([0.02**2] * 3 + [0.01**2] * 3)


def path(count: int, bend: float = 0.03) -> list[Waypoint]:
    """A bent path of the network, exact but for what it says of itself."""
    pose, waypoints = np.eye(4), []
    for number in range(count):
        variances = (1e-4 * number, 1e-6 * number)
        waypoints.append(Waypoint(number * PERIOD, pose, STEP * number, *variances))
        pose = pose @ transform_from_rotation_vector((0.0, bend, 0.2 * bend), (0.0, 0.0, STEP))
    return waypoints


def seen(waypoint: Waypoint, scale: float, noise: Array | None = None, covariance: Array = SURE) -> Fix:
    """The fix of a waypoint in a map, where the path is `scale` times as long."""
    pose = waypoint.path_from_camera.copy()
    pose[:3, 3] *= scale
    pose = MAP @ pose
    if noise is not None:
        pose[:3, :3] = transform_from_rotation_vector(noise[3:], np.zeros(3))[:3, :3] @ pose[:3, :3]
        pose[:3, 3] += noise[:3]
    return Fix(pose, covariance)


def driven(
    scale: float, count: int = 120, prior: float = 0.5, window: float = 20.0, **changes: float
) -> ScaleEstimator:
    """An estimator after a drive with exact fixes."""
    estimator = ScaleEstimator(prior, window)
    for waypoint in path(count, **changes):
        estimator.pass_by(waypoint)
        estimator.take(waypoint.stamp, seen(waypoint, scale))
    return estimator


@settings(max_examples=8, deadline=None)
@given(st.floats(0.4, 2.5), st.floats(0.0, 0.06))
def test_exact_fixes_give_the_scale(scale: float, bend: float) -> None:
    estimator = driven(scale, count=60, bend=bend)
    assert estimator.scale == pytest.approx(scale, rel=0.01)
    assert LEAST_DEVIATION <= estimator.deviation < 0.06


def test_the_prior_stays_without_fixes_and_without_motion() -> None:
    estimator = ScaleEstimator(0.25, 20.0)
    assert (estimator.scale, estimator.deviation, estimator.fixes) == (1.0, 0.25, 0)
    start, rng = path(1)[0], np.random.default_rng(0)
    for number in range(200):
        waypoint = start._replace(stamp=number * PERIOD)
        estimator.pass_by(waypoint)
        estimator.take(waypoint.stamp, seen(waypoint, 1.5, rng.normal(0, 0.02, 6)))
    assert (estimator.scale, estimator.deviation, estimator.fixes) == (1.0, 0.25, 1)


def test_the_deviation_is_honest() -> None:
    errors, deviations = [], []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        covariance = np.diag([0.2**2] * 3 + [0.03**2] * 3)
        estimator = ScaleEstimator(0.4, 20.0)
        for waypoint in path(60):
            estimator.pass_by(waypoint)
            if waypoint.stamp % (5 * PERIOD) == 0:
                noise = rng.multivariate_normal(np.zeros(6), covariance)
                estimator.take(waypoint.stamp, seen(waypoint, 1.3, noise, covariance))
        errors.append(estimator.log_scale - np.log(1.3))
        deviations.append(estimator.deviation)
    assert 0.3 < np.std(errors) / np.mean(deviations) < 1.3
    assert np.mean(deviations) < 0.2


@pytest.mark.parametrize("share", [0.2, 0.4])
@pytest.mark.parametrize("scale", [0.7, 1.5])
def test_fixes_of_wrong_places_do_not_spoil_it(share: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    estimator = ScaleEstimator(0.4, 20.0)
    for waypoint in path(150):
        noise = rng.normal(0, 0.02, 6)
        if rng.random() < share:
            noise[:3] += rng.normal(0, 4.0, 3)
        estimator.pass_by(waypoint)
        estimator.take(waypoint.stamp, seen(waypoint, scale, noise))
    assert estimator.scale == pytest.approx(scale, rel=0.08)


def test_uncertain_fixes_count_little() -> None:
    vague = np.diag([10.0**2] * 3 + [0.5**2] * 3)
    estimator = ScaleEstimator(0.1, 20.0)
    for waypoint in path(120):
        estimator.pass_by(waypoint)
        estimator.take(waypoint.stamp, seen(waypoint, 2.0, None, vague))
    assert abs(estimator.log_scale) < 0.1
    assert estimator.deviation > 0.08


def test_fixes_may_come_late_early_and_between_waypoints() -> None:
    waypoints = path(120)
    late, early = ScaleEstimator(0.5, 20.0), ScaleEstimator(0.5, 20.0)
    for number, waypoint in enumerate(waypoints):
        early.take(waypoint.stamp, seen(waypoint, 1.4))
        early.pass_by(waypoint)
        if number % 2 == 0 or number == len(waypoints) - 1:
            late.pass_by(waypoint)
        if number >= 10:
            late.take(waypoints[number - 10].stamp, seen(waypoints[number - 10], 1.4))
    assert early.scale == pytest.approx(1.4, rel=0.01)
    assert late.scale == pytest.approx(1.4, rel=0.02)


def test_a_fix_older_than_the_path_or_of_no_use_is_ignored() -> None:
    estimator = ScaleEstimator(0.5, 20.0)
    for waypoint in path(100):
        estimator.pass_by(waypoint)
    ahead = path(100)[-1]
    estimator.take(0, seen(path(1)[0], 1.4))
    estimator.take(ahead.stamp, Fix(np.full((4, 4), np.nan), SURE))
    estimator.take(ahead.stamp, Fix(np.eye(4), np.zeros((6, 6))))
    assert estimator.fixes == 0


def test_what_was_seen_before_a_break_still_counts_but_not_across_it() -> None:
    estimator = driven(1.4)
    before = estimator.fixes
    estimator.break_path()
    elsewhere = transform((100.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0))
    for waypoint in path(120):
        moved = waypoint._replace(
            stamp=waypoint.stamp + 1000 * PERIOD,
            path_from_camera=elsewhere @ waypoint.path_from_camera,
            length=waypoint.length + STEP * 120,
        )
        estimator.pass_by(moved)
        estimator.take(moved.stamp, seen(waypoint, 1.4))
    assert estimator.scale == pytest.approx(1.4, rel=0.01)
    assert before < estimator.fixes


def test_the_window_forgets_another_scale_of_long_ago() -> None:
    estimator = ScaleEstimator(0.5, 5.0)
    shift = np.zeros(3)
    for number, waypoint in enumerate(path(300, bend=0.0)):
        scale = 1.5 if number < 150 else 0.8
        if number == 150:
            shift = (1.5 - 0.8) * waypoint.path_from_camera[:3, 3]
        fix = seen(waypoint, scale)
        fix.map_from_base[:3, 3] += MAP[:3, :3] @ shift if number >= 150 else 0.0
        estimator.pass_by(waypoint)
        estimator.take(waypoint.stamp, fix)
        assert estimator.fixes <= 22
    assert estimator.scale == pytest.approx(0.8, rel=0.02)


def test_memory_is_bounded() -> None:
    estimator = driven(1.0, count=5 * MOST_FIXES, window=1e6)
    assert LEAST_FIXES < estimator.fixes == MOST_FIXES


def test_starting_over_keeps_the_scale() -> None:
    estimator = driven(1.4)
    scale = estimator.scale
    estimator.start_over()
    assert (estimator.scale, estimator.fixes) == (scale, 0)
