"""Sharpness and exposure tell blurred and badly exposed images from good ones."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ofvl_core.sharpness import PictureWatch, exposure, sharpness


def scene(seed: int = 0, width: int = 640) -> NDArray[np.uint8]:
    """Overlapping boxes of all colours, drawn so large and scaled down that their edges are smooth."""
    random = np.random.default_rng(seed)
    image = np.full((960, 1280, 3), 128, np.uint8)
    for _ in range(150):
        x, y = random.integers((0, 0), (1200, 900))
        w, h = random.integers(20, 200, 2)
        cv2.rectangle(
            image, (int(x), int(y)), (int(x + w), int(y + h)), random.integers(20, 235, 3).tolist(), -1
        )
    return cv2.resize(image, (width, width * 3 // 4), interpolation=cv2.INTER_AREA)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_more_motion_blur_is_less_sharp(seed: int, is_vertical: bool) -> None:
    image = scene(seed)
    sizes = [(1, n) if is_vertical else (n, 1) for n in (1, 5, 9, 15, 25)]
    measured = [sharpness(cv2.blur(image, size)) for size in sizes]
    assert measured == sorted(measured, reverse=True)
    assert measured[3] < 0.7 * measured[0]
    assert 0 <= measured[-1] < measured[0] <= 1


def test_resolution_contrast_and_brightness_change_little() -> None:
    whole = sharpness(scene())
    assert sharpness(scene(width=1280)) == pytest.approx(whole, rel=0.1)
    assert sharpness(scene() // 4 + 60) == pytest.approx(whole, rel=0.1)


def test_an_image_without_anything_on_it_is_not_sharp() -> None:
    assert sharpness(np.full((48, 64, 3), 99, np.uint8)) == 0


def test_exposure_counts_black_and_saturated_pixels() -> None:
    image = np.full((10, 10, 3), 128, np.uint8)
    image[:3] = 5
    image[3:5, :, 1] = 255
    image[5, :5, 0] = 0  # other channels still show something
    assert exposure(image) == (0.3, 0.2)


def test_the_watch_tells_what_is_wrong() -> None:
    watch, good = PictureWatch(), scene()
    for seed in range(10):
        assert watch.complaints(scene(seed)) == []
    assert "blurred" in watch.complaints(cv2.blur(good, (25, 1)))[0]
    assert "black" in watch.complaints(np.zeros_like(good))[0]
    assert "saturated" in watch.complaints(np.full_like(good, 255))[0]
    assert watch.complaints(good) == []
