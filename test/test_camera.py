"""The pinhole camera and the pixel-centre convention."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.errors import ConfigError
from ofvl_core.resize import input_camera, resize

CAMERA = Camera(640, 480, 610.0, 605.0, 322.3, 238.9)
DISTORTED = Camera(640, 480, 610.0, 605.0, 322.3, 238.9, (0.1, -0.2, 0.001, -0.002, 0.05))
pixels = st.tuples(st.floats(0, 639), st.floats(0, 479)).map(lambda pixel: np.array([pixel]))


@given(pixels, st.floats(0.1, 20), st.sampled_from([CAMERA, DISTORTED]))
def test_projection_undoes_rays(pixel, depth, camera):
    assert np.allclose(camera.project(camera.rays(pixel) * depth), pixel, atol=1e-3)


@given(st.integers(8, 2000), st.integers(8, 2000), pixels)
def test_resizing_keeps_every_ray(width, height, pixel):
    small = CAMERA.resized(width, height)
    scale = np.array([width / CAMERA.width, height / CAMERA.height])
    assert np.allclose(small.rays((pixel + 0.5) * scale - 0.5), CAMERA.rays(pixel), atol=1e-9)


def test_resized_image_and_resized_camera_agree():
    """An image that holds its own pixel coordinates still does after resizing, to a tenth of a pixel."""
    x, y = np.meshgrid(np.arange(240.0), np.arange(160.0))
    image = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    camera = Camera(240, 160, 200, 200, 120, 80)
    small = input_camera(camera, focal=50, stride=8)
    assert (small.width, small.height) == (64, 40)
    resized = resize(image, small)
    for u, v in cell_pixels(small.width, small.height, 8).astype(int):
        expected = camera.project(small.rays(np.array([[u, v]], float)))[0]
        assert resized[v, u, :2] == pytest.approx(expected, abs=0.51)  # uint8 rounds by half a level


def test_cells_are_named_row_by_row_at_8i_plus_4():
    cells = cell_pixels(24, 16, 8)
    assert cells.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


@pytest.mark.parametrize("change", [{"fx": 0.0}, {"fy": -1.0}, {"width": 0}, {"cx": float("nan")}])
def test_nonsense_intrinsics_are_refused(change):
    with pytest.raises(ConfigError, match="camera intrinsics"):
        Camera(**{"width": 640, "height": 480, "fx": 600.0, "fy": 600.0, "cx": 320.0, "cy": 240.0, **change})
