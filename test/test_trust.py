"""Which localizations may be published."""

import numpy as np
import pytest

from ofvl_core.localizer import Cells, Localization
from ofvl_core.trust import TrustOptions, distrust


def localization(inliers=150, position=0.05, rotation=0.02, **changes):
    """One of 300 cells with these standard deviations, good unless changed."""
    agree = np.arange(300) < inliers
    cells = Cells(np.zeros((300, 2)), np.zeros((300, 3)), np.full(300, 0.03), agree, 20)
    values = {
        "scene": "room",
        "world_from_camera": np.eye(4),
        "covariance": np.diag([position**2] * 3 + [rotation**2] * 3),
        "uncertainty": 0.03,
        "reason": None,
        "cells": cells,
    }
    return Localization(**(values | changes))


def test_a_good_localization_is_trusted():
    assert distrust(localization()) is None


def test_few_agreeing_cells_are_chance():
    assert distrust(localization(inliers=36)) is None
    assert distrust(localization(inliers=35)) == "35 of 300 cells agree with the pose, at least 36 must"


def test_a_vague_position_or_rotation_is_none():
    assert "known to 0.40 m only, at most 0.3 m" in distrust(localization(position=0.4))
    assert "known to 11.5 degrees only, at most 10.0" in distrust(localization(rotation=0.2))


def test_the_worst_direction_counts():
    across = np.diag([0.01] * 3 + [1e-4] * 3)
    across[0, 1] = across[1, 0] = 0.0099  # 0.14 m along its diagonal, 0.01 m across
    options = TrustOptions(max_position_deviation=0.12)
    assert distrust(localization(position=0.1), options) is None
    assert distrust(localization(covariance=across), options) is not None


def test_the_solver_gives_its_own_reason():
    failed = localization(world_from_camera=None, covariance=None, reason="RANSAC found no pose")
    assert distrust(failed) == "RANSAC found no pose"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_unbounded_covariance_is_not_trusted(value):
    assert distrust(localization(covariance=np.full((6, 6), value))) is not None


def test_options_move_the_limits():
    assert distrust(localization(inliers=30), TrustOptions(min_inlier_share=0.1)) is None
    assert distrust(localization(position=0.4), TrustOptions(max_position_deviation=0.5)) is None
