"""Pictures and bodies that show a localization."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core import drawing
from ofvl_core.camera import Camera
from ofvl_core.localizer import Cells, Localization

CAMERA = Camera(64, 48, 60.0, 61.0, 30.0, 25.0, (0.1, -0.05, 0.001, 0.001, 0.0))
GREEN, RED = np.array(drawing.AGREES), np.array(drawing.DISAGREES)


def localization(
    width: int = 640, height: int = 480, columns: int = 20, uncertainty: float | None = None, seed: int = 0
) -> Localization:
    """Random cells over an image, half of them inliers."""
    rng = np.random.default_rng(seed)
    step = width / columns
    v, u = np.mgrid[step / 2 : height : step, step / 2 : width : step].reshape(2, -1)
    count = len(u)
    cells = Cells(
        pixels=np.stack([u, v], axis=1),
        scene_coordinates=rng.normal(size=(count, 3)),
        uncertainties=10 ** rng.uniform(-3, 1, count) if uncertainty is None else np.full(count, uncertainty),
        inliers=np.arange(count) % 2 == 0,
        columns=columns,
    )
    return Localization("room", np.eye(4), np.eye(6), 0.02, None, cells)


@pytest.mark.parametrize(
    ("width", "height", "columns"), [(640, 480, 80), (1280, 720, 20), (64, 48, 8), (48, 64, 3)]
)
def test_dots_tell_which_cells_agree(width: int, height: int, columns: int) -> None:
    shown = localization(width, height, columns)
    image = np.full((height, width, 3), 100, np.uint8)
    picture = drawing.picture(shown, image, "localized")
    assert picture.shape[1:] == (width, 3)
    below = picture[len(picture) - height :].astype(int)
    u, v = np.rint(shown.cells.pixels).astype(int).T
    np.testing.assert_array_equal(below[v, u], np.where(shown.cells.inliers[:, None], GREEN, RED))
    assert (image == 100).all()


def test_dots_grow_with_certainty() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    areas = [
        np.count_nonzero(drawing.picture(localization(uncertainty=metres), image, "")[-400:])
        for metres in (np.inf, 1.0, 0.1, 0.03, 0.01, 0.001, 0.0)
    ]
    assert areas == sorted(areas)
    assert areas[0] == areas[1] > 0
    assert areas[4] == areas[5] == areas[6] > 4 * areas[1]


def test_the_legend_holds_long_words() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    short, long, longer = (
        drawing.picture(localization(), image, words)[:24].astype(int)
        for words in ("lost", "l" * 500, "l" * 1000)
    )
    assert short.any()
    np.testing.assert_array_equal(long, longer)
    assert (long != short).any()
    assert not long[:, -4:].any()


def test_a_localization_without_pose_is_drawn() -> None:
    cells = localization().cells
    lost = Localization("room", None, None, np.inf, "RANSAC found no pose", cells)
    assert drawing.picture(lost, np.zeros((480, 640, 3), np.uint8), "lost").any()


def test_the_frustum_reaches_the_corners_of_the_image() -> None:
    pinhole = Camera(64, 48, 60.0, 61.0, 30.0, 25.0)
    corners = drawing.frustum(CAMERA, 0.3)
    np.testing.assert_array_equal(corners[0], 0)
    np.testing.assert_allclose(corners[1:, 2], 0.3)
    expected = [[-0.5, -0.5], [63.5, -0.5], [63.5, 47.5], [-0.5, 47.5]]
    np.testing.assert_allclose(pinhole.project(corners[1:]), expected, atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.5, 0.99))
def test_the_ellipsoid_holds_its_share(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    points = rng.normal(size=(4000, 3)) @ root.T
    half_axes, directions = drawing.ellipsoid(root @ root.T, share)
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(directions) > 0
    inside = (((points @ directions) / half_axes) ** 2).sum(axis=1) < 1
    assert abs(inside.mean() - share) < 0.06  # some eight standard deviations
