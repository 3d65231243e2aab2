"""Depth errors: against numbers counted by hand and the protocol's code as published."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.depth_metrics import (
    INDOORS,
    KITTI,
    DepthErrors,
    DepthProtocol,
    depth_errors,
    mean_errors,
    protocol_named,
)
from ofvl_core.errors import ConfigError, DataError

EVERYTHING = DepthProtocol(farthest=80.0, garg_crop=False)


def noisy(seed: int, shape: tuple[int, int] = (12, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and the truth, a tenth of which is unknown."""
    random = np.random.default_rng(seed)
    true = random.uniform(1, 9, shape)
    predicted = 0.3 * true * np.exp(0.2 * random.normal(size=shape))
    true[random.random(shape) < 0.1] = 0.0
    return predicted, true


def test_errors_of_three_pixels_counted_by_hand():
    # scaled by 4 / 2: predictions 2, 4, 16 of 2.5, 4, 8
    found = depth_errors(np.array([[1.0, 2.0, 8.0]]), np.array([[2.5, 4.0, 8.0]]), EVERYTHING)
    assert found.scale == 2.0
    assert found.abs_rel == pytest.approx((0.5 / 2.5 + 8 / 8) / 3)
    assert found.sq_rel == pytest.approx((0.25 / 2.5 + 64 / 8) / 3)
    assert found.rmse == pytest.approx(np.sqrt((0.25 + 64) / 3))
    assert found.rmse_log == pytest.approx(np.sqrt((np.log(1.25) ** 2 + np.log(2) ** 2) / 3))
    assert found.delta_1 == pytest.approx(1 / 3)  # 1.25 itself is not below 1.25
    assert found.delta_2 == found.delta_3 == pytest.approx(2 / 3)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 50))
def test_a_prediction_is_as_good_in_any_unit(unit, seed):
    predicted, true = noisy(seed)
    one, other = depth_errors(predicted, true, INDOORS), depth_errors(unit * predicted, true, INDOORS)
    assert other.scale * unit == pytest.approx(one.scale)
    assert astuple(other)[:-1] == pytest.approx(astuple(one)[:-1])


def test_a_right_prediction_has_no_error():
    _, true = noisy(0)
    found = depth_errors(np.where(true > 0, 5 * true, 1.0), true, INDOORS)
    assert astuple(found) == pytest.approx((0, 0, 0, 0, 1, 1, 1, 0.2))


def test_only_known_depths_within_the_limits_count():
    predicted, true = noisy(1)
    spoiled = true.copy()
    spoiled[0] = [0.0, np.nan, 5e-4, 10.0, 10.1, 65.0, -1.0, np.inf] * 2
    true[0] = 0.0
    assert depth_errors(predicted, spoiled, INDOORS) == depth_errors(predicted, true, INDOORS)
    assert depth_errors(predicted, spoiled, KITTI) != depth_errors(predicted, true, EVERYTHING)
    assert depth_errors(predicted, np.full((12, 16), 10.5), INDOORS) is None
    assert depth_errors(predicted, np.zeros((12, 16)), EVERYTHING) is None


def test_predictions_have_the_same_limits_as_the_truth():
    true = np.full((3, 3), 9.0)
    predicted = np.full((3, 3), 9.0)
    predicted[0, 0] = 900.0
    found = depth_errors(predicted, true, INDOORS)
    assert found.rmse == pytest.approx(1 / 3)  # as if it were 10 m in one of nine pixels


def test_the_garg_crop_is_that_of_the_published_code():
    shape = (375, 1242)
    rows, columns = slice(153, 371), slice(44, 1197)  # int32 of the shares times 375 and 1242
    random = np.random.default_rng(0)
    true, predicted = random.uniform(1, 79, (2, *shape))
    outside = true.copy()
    outside[rows, columns] = 0.0
    assert depth_errors(predicted, outside, KITTI) is None
    inside = np.zeros(shape)
    inside[rows, columns] = true[rows, columns]
    assert depth_errors(predicted, inside, EVERYTHING) == depth_errors(predicted, true, KITTI)
    for edge in ((153, 600), (370, 600), (200, 44), (200, 1196)):
        alone = np.zeros(shape)
        alone[edge] = 5.0
        assert depth_errors(predicted, alone, KITTI) is not None


def test_disparity_not_depth_is_resized():
    """The disparity of a plane is linear over the image, so resizing it bilinearly is right where it does not
    extrapolate; its depth is not."""
    rows, columns = np.indices((64, 96))
    true = 1.0 / (0.1 + 0.004 * columns + 0.002 * rows)
    small_rows, small_columns = np.indices((16, 24)) * 4 + 1.5  # centres of blocks of four pixels
    predicted = 1.0 / (0.1 + 0.004 * small_columns + 0.002 * small_rows)
    true[:2], true[-2:], true[:, :2], true[:, -2:] = 0.0, 0.0, 0.0, 0.0
    found = depth_errors(predicted, true, EVERYTHING)
    assert found.abs_rel < 1e-9
    assert found.scale == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_predictions_that_are_no_depth_are_refused(value):
    predicted, true = noisy(0)
    predicted[3, 3] = value
    with pytest.raises(DataError, match="positive and finite"):
        depth_errors(predicted, true, INDOORS)


def test_protocols_have_names():
    assert protocol_named("kitti") == KITTI
    with pytest.raises(ConfigError, match="choose indoors or kitti"):
        protocol_named("outdoors")


def test_the_mean_is_over_images_not_pixels():
    full, half = DepthErrors(*[1.0] * 8), DepthErrors(*[3.0] * 8)
    assert mean_errors([full, half]) == DepthErrors(*[2.0] * 8)
