"""Which images become frames, and why the others do not."""

import numpy as np
import pytest

from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_core.livl.selection import (
    BLURRED,
    KEPT,
    NO_DEPTH,
    OUTSIDE,
    TOO_CLOSE,
    Spacing,
    dropped,
    select,
)
from ofvl_core.livl.survey import Pair, Survey, pairs
from ofvl_core.livl.visual_rotation import Turns
from ofvl_core.stamped_path import StampedPath

RATE = 30
EVERYTHING = Spacing(0.0, 0.0)
NO_TURNS = Turns(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3)))


def straight(seconds: float = 4.0, speed: float = 0.5) -> StampedPath:
    """A drive along x at 10 Hz, from 1 s on."""
    times = np.arange(1.0, 1.0 + seconds, 0.1)
    poses = [transform_from_rotation_vector((0, 0, 0), (speed * time, 0, 0)) for time in times]
    return StampedPath(np.round(times * 1e9).astype(np.int64), np.array(poses))


def images(seconds: float = 4.0, **changes: dict[int, float]) -> Survey:
    """Good images from 1 s on, but for the changes."""
    stamps = np.round((1.0 + np.arange(seconds * RATE) / RATE) * 1e9).astype(np.int64)
    values = {"depth_share": np.full(len(stamps), 0.8), "sharpness": np.full(len(stamps), 0.6)}
    for name, given in changes.items():
        for at, value in given.items():
            values[name][at] = value
    return Survey(stamps, values["depth_share"], values["sharpness"], NO_TURNS)


def test_good_images_within_the_trajectory_are_kept():
    reasons = select(images(3.0), straight(), 0.0, EVERYTHING)
    assert reasons == [KEPT] * 90


def test_an_image_without_depth_a_blurred_one_and_one_outside_are_dropped_for_that():
    survey = images(5.0, depth_share={3: 0.0}, sharpness={7: 0.3, 20: 0.41, 21: 0.45})
    reasons = select(survey, straight(), 0.0, EVERYTHING)
    assert reasons[3] == NO_DEPTH
    assert reasons[7] == BLURRED
    assert reasons[20] == BLURRED
    assert reasons[21] == KEPT
    assert set(reasons[-20:]) == {OUTSIDE}
    assert dropped(reasons)[BLURRED] == 2


def test_blur_is_relative_to_the_images_around():
    """A bare wall is less sharp than a shelf, and no reason to drop all that show it."""
    survey = images(3.0, sharpness=dict.fromkeys(range(40, 90), 0.2))
    assert select(survey, straight(), 0.0, EVERYTHING).count(BLURRED) < 10


def test_the_time_offset_leads_to_the_trajectorys_clock():
    reasons = select(images(3.0), straight(), -0.5, EVERYTHING)
    assert reasons[:15] == [OUTSIDE] * 15
    assert reasons[15] == KEPT


def test_a_gap_in_the_trajectory_leaves_a_gap_in_the_frames():
    path = straight()
    keep = (path.stamps < 2e9) | (path.stamps > 3e9)
    reasons = select(images(3.5), StampedPath(path.stamps[keep], path.poses[keep]), 0.0, EVERYTHING)
    assert set(reasons[31:60]) == {OUTSIDE}


@pytest.mark.parametrize(("metres", "expected"), [(0.05, 4), (0.1, 7), (1.0, 61)])
def test_frames_are_as_far_apart_as_is_asked(metres, expected):
    reasons = select(images(3.8), straight(), 0.0, Spacing(metres, 10.0))
    kept = np.flatnonzero([reason == KEPT for reason in reasons])
    assert set(np.diff(kept)) <= {expected - 1, expected}
    assert reasons[1] == TOO_CLOSE


def test_turning_on_the_spot_counts_as_well():
    path = straight(speed=0.0)
    turned = [transform_from_rotation_vector((0, 0, 0.5 * at / 10), (0, 0, 0)) for at in range(len(path))]
    reasons = select(images(3.8), StampedPath(path.stamps, np.array(turned)), 0.0, Spacing(0.05, 0.1))
    assert 15 <= reasons.count(KEPT) <= 20


def streamed(colors: list[int], depths: list[int], late: int) -> list[Pair]:
    """The pairs of images with these stamps, ms, whose depth arrives `late` ms later."""
    arriving = sorted([(at, False, at) for at in colors] + [(at + late, True, at) for at in depths])
    return list(pairs((is_depth, stamp * 1_000_000, stamp) for _, is_depth, stamp in arriving))


@pytest.mark.parametrize("late", [-50, 0, 5, 200])
def test_each_image_gets_the_depth_of_its_moment_however_late_it_comes(late):
    found = streamed([0, 33, 66, 100], [1, 34, 67, 99], late)
    assert [(pair.color, pair.depth) for pair in found] == [(0, 1), (33, 34), (66, 67), (100, 99)]


def test_an_image_whose_depth_is_missing_gets_none_and_no_depth_serves_twice():
    found = streamed([0, 33, 66], [0, 66], 3)
    assert [pair.depth for pair in found] == [0, None, 66]
    assert [pair.depth for pair in streamed([0, 10], [5], 0)].count(5) == 1


def test_a_camera_without_depth_gives_all_its_images():
    assert [pair.color for pair in streamed(list(range(0, 1000, 33)), [], 0)] == list(range(0, 1000, 33))
