"""Several looks at one image: each cell stands for the pixel that it is shown."""

import numpy as np
import pytest

from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.errors import ConfigError
from ofvl_core.looks import LOOKS, input_view
from ofvl_core.network import ARCHITECTURES, Architecture

CAMERA = Camera(640, 480, 525.0, 524.0, 318.0, 241.0)
DISTORTED = Camera(640, 480, 525.0, 524.0, 318.0, 241.0, distortion=(0.08, -0.03, 1e-3, -5e-4))
FOCAL, STRIDE = 131.0, 8


def coordinates_image(camera=CAMERA):
    """Red rises with the column and green with the row; blue tells the image from what lies outside."""
    y, x = np.mgrid[: camera.height, : camera.width]
    levels = 255 * x / camera.width, 255 * y / camera.height, np.zeros(x.shape)
    return np.rint(np.stack(levels, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("looks", [1, 2, len(LOOKS)])
@pytest.mark.parametrize("camera", [CAMERA, DISTORTED, Camera(200, 150, 164.0, 164.0, 99.0, 75.0)])
def test_every_cell_is_shown_its_pixel(camera, looks):
    view = input_view(camera, FOCAL, STRIDE, looks)
    shown = view.shown(coordinates_image(camera))
    assert shown.shape == (looks, view.camera.height, view.camera.width, 3)
    u, v = cell_pixels(view.camera.width, view.camera.height, STRIDE).astype(int).T
    colours = shown[:, v, u].reshape(-1, 3)[view.cells]
    surely = (np.abs(view.pixels / (camera.width, camera.height) - 0.5) < 0.48).all(axis=1)
    pixels = colours[:, :2] / 255 * (camera.width, camera.height)
    assert surely.mean() > 0.8
    assert np.abs(pixels - view.pixels)[surely].max() < 4.0, (
        "half a pixel of the input and the colours' steps"
    )
    assert np.abs((pixels - view.pixels)[surely].mean(axis=0)).max() < 1.0
    assert np.allclose(
        camera.project(np.column_stack([view.rays, np.ones(len(view.rays))])), view.pixels, atol=0.02
    )


def test_cells_that_look_beside_the_image_are_none():
    view = input_view(CAMERA, FOCAL, STRIDE, len(LOOKS))
    everything = len(LOOKS) * 300
    assert 0.7 * everything < len(view.cells) < 0.95 * everything
    assert (view.cells[:300] == np.arange(300)).all(), "the first look is the image itself"
    assert (view.pixels >= -0.5).all()
    assert (view.pixels <= (639.5, 479.5)).all()
    shown = view.shown(np.zeros((480, 640, 3), np.uint8))
    grey = (shown == 128).all(axis=-1).mean(axis=(1, 2))
    assert grey[0] == 0
    assert (grey[1:] > 0).all()


def test_depths_are_those_of_the_pixels():
    """At any resolution, also where a look's cells lie at the image's edge."""
    view = input_view(CAMERA, FOCAL, STRIDE, len(LOOKS))
    for width, height in ((640, 480), (320, 240)):
        y, x = np.mgrid[:height, :width]
        depth = (1.0 + (x + 0.5) / width + 10 * (y + 0.5) / height).astype(np.float32)
        depth[0, 0] = np.nan
        u, v = view.pixels.T
        expected = 1.0 + (u + 0.5) / 640 + 10 * (v + 0.5) / 480
        found = view.sampled(depth)
        assert np.nanmax(np.abs(found - expected)) < 0.03
        assert np.isnan(found).sum() <= 1


def test_a_network_may_look_as_often_as_there_are_looks():
    assert {architecture.looks for architecture in ARCHITECTURES.values()} == {1}
    assert Architecture(depths=(1, 1, 1, 1), looks=len(LOOKS)).looks == len(LOOKS)
    with pytest.raises(ValueError, match="looks"):
        Architecture(depths=(1, 1, 1, 1), looks=len(LOOKS) + 1)


def test_a_view_is_kept_and_cannot_be_changed():
    view = input_view(CAMERA, FOCAL, STRIDE, 3)
    assert input_view(CAMERA, FOCAL, STRIDE, 3) is view
    with pytest.raises(ValueError, match="read-only"):
        view.rays[0] = 0
    with pytest.raises(ConfigError, match="so wide"):
        input_view(Camera(640, 480, 1.0, 1.0, 320.0, 240.0), FOCAL, STRIDE, 3)
