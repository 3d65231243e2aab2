"""Depth finds its image, whatever order they come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ros_helpers import time_message
from sensor_msgs.msg import Image

from ofvl_ros.inputs import SAME_TIME, DepthPairing, Shot

PERIOD = 33_333_333


def message(stamp: int) -> Image:
    image = Image()
    image.header.stamp = time_message(stamp)
    return image


def stamps(shots: list[Shot]) -> list[tuple[float, float | None]]:
    return [(shot.stamp, None if shot.depth is None else Shot(shot.depth, None, 0.0).stamp) for shot in shots]


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.integers(-int(SAME_TIME * 0.9e9), int(SAME_TIME * 0.9e9)),
)
def test_every_image_gets_its_depth_whichever_comes_first(depth_first: list[bool], offset: int) -> None:
    pairing = DepthPairing()
    shots = []
    for number, first in enumerate(depth_first, start=10):
        image, depth = message(number * 2 * PERIOD), message(number * 2 * PERIOD + offset)
        if first:
            shots += pairing.on_depth(depth) + pairing.on_image(image)
        else:
            shots += pairing.on_image(image) + pairing.on_depth(depth)
    assert [shot.stamp for shot in shots] == [
        pytest.approx(number * 2 * PERIOD * 1e-9) for number in range(10, 10 + len(depth_first))
    ]
    for stamp, depth in stamps(shots):
        assert depth == pytest.approx(stamp + offset * 1e-9)


def test_an_image_whose_depth_never_comes_goes_without_when_the_next_arrives() -> None:
    pairing = DepthPairing()
    assert pairing.on_image(message(1 * PERIOD)) == []
    assert stamps(pairing.on_image(message(2 * PERIOD))) == [(pytest.approx(PERIOD * 1e-9), None)]
    (shot,) = pairing.on_depth(message(2 * PERIOD))
    assert shot.depth is not None


def test_depth_of_another_time_is_not_used() -> None:
    pairing = DepthPairing()
    pairing.on_depth(message(1 * PERIOD))
    assert pairing.on_image(message(3 * PERIOD)) == []
    assert pairing.on_depth(message(4 * PERIOD)) == []
