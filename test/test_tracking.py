"""The tracker on simulated drives: drifting odometry, fixes that err alike, outliers, kidnapping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.covariance import normalised_error_squared
from ofvl_core.fusion import Fix
from ofvl_core.geometry import interpolate, invert, pose_error, transform_from_rotation_vector
from ofvl_core.tracking import BACKWARDS, Tracker, TrackingOptions

OPTIONS = TrackingOptions()
COVARIANCE = np.diag([0.06**2, 0.06**2, 0.04**2, 0.02**2, 0.02**2, 0.03**2])
PERIOD = 0.2  # seconds between images
CARRIED = transform_from_rotation_vector([0, 0, 2.0], [3.0, -2.0, 0])


def step(speed, turn):
    return transform_from_rotation_vector([0, 0, turn * PERIOD], [speed * PERIOD, 0, 0])


class Robot:
    """Truth, odometry and fixes of a robot, image by image.

    A fix's error is a Gauss-Markov process over the true motion, as `ofvl_core.fusion` has it; a share of
    the fixes are gross `outliers`. Odometry has scale errors of 1 % and noise.
    """

    def __init__(self, seed, outliers=0.0):
        self.random, self.outliers = np.random.default_rng(seed), outliers
        self.map_from_base = transform_from_rotation_vector([0, 0, 0.4], [2.0, 1.0, 0.0])
        self.odom_from_base = np.eye(4)
        self.stamp = 100.0
        self.bias = self.random.normal(size=6)
        self.scales = 1 + self.random.normal(0, 0.01, 2)

    def drive(self, speed, turn):
        self.stamp += PERIOD
        self.map_from_base = self.map_from_base @ step(speed, turn)
        noise = self.random.normal(size=2) * 0.01 * np.sqrt([abs(speed) * PERIOD, abs(turn) * PERIOD])
        measured = np.array([speed, turn]) * self.scales + noise / PERIOD
        self.odom_from_base = self.odom_from_base @ step(*measured)
        kept = np.exp(
            -abs(speed) * PERIOD / OPTIONS.correlation_distance
            - abs(turn) * PERIOD / OPTIONS.correlation_angle
        )
        self.bias = kept * self.bias + np.sqrt(1 - kept**2) * self.random.normal(size=6)

    def fix(self):
        share = OPTIONS.correlated_share
        unit = np.sqrt(share) * self.bias + np.sqrt(1 - share) * self.random.normal(size=6)
        error = np.sqrt(np.diag(COVARIANCE)) * unit
        if self.random.random() < self.outliers:
            error = self.random.normal(size=6) * [2, 2, 0.3, 0.3, 0.3, 1.5]
        pose = transform_from_rotation_vector(error[3:], np.zeros(3)) @ self.map_from_base
        pose[:3, 3] = self.map_from_base[:3, 3] + error[:3]
        return Fix(pose, COVARIANCE)

    def see(self, tracker, odometry=True, fix=True):
        return tracker.update(
            self.stamp, self.odom_from_base if odometry else None, self.fix() if fix else None
        )

    def error(self, track):
        return pose_error(track.map_from_base, self.map_from_base)


def course(number):
    """Speed and turn rate of image `number`: bends, straights, turns on the spot."""
    phase = number // 15 % 4
    return [(0.5, 0.0), (0.3, 0.5), (0.0, -0.7), (0.5, -0.2)][phase]


def started(seed=0, **kinds):
    """A robot that drives and a tracker that follows it."""
    robot, tracker = Robot(seed, **kinds), Tracker()
    for number in range(20):
        robot.drive(*course(number))
        track = robot.see(tracker)
    assert track.state == "tracking"
    return robot, tracker


@pytest.mark.parametrize("seed", range(4))
def test_a_drive_is_sharpened_honestly_and_outliers_are_rejected(seed):
    robot, tracker = Robot(seed, outliers=0.1), Tracker()
    single, fused, normalised, rejected = [], [], [], 0
    for number in range(400):
        robot.drive(*course(number))
        fix = robot.fix()
        track = tracker.update(robot.stamp, robot.odom_from_base, fix)
        rejected += track.state == "rejected"
        if track.map_from_base is not None:
            single.append(pose_error(fix.map_from_base, robot.map_from_base))
            fused.append(robot.error(track))
            normalised.append(
                normalised_error_squared(track.map_from_base, track.covariance, robot.map_from_base)
            )
    single, fused = np.median(single, axis=0), np.median(fused, axis=0)
    assert len(normalised) > 330
    assert 15 < rejected < 70
    assert (fused < 0.7 * single).all()
    assert np.mean(np.array(normalised) <= 12.6) >= 0.85


@pytest.mark.parametrize(
    "motion",
    [course, lambda _: (0.0, 0.0), lambda _: (0.0, 0.6)],
    ids=["driving", "standing", "turning on the spot"],
)
def test_normalised_errors_of_many_robots_are_those_of_an_honest_covariance(motion):
    normalised = []
    for seed in range(40):
        robot, tracker = Robot(seed), Tracker()
        for number in range(60):
            robot.drive(*motion(number))
            track = robot.see(tracker)
        normalised.append(
            normalised_error_squared(track.map_from_base, track.covariance, robot.map_from_base)
        )
    assert 0.85 <= np.mean(np.array(normalised) <= 12.6) <= 1.0
    assert 3.0 < np.mean(normalised) < 9.0


def test_no_pose_before_fixes_agree():
    robot, tracker = Robot(0), Tracker()
    first = robot.see(tracker)
    assert (first.state, first.map_from_base, first.map_from_odom) == ("starting", None, None)
    assert not tracker.has_track and not tracker.is_located
    robot.drive(0.3, 0.0)
    second = robot.see(tracker)
    assert tracker.is_located
    assert second.state == "tracking" and not second.is_recovery
    assert second.map_from_odom @ robot.odom_from_base == pytest.approx(second.map_from_base)


def test_a_wrong_first_fix_starts_nothing():
    robot, tracker = Robot(0), Tracker()
    wrong = Fix(CARRIED @ robot.map_from_base, COVARIANCE)
    assert tracker.update(robot.stamp, robot.odom_from_base, wrong).state == "starting"
    robot.drive(0.3, 0.0)
    assert robot.see(tracker).state == "starting"
    robot.drive(0.3, 0.0)
    assert robot.error(robot.see(tracker))[0] < 0.5


@pytest.mark.parametrize("odometry", [True, False])
def test_a_single_outlier_is_rejected_and_forgotten(odometry):
    robot, tracker = Robot(0), Tracker()
    for _ in range(10):
        robot.drive(0.3, 0.0)
        robot.see(tracker, odometry)
    robot.drive(0.3, 0.0)
    wrong = Fix(CARRIED @ robot.map_from_base, COVARIANCE)
    track = tracker.update(robot.stamp, robot.odom_from_base if odometry else None, wrong)
    assert track.state == "rejected" and track.map_from_base is None and track.rejections == 1
    assert "from the track; 1 in a row are rejected" in track.reason
    assert tracker.is_contradicted
    robot.drive(0.3, 0.0)
    track = robot.see(tracker, odometry)
    assert track.state == "tracking" and track.rejections == 0 and not track.is_recovery
    assert not tracker.is_contradicted


@pytest.mark.parametrize("odometry", [True, False])
def test_outliers_that_disagree_with_one_another_never_start_a_track(odometry):
    robot, tracker = Robot(0), Tracker()
    for _ in range(5):
        robot.drive(0.0, 0.0)
        robot.see(tracker, odometry)
    for _ in range(12):
        robot.drive(0.0, 0.0)
        spread = robot.random.uniform(20, 90, 3)
        wrong = Fix(transform_from_rotation_vector(robot.random.normal(size=3), spread), COVARIANCE)
        track = tracker.update(robot.stamp, robot.odom_from_base if odometry else None, wrong)
        assert track.state == "rejected" and track.map_from_base is None


@pytest.mark.parametrize("odometry", [True, False])
def test_a_kidnapped_robot_is_recognised(odometry):
    robot, tracker = Robot(0), Tracker()
    for _ in range(10):
        robot.drive(0.3, 0.0)
        robot.see(tracker, odometry)
    robot.map_from_base = transform_from_rotation_vector([0, 0, 1], [30.0, 0, 0]) @ robot.map_from_base
    robot.bias = robot.random.normal(size=6)
    tracks = []
    for number in range(20):
        robot.drive(*course(number))
        tracks.append(robot.see(tracker, odometry))
    states = [track.state for track in tracks]
    back = states.index("tracking")
    assert OPTIONS.kidnapped_fixes - 1 <= back <= 2 * OPTIONS.kidnapped_fixes
    assert set(states[:back]) == {"rejected"}
    assert [track.is_recovery for track in tracks].index(True) == back
    assert robot.error(tracks[-1])[0] < 0.3


def test_kidnapping_among_outliers():
    found = 0
    for seed in range(10):
        robot, tracker = started(seed)
        robot.outliers = 0.1
        robot.map_from_base = CARRIED @ robot.map_from_base
        for number in range(60):
            robot.drive(*course(number))
            track = robot.see(tracker)
            if track.map_from_base is not None:
                assert robot.error(track)[0] < 0.5
                found += track.is_recovery
    assert found == 10


def test_agreement_of_a_moment_is_no_kidnapping():
    """Four wrong fixes within 0.1 s: a glare, not a journey."""
    robot, tracker = started()
    for _ in range(6):
        robot.stamp += 0.02
        wrong = Fix(CARRIED @ robot.map_from_base, COVARIANCE)
        assert tracker.update(robot.stamp, robot.odom_from_base, wrong).state == "rejected"


def test_an_odometry_reset_is_survived():
    robot, tracker = started()
    robot.odom_from_base = np.eye(4)
    states = []
    for number in range(20):
        robot.drive(*course(number))
        track = robot.see(tracker)
        states.append(track.state)
        if track.map_from_base is not None:
            assert robot.error(track)[0] < 0.3
    assert states[0] == "rejected" and states[-1] == "tracking"


def test_a_minute_without_fixes_loses_the_robot():
    robot, tracker = started()
    states = []
    for number in range(300):
        robot.drive(*course(number))
        track = robot.see(tracker, fix=False)
        states.append(track.state)
        assert track.map_from_base is None
        assert (track.map_from_odom is None) == (track.state == "lost") != tracker.is_located
    assert states[0] == "tracking" and states[-1] == "lost"
    assert states.index("lost") * PERIOD <= OPTIONS.lost_seconds + PERIOD
    assert "at most 30 s will do" in track.reason or "drifted" in track.reason
    robot.drive(0.3, 0.0)
    assert robot.see(tracker).state == "lost"
    robot.drive(0.3, 0.0)
    track = robot.see(tracker)
    assert track.state == "tracking" and track.is_recovery and robot.error(track)[0] < 0.5


def test_far_driven_without_fixes_is_lost_by_drift():
    options = TrackingOptions(drift_per_metre=0.2)
    robot, tracker = Robot(0), Tracker(options)
    for number in range(60):
        robot.drive(1.0, 0.0)
        track = robot.see(tracker, fix=number < 3)
    assert track.state == "lost" and "drifted" in track.reason


def test_without_odometry_the_fix_itself_is_the_answer():
    robot, tracker = Robot(0), Tracker()
    for number in range(20):
        robot.drive(*course(number))
        fix = robot.fix()
        track = tracker.update(robot.stamp, None, fix)
        assert track.map_from_odom is None
        if number:
            assert track.map_from_base == pytest.approx(fix.map_from_base)
    robot.stamp += OPTIONS.lost_seconds_alone + 1
    assert tracker.update(robot.stamp, None, None).state == "lost"


def test_odometry_may_come_late_and_break_off():
    robot, tracker = Robot(0), Tracker()
    for number in range(60):
        robot.drive(*course(number))
        track = robot.see(tracker, odometry=number // 10 % 2 == 1)
        assert number == 0 or track.state == "tracking"
        assert number == 0 or robot.error(track)[0] < 0.4


@pytest.mark.parametrize("odometry", [True, False])
def test_a_prior_waits_for_a_fix_that_agrees(odometry):
    robot, tracker = Robot(0), Tracker()
    given_covariance = np.diag([0.25, 0.25, 0.25, 0.07, 0.07, 0.07])
    near = robot.map_from_base @ transform_from_rotation_vector([0, 0, 0.2], [0.4, 0.3, 0])
    odom_from_base = robot.odom_from_base if odometry else None
    tracker.prior(robot.stamp, odom_from_base, Fix(near, given_covariance))
    robot.drive(0.0, 0.0)
    waiting = robot.see(tracker, odometry, fix=False)
    assert waiting.state == "starting" and waiting.map_from_base is None
    assert (waiting.map_from_odom is not None) == odometry
    assert tracker.has_track and not tracker.is_located
    robot.drive(0.0, 0.0)
    track = robot.see(tracker, odometry)
    assert tracker.is_located
    assert track.state == "tracking" and robot.error(track)[0] < 0.3


def test_a_prior_ends_a_confident_track_and_a_wrong_one_is_overcome():
    robot, tracker = started()
    there = Fix(CARRIED @ robot.map_from_base, COVARIANCE)
    tracker.prior(robot.stamp, robot.odom_from_base, there)
    states = []
    for number in range(15):
        robot.drive(*course(number))
        track = robot.see(tracker)
        states.append(track.state)
    assert states[0] == "rejected" and states[-1] == "tracking"
    assert robot.error(track)[0] < 0.3


def test_stamps_that_repeat_or_lag_change_nothing_and_old_ones_start_over():
    robot, tracker = started()
    for late in (0.0, 0.5 * BACKWARDS):
        track = tracker.update(robot.stamp - late, robot.odom_from_base, robot.fix())
        assert track.state == "tracking" and track.map_from_base is None
        assert "not newer" in track.reason
    track = tracker.update(robot.stamp - 60, robot.odom_from_base, robot.fix())
    assert track.state == "starting"


def test_reset_forgets_all():
    robot, tracker = started()
    tracker.reset()
    assert robot.see(tracker).state == "starting"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_as_if_it_were_not_there(value):
    robot, tracker = started()
    broken = np.full((4, 4), value)
    for fix in (Fix(broken, COVARIANCE), Fix(np.eye(4), np.full((6, 6), value)), Fix(np.eye(4), -np.eye(6))):
        robot.drive(0.3, 0.0)
        track = tracker.update(robot.stamp, robot.odom_from_base, fix)
        assert track.state == "tracking" and track.map_from_base is None
    tracker.update(value, robot.odom_from_base, robot.fix())
    tracker.prior(robot.stamp, robot.odom_from_base, Fix(broken, COVARIANCE))
    robot.drive(0.3, 0.0)
    track = tracker.update(robot.stamp, broken, robot.fix())
    assert track.state == "tracking" and track.map_from_odom is None
    robot.drive(0.3, 0.0)
    assert robot.error(robot.see(tracker))[0] < 0.4


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_happens_a_published_pose_comes_with_a_covariance(data):
    """Any order of gaps, outliers, odometry losses, priors and odd stamps."""
    robot, tracker = Robot(data.draw(st.integers(0, 1000))), Tracker()
    events = st.sampled_from(["fix", "none", "outlier", "alone", "late", "again", "jump", "prior"])
    for event in data.draw(st.lists(events, max_size=30)):
        robot.drive(0.3, 0.2)
        if event == "jump":
            robot.odom_from_base = np.eye(4)
        stamp = robot.stamp - {"late": 0.3, "again": 5.0}.get(event, 0.0)
        fix = None if event == "none" else robot.fix()
        if event == "outlier":
            fix = Fix(CARRIED @ robot.map_from_base, COVARIANCE)
        if event == "prior":
            tracker.prior(stamp, robot.odom_from_base, fix)
        track = tracker.update(stamp, None if event == "alone" else robot.odom_from_base, fix)
        assert (track.map_from_base is None) == (track.covariance is None) == (track.reason is not None)
        if track.map_from_base is not None:
            assert track.state == "tracking"
            assert np.linalg.eigvalsh(track.covariance)[0] > 0
            rotation = track.map_from_base[:3, :3]
            assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)


def test_map_from_odom_is_constant_while_odometry_is_true():
    robot, tracker = started()
    robot.scales[:] = 1
    before = robot.see(tracker, fix=False).map_from_odom
    half = interpolate(robot.odom_from_base, robot.odom_from_base @ step(1.0, 0.5), 0.5)
    track = tracker.update(robot.stamp + 0.1, half, None)
    assert track.map_from_odom == pytest.approx(before)
    assert track.map_from_odom @ half @ invert(half) == pytest.approx(before)


def test_wrong_fixes_that_take_turns_with_right_ones_never_win():
    robot, tracker = started()
    for number in range(24):
        robot.drive(*course(number))
        wrong = Fix(CARRIED @ robot.map_from_base, COVARIANCE)
        track = tracker.update(robot.stamp, robot.odom_from_base, robot.fix() if number % 2 else wrong)
        assert track.state == ("tracking" if number % 2 else "rejected")


def test_an_old_fix_starts_nothing_where_no_odometry_tells_what_came_between():
    robot, tracker = Robot(0), Tracker()
    tracker.update(robot.stamp, None, Fix(CARRIED @ robot.map_from_base, COVARIANCE))
    robot.stamp += 10
    assert tracker.update(robot.stamp, None, robot.fix()).state == "starting"


def test_a_vague_prior_may_wait_for_its_first_fix():
    robot, tracker = Robot(0), Tracker()
    tracker.prior(robot.stamp, None, Fix(robot.map_from_base, np.eye(6)))
    robot.stamp += OPTIONS.lost_seconds_alone + 2
    assert tracker.update(robot.stamp, None, None).state == "starting"
    robot.stamp += PERIOD
    assert tracker.update(robot.stamp, None, robot.fix()).state == "tracking"


@pytest.mark.parametrize("odometry", [True, False])
@pytest.mark.parametrize("lateness", [0.0, 0.5])
def test_the_image_of_a_priors_moment_confirms_it(lateness, odometry):
    robot, tracker = Robot(0), Tracker()
    odom_from_base = robot.odom_from_base if odometry else None
    tracker.prior(robot.stamp + lateness, odom_from_base, Fix(robot.map_from_base, np.eye(6) * 0.1))
    assert robot.see(tracker, odometry).state == "tracking"
