"""Motions added up: the path, how sure it is, rest and gaps."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.collaborative.odometry import OdometryOptions, Reading, VisualOdometry
from ofvl_core.collaborative.scale import ScaleEstimator
from ofvl_core.covariance import normalised_error_squared
from ofvl_core.fusion import Fix
from ofvl_core.geometry import Array, invert, transform, transform_from_rotation_vector

PERIOD = 100_000_000
BASE_FROM_CAMERA = transform((0.1, 0.02, 0.6), (-0.5, 0.5, -0.5, 0.5))
OPTIONS = OdometryOptions(scale_deviation=0.1, rotation_deviation=0.003)


class Drive:
    """A camera on a base, a network that measures its motion from the anchor, and the odometry of both."""

    def __init__(self, options: OdometryOptions = OPTIONS, prior: float = 0.1, unit: float = 1.0) -> None:
        self.scale = ScaleEstimator(prior, 20.0)
        self.odometry = VisualOdometry(options, self.scale)
        self.unit, self.stamp = unit, 0
        self.base, self.anchor = np.eye(4), BASE_FROM_CAMERA
        self.reading: Reading = self._update(None)

    def go(
        self,
        step: Array,
        error: Array | None = None,
        base_from_camera: Array = BASE_FROM_CAMERA,
        seconds: float = 0.1,
    ) -> Reading:
        """The base makes a step; the network's motion is off by `error` (4, 4), with metres of `unit`."""
        self.base = self.base @ step
        self.stamp += round(seconds * 1e9)
        motion = invert(self.anchor) @ self.base @ base_from_camera
        motion[:3, 3] /= self.unit
        self.reading = self._update(motion @ (np.eye(4) if error is None else error), base_from_camera)
        return self.reading

    def _update(self, motion: Array | None, base_from_camera: Array = BASE_FROM_CAMERA) -> Reading:
        assert self.odometry.follows(self.stamp)
        reading = self.odometry.update(self.stamp, motion, base_from_camera)
        if reading.is_anchor:
            self.anchor = self.base @ base_from_camera
        return reading


def forward(metres: float, radians: float = 0.0) -> Array:
    """A step of the base, which turns to the left."""
    return transform_from_rotation_vector((0.0, 0.0, radians), (metres, 0.0, 0.0))


STILL = np.eye(4)


def small(rng: np.random.Generator) -> Array:
    """What a network sees of a camera at rest."""
    return transform_from_rotation_vector(rng.uniform(-0.004, 0.004, 3), rng.uniform(-0.004, 0.004, 3))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.3, 0.3)), min_size=1, max_size=20))
def test_exact_motions_give_the_path_of_the_base(steps: list[tuple[float, float]]) -> None:
    drive = Drive()
    for step in steps:
        reading = drive.go(forward(*step))
        held = 0.0 if reading.is_anchor or not reading.is_resting else OPTIONS.rest_distance
        assert np.abs(reading.odom_from_base - drive.base).max() <= 2 * held + 1e-9
        for covariance in (reading.covariance, reading.velocity_covariance):
            assert np.linalg.eigvalsh(covariance)[0] > 0


def test_the_velocity_is_that_of_the_base() -> None:
    drive = Drive()
    reading = drive.go(forward(0.05, 0.03))
    np.testing.assert_allclose(reading.velocity, [0.5, 0, 0, 0, 0, 0.3], atol=1e-9)
    turning = drive.go(forward(0.0, 0.1))  # the camera drives a circle, the base does not
    np.testing.assert_allclose(turning.velocity, [0, 0, 0, 0, 0, 1.0], atol=1e-9)
    deviations = np.sqrt(np.diag(turning.velocity_covariance))
    assert 0.05 < deviations[0] < 0.5


def test_a_head_that_turns_moves_no_base() -> None:
    drive = Drive()
    for number in range(1, 30):
        pan = transform_from_rotation_vector((0.0, 0.0, 0.05 * number), np.zeros(3))
        reading = drive.go(STILL, base_from_camera=pan @ BASE_FROM_CAMERA)
        np.testing.assert_allclose(reading.odom_from_base, np.eye(4), atol=1e-9)
        np.testing.assert_allclose(reading.velocity, 0.0, atol=1e-9)


# ------------------------------------------------------------------------------------------------ honesty


def errors_alike(rng: np.random.Generator) -> Iterator[tuple[float, Array]]:
    """Errors of motions, neighbours of which are alike: of the length's logarithm and of the rotation."""
    error = rng.normal(size=4)
    while True:
        yield OPTIONS.scale_deviation * error[0], OPTIONS.rotation_deviation * error[1:]
        error = 2 / 3 * error + np.sqrt(1 - 4 / 9) * rng.normal(size=4)


@pytest.mark.parametrize("fixes", [False, True])
def test_the_covariance_is_honest(fixes: bool) -> None:
    squared = []
    map_from_odom = transform((5.0, 3.0, 0.0), (0.0, 0.0, 0.6, 0.8))
    covariance = np.diag([0.05**2] * 3 + [0.03**2] * 3)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        drive = Drive(prior=0.2, unit=float(np.exp(rng.normal(0, 0.2))))
        for number, (stretch, turn) in zip(range(120), errors_alike(rng), strict=False):
            step = forward(0.05, 0.05 * np.sin(number / 20))
            moved = invert(drive.anchor) @ drive.base @ step @ BASE_FROM_CAMERA
            error = transform_from_rotation_vector(turn, np.zeros(3))
            error[:3, 3] = moved[:3, :3].T @ moved[:3, 3] * (np.exp(stretch) - 1) / drive.unit
            drive.go(step, error)
            if fixes and number % 5 == 0:
                noise = rng.multivariate_normal(np.zeros(6), covariance)
                seen = map_from_odom @ drive.base @ BASE_FROM_CAMERA
                seen[:3, :3] = transform_from_rotation_vector(noise[3:], noise[:3])[:3, :3] @ seen[:3, :3]
                seen[:3, 3] += noise[:3]
                drive.scale.take(drive.stamp, Fix(seen, covariance))
        reading = drive.reading
        squared.append(normalised_error_squared(reading.odom_from_base, reading.covariance, drive.base))
    assert 2.0 < np.mean(squared) < 12.0  # 6 where it is exact


