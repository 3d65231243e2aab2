"""The clocks of camera and LiDAR, brought together by how both turned."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ofvl_core.geometry import transform
from ofvl_core.livl.time_offset import UNKNOWN, TimeOffset, agreed, estimate_time_offset
from ofvl_core.livl.visual_rotation import Turns
from ofvl_core.realsense import BODY_FROM_OPTICAL
from ofvl_core.stamped_path import StampedPath

START = 1_760_000_000_000_000_000
CAMERA = transform((0.1, 0.0, 0.5), (0.01, 0.02, 0.0, 1.0)) @ BODY_FROM_OPTICAL


def yaw(seconds: np.ndarray) -> np.ndarray:
    """A robot that turns this way and that."""
    return 0.9 * np.sin(0.8 * seconds) + 0.2 * np.sin(2.7 * seconds + 1)


def drive(offset: float, duration: float = 20.0, noise: float = 0.0006, turning: float = 1.0):
    """A LiDAR's path at 10 Hz and a camera's turns at 30 Hz whose stamps need `offset` added."""
    random = np.random.default_rng(3)
    scans = np.arange(0, duration, 0.1)
    poses = np.tile(np.eye(4), (len(scans), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(
        np.outer(turning * yaw(scans), (0, 0, 1)) + random.normal(0, 0.001, (len(scans), 3))
    ).as_matrix()
    path = StampedPath(START + np.round(scans * 1e9).astype(np.int64), poses)
    images = np.arange(0, duration, 1 / 30)
    body = Rotation.from_rotvec(np.outer(turning * yaw(images), (0, 0, 1)))
    camera = body * Rotation.from_matrix(CAMERA[:3, :3])
    vectors = (camera[:-1].inv() * camera[1:]).as_rotvec()
    stamps = START + np.round((images - offset) * 1e9).astype(np.int64)
    vectors += random.normal(0, noise, vectors.shape)
    return Turns(stamps[:-1], stamps[1:], vectors), path


@pytest.mark.parametrize("offset", [-0.2, -0.03, 0.0, 0.0123, 0.1])
def test_an_offset_is_found(offset):
    turns, path = drive(offset)
    found = estimate_time_offset(turns, path, CAMERA)
    assert found.certain
    assert found.seconds == pytest.approx(offset, abs=0.002)
    assert abs(found.seconds - offset) < 5 * found.deviation + 0.001


def test_wrong_turns_now_and_then_do_no_harm():
    turns, path = drive(-0.03)
    turns.vectors[::15] += 0.1
    found = estimate_time_offset(turns, path, CAMERA)
    assert found.seconds == pytest.approx(-0.03, abs=0.003)


def test_who_never_turns_learns_nothing():
    turns, path = drive(-0.03, turning=0.0)
    assert not estimate_time_offset(turns, path, CAMERA).certain


def test_an_offset_beyond_what_is_tried_is_not_believed():
    turns, path = drive(0.5)
    assert not estimate_time_offset(turns, path, CAMERA).certain


def test_hardly_a_turn_is_unknown():
    turns, path = drive(-0.03, duration=1.0)
    assert estimate_time_offset(turns, path, CAMERA) == UNKNOWN


def test_drives_that_agree_share_one_offset():
    drives = [TimeOffset(-0.031, 0.001, 500), TimeOffset(-0.029, 0.001, 500), UNKNOWN]
    together = agreed(drives)
    assert [each.seconds for each in together] == pytest.approx([-0.03] * 3)
    assert together[2].certain


def test_drives_that_differ_keep_their_own():
    drives = [TimeOffset(-0.1, 0.001, 500), TimeOffset(0.05, 0.001, 500), UNKNOWN]
    first, second, third = agreed(drives)
    assert (first.seconds, second.seconds) == (-0.1, 0.05)
    assert not third.certain


def test_where_no_drive_tells_none_is_used():
    assert agreed([UNKNOWN, UNKNOWN]) == [UNKNOWN, UNKNOWN]
