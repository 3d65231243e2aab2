"""The pose solver against known poses, and against correspondences that hold no pose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.pose import PoseOptions, _jacobian, estimate_pose

CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
PIXELS = cell_pixels(640, 480, 8)
EVERY_CELL = PoseOptions(kept_share=1.0, inlier_pixels=10.0)


def observed_scene(random, camera=CAMERA, pixels=PIXELS):
    """A random pose and the true scene coordinates of all pixels, 1 to 4 m away."""
    world_from_camera = geometry.transform_from_rotation_vector(
        random.normal(size=3), random.normal(size=3) * 5
    )
    depths = random.uniform(1, 4, size=(len(pixels), 1))
    return world_from_camera, geometry.apply(world_from_camera, camera.rays(pixels) * depths)


@pytest.mark.parametrize("inlier_share", [0.2, 0.35, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_known_pose_among_outliers(inlier_share, seed):
    random = np.random.default_rng(seed)
    world_from_camera, points = observed_scene(random)
    points += random.normal(scale=0.01, size=points.shape)
    outliers = random.random(len(points)) > inlier_share
    points[outliers] += random.normal(scale=1.0, size=(outliers.sum(), 3))
    estimate = estimate_pose(PIXELS, points, np.full(len(points), 0.01), CAMERA, EVERY_CELL)
    assert estimate.reason is None
    metres, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert metres < 0.01
    assert degrees < 0.2
    assert estimate.inliers[~outliers].mean() > 0.9
    assert estimate.inliers[outliers].mean() < 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_exact_correspondences_give_the_exact_pose(seed):
    world_from_camera, points = observed_scene(np.random.default_rng(seed))
    estimate = estimate_pose(PIXELS, points, np.ones(len(points)), CAMERA)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert metres < 1e-5
    assert degrees < 1e-4


def test_half_a_pixel_is_visible():
    """What the tests of the pixel convention rely on: a bias of half a pixel is no rounding error."""
    world_from_camera, points = observed_scene(np.random.default_rng(0))
    estimate = estimate_pose(PIXELS + 0.5, points, np.ones(len(points)), CAMERA)
    _, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert degrees > 0.02


def test_lens_distortion_is_undone():
    camera = Camera(640, 480, 525.0, 525.0, 319.5, 239.5, (0.12, -0.2, 0.002, -0.001, 0.03))
    world_from_camera, points = observed_scene(np.random.default_rng(1), camera)
    estimate = estimate_pose(PIXELS, points, np.ones(len(points)), camera)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert metres < 1e-3
    assert degrees < 0.02


def test_uncertain_cells_are_left_out():
    random = np.random.default_rng(2)
    world_from_camera, points = observed_scene(random)
    uncertainties = np.full(len(points), 0.01)
    wrong = random.choice(len(points), int(0.3 * len(points)), replace=False)
    points[wrong] += 0.5  # a consistent, wrong answer that only its uncertainty gives away
    uncertainties[wrong] = 1.0
    estimate = estimate_pose(PIXELS, points, uncertainties, CAMERA)
    assert not estimate.inliers[wrong].any()
    assert geometry.pose_error(estimate.world_from_camera, world_from_camera)[0] < 1e-3


def test_certain_cells_weigh_more_in_the_refinement():
    errors = {}
    for known in (True, False):
        collected = []
        for seed in range(20):
            random = np.random.default_rng(seed)
            world_from_camera, points = observed_scene(random)
            sigma = np.where(random.random(len(points)) < 0.15, 0.002, 0.05)
            points += random.normal(size=points.shape) * sigma[:, None]
            told = sigma if known else np.full(len(points), 0.02)
            estimate = estimate_pose(PIXELS, points, told, CAMERA, EVERY_CELL)
            collected.append(geometry.pose_error(estimate.world_from_camera, world_from_camera)[0])
        errors[known] = np.median(collected)
    assert errors[True] < 0.7 * errors[False]


def test_same_input_gives_the_same_pose():
    random = np.random.default_rng(3)
    _, points = observed_scene(random)
    points[::2] += random.normal(size=points[::2].shape)
    first, second = (estimate_pose(PIXELS, points, np.ones(len(points)), CAMERA) for _ in range(2))
    assert np.array_equal(first.world_from_camera, second.world_from_camera)


def no_pose(points, pixels=PIXELS, uncertainties=None):
    uncertainties = np.ones(len(points)) if uncertainties is None else uncertainties
    estimate = estimate_pose(pixels, points, uncertainties, CAMERA)
    assert estimate.world_from_camera is None
    assert not estimate.inliers.any()
    assert estimate.inliers.shape == (len(points),)
    return estimate.reason


def test_degenerate_input_is_answered_with_a_reason():
    random = np.random.default_rng(4)
    _, points = observed_scene(random)
    assert "needed" in no_pose(points[:5], PIXELS[:5])
    assert "needed" in no_pose(np.empty((0, 3)), np.empty((0, 2)))
    assert "needed" in no_pose(np.full_like(points, np.nan))
    assert "needed" in no_pose(points, uncertainties=np.full(len(points), np.nan))
    assert "line" in no_pose(np.outer(random.normal(size=len(points)), [1.0, 2.0, 3.0]))
    assert "line" in no_pose(np.zeros_like(points))


def test_noise_is_not_taken_for_a_pose():
    random = np.random.default_rng(5)
    pixels = cell_pixels(160, 120, 8)
    camera = CAMERA.resized(160, 120)
    for _ in range(10):
        points = random.uniform(-3, 3, size=(len(pixels), 3))
        estimate = estimate_pose(pixels, points, np.ones(len(points)), camera)
        assert estimate.world_from_camera is None
        assert estimate.reason


def test_some_nan_among_good_points_do_no_harm():
    world_from_camera, points = observed_scene(np.random.default_rng(6))
    points[::3] = np.nan
    points[1::7] = np.inf
    estimate = estimate_pose(PIXELS, points, np.ones(len(points)), CAMERA)
    assert geometry.pose_error(estimate.world_from_camera, world_from_camera)[0] < 1e-5


def test_jacobian_matches_finite_differences():
    random = np.random.default_rng(7)
    points = random.normal(size=(50, 3)) + np.array([0, 0, 4])
    analytic = _jacobian(*points.T)
    step = 1e-6
    for axis in range(6):
        twist = np.zeros(6)
        twist[axis] = step
        moved = geometry.apply(geometry.transform_from_rotation_vector(twist[3:], twist[:3]), points)
        numeric = (moved[:, :2] / moved[:, 2:] - points[:, :2] / points[:, 2:]) / step
        assert np.allclose(analytic[:, :, axis], numeric, atol=1e-4)
