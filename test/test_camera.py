"""The pinhole camera and the pixel-centre convention."""

import numpy as np
import pytest
from hypothesis import given, settings
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


BARREL = (-0.35, 0.12, 1e-3, -5e-4, -0.02)
RATIONAL = (0.5, -2.6, 5e-4, -3e-4, 1.5, 0.38, -2.4, 1.4)
NARROW = (-0.5, 0.0, 0.0, 0.0)


@settings(max_examples=100)
@given(
    st.sampled_from([BARREL, RATIONAL, NARROW, (0.4, 0.3, 1e-3, -2e-3, 0.1)]),
    st.floats(250, 900),
    st.sampled_from([(641, 479), (480, 640), (333, 777)]),
)
def test_strong_distortion_is_undone_or_refused(distortion, focal, size):
    """Every ray projects onto its pixel; a pixel without a ray is one that no ray of the field reaches."""
    width, height = size
    camera = Camera(width, height, focal, 0.98 * focal, 0.48 * width, 0.52 * height, distortion)
    cells = cell_pixels(width, height, 16)
    rays = camera.rays(cells)
    known = np.isfinite(rays).all(axis=1)
    assert np.abs(camera.project(rays[known]) - cells[known]).max() < 0.01
    assert (np.hypot(*rays[known, :2].T) <= camera.field_radius).all()
    assert known[np.hypot(*(cells - (camera.cx, camera.cy)).T / focal) < 0.5].all()
    if distortion is RATIONAL:
        assert known.all()


def test_the_field_ends_where_the_lens_model_turns():
    """r (1 - r^2 / 2) turns at the square root of 2/3: beyond it a pixel would have two rays."""
    camera = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, NARROW)
    assert camera.field_radius == pytest.approx(np.sqrt(2 / 3))
    assert CAMERA.field_radius == np.inf
    beyond = np.array([[1.2, 0.0, 1.0]])
    assert np.isnan(camera.rays(np.array([[0.0, 0.0]]))[0, :2]).all()
    shown = camera.rays(camera.project(beyond))[0]
    assert shown[0] < np.sqrt(2 / 3)  # the nearer of its two rays


def test_rays_of_no_pixels():
    assert DISTORTED.rays(np.empty((0, 2))).shape == (0, 3)


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