def test_the_scale_s_uncertainty_grows_with_the_path_and_ends_with_fixes() -> None:
    sure, unsure = Drive(prior=0.03), Drive(prior=0.3)
    for _ in range(100):
        sure.go(forward(0.1))
        unsure.go(forward(0.1))
    along = [np.sqrt(drive.reading.covariance[0, 0]) for drive in (sure, unsure)]
    assert along[1] == pytest.approx(np.hypot(along[0], 10 * 0.3), rel=0.05)
    assert unsure.reading.covariance[1, 1] == pytest.approx(sure.reading.covariance[1, 1], rel=0.05)


def test_a_new_scale_holds_for_motions_to_come_alone() -> None:
    drive = Drive(prior=0.5)
    for _ in range(20):
        drive.go(forward(0.1))
    before = drive.reading
    drive.scale.log_scale, drive.scale.deviation = float(np.log(2.0)), 0.05
    after = drive.go(forward(0.1))
    np.testing.assert_allclose(before.odom_from_base[:3, 3], [2.0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(after.odom_from_base[:3, 3], [2.2, 0, 0], atol=1e-9)
    grown = np.sqrt(after.covariance[0, 0]) - np.sqrt(before.covariance[0, 0])
    assert abs(grown) < 0.05  # what is wrong in the path stays, and hardly grows


# ------------------------------------------------------------------------------------------------ rest, gaps


def test_a_robot_at_rest_does_not_drift() -> None:
    rng, drive = np.random.default_rng(0), Drive()
    for _ in range(20):
        drive.go(forward(0.05))
    stood = drive.base[:3, 3].copy()
    bias = transform_from_rotation_vector((0.001, 0.0, 0.0), (0.0, 0.0, 0.003))
    readings = [drive.go(STILL, bias @ small(rng)) for _ in range(600)]
    resting = readings[10:]
    assert all(reading.is_resting and not reading.velocity.any() for reading in resting)
    assert len({reading.odom_from_base.tobytes() for reading in resting}) == 1
    assert np.linalg.norm(resting[-1].odom_from_base[:3, 3] - stood) < 0.02
    np.testing.assert_allclose(resting[-1].covariance, resting[0].covariance)


def test_a_robot_that_creeps_is_not_taken_to_stand() -> None:
    drive = Drive()
    for _ in range(500):
        drive.go(forward(0.0007))  # 7 mm a second
    assert drive.reading.odom_from_base[0, 3] == pytest.approx(drive.base[0, 3], abs=0.011)


def test_many_images_of_a_slow_motion_lose_nothing() -> None:
    drive = Drive()
    for _ in range(300):
        reading = drive.go(forward(0.004), seconds=1 / 60)
        np.testing.assert_allclose(reading.odom_from_base, drive.base, atol=1e-9)
        assert reading.velocity[0] == pytest.approx(0.24, rel=1e-6)


def test_after_a_gap_the_robot_went_on_and_nobody_is_sure() -> None:
    drive = Drive()
    for _ in range(10):
        drive.go(forward(0.05))
    before = drive.reading
    assert drive.odometry.is_near(drive.stamp + PERIOD)
    assert not drive.odometry.is_near(drive.stamp + 10 * PERIOD)
    after = drive.go(forward(0.4), seconds=0.9)
    assert after.unseen == pytest.approx(0.9)
    assert after.odom_from_base[0, 3] == pytest.approx(before.odom_from_base[0, 3] + 0.45, abs=1e-6)
    deviations = [np.sqrt(np.diag(reading.covariance)) for reading in (before, after)]
    assert (deviations[1] > deviations[0] + 0.3).all()
    longer = drive.go(forward(0.0), seconds=60.0)
    assert longer.odom_from_base[0, 3] == pytest.approx(after.odom_from_base[0, 3] + 0.5, abs=1e-6)
    assert np.isfinite(longer.covariance).all()
    assert drive.go(forward(0.05)).unseen == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_passed_on(bad: float) -> None:
    drive = Drive()
    for _ in range(10):
        drive.go(forward(0.05))
    error = np.full((4, 4), bad)
    with np.errstate(invalid="ignore"):
        reading = drive.go(forward(0.05), error)
    assert reading.unseen == pytest.approx(0.1)
    assert np.isfinite(reading.odom_from_base).all()
    np.testing.assert_allclose(reading.odom_from_base, drive.base, atol=1e-6)


def test_time_that_does_not_go_on_is_told_and_may_start_over() -> None:
    drive = Drive()
    drive.go(forward(0.05))
    assert not drive.odometry.follows(drive.stamp)
    drive.odometry.start_over()
    assert drive.odometry.follows(0)
    assert drive.odometry.is_empty
    again = drive.odometry.update(0, None, BASE_FROM_CAMERA)
    np.testing.assert_allclose(again.odom_from_base, np.eye(4), atol=1e-12)
