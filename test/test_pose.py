"""The pose solver against known poses, and against correspondences that hold no pose."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.correspondences import Correspondences
from ofvl_core.pose import PoseOptions, estimate_pose

CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
PIXELS = cell_pixels(640, 480, 8)
TOLERANT = PoseOptions(inlier_pixels=10.0)


def observed_scene(random, camera=CAMERA, pixels=PIXELS):
    """A random pose and the true scene coordinates of all pixels, 1 to 4 m away."""
    world_from_camera = geometry.transform_from_rotation_vector(
        random.normal(size=3), random.normal(size=3) * 5
    )
    depths = random.uniform(1, 4, size=(len(pixels), 1))
    return world_from_camera, geometry.apply(world_from_camera, camera.rays(pixels) * depths)


def pose_of(points, uncertainties=None, *, camera=CAMERA, pixels=PIXELS, depths=None, options=PoseOptions()):
    """The pose from the scene coordinates that the cells at `pixels` are said to see."""
    uncertainties = np.ones(len(points)) if uncertainties is None else uncertainties
    rays = camera.rays(pixels)[:, :2]
    return estimate_pose(Correspondences(rays, points, uncertainties, depths), camera.focal, options)


@pytest.mark.parametrize("inlier_share", [0.2, 0.35, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_known_pose_among_outliers(inlier_share, seed):
    random = np.random.default_rng(seed)
    world_from_camera, points = observed_scene(random)
    points += random.normal(scale=0.01, size=points.shape)
    outliers = random.random(len(points)) > inlier_share
    points[outliers] += random.normal(scale=1.0, size=(outliers.sum(), 3))
    estimate = pose_of(points, np.full(len(points), 0.01), options=TOLERANT)
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
    estimate = pose_of(points)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert metres < 1e-5
    assert degrees < 1e-4


def test_half_a_pixel_is_visible():
    """What the tests of the pixel convention rely on: a bias of half a pixel is no rounding error."""
    world_from_camera, points = observed_scene(np.random.default_rng(0))
    estimate = pose_of(points, pixels=PIXELS + 0.5)
    _, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert degrees > 0.02


BARREL = (-0.35, 0.12, 1e-3, -5e-4, -0.02)
RATIONAL = (0.5, -2.6, 5e-4, -3e-4, 1.5, 0.38, -2.4, 1.4)
ANY_CAMERA = st.builds(
    lambda width, height, focal, aspect, distortion: Camera(
        width, height, focal, focal * aspect, 0.48 * width, 0.53 * height, distortion
    ),
    st.integers(301, 901),
    st.integers(301, 901),
    st.floats(250, 900),
    st.floats(0.9, 1.1),
    st.sampled_from([(), BARREL, RATIONAL]),
)


@settings(max_examples=40, deadline=None)
@given(ANY_CAMERA, st.integers(0, 2**32 - 1))
def test_any_camera_gives_the_exact_pose(camera, seed):
    """Odd sizes, portrait, other focal lengths, strong distortion, cells at the rim that have no ray."""
    pixels = cell_pixels(camera.width, camera.height, 32)
    known = np.isfinite(camera.rays(pixels)[:, 0])
    assume(known.mean() > 0.3)
    world_from_camera, points = observed_scene(np.random.default_rng(seed), camera, pixels)
    points[~known] = 0.0  # what a network says of them is no evidence
    estimate = pose_of(points, camera=camera, pixels=pixels)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, world_from_camera)
    assert metres < 1e-3
    assert degrees < 0.02
    assert not estimate.inliers[~known].any()


def test_a_minority_that_agrees_with_itself_is_outvoted():
    random = np.random.default_rng(2)
    world_from_camera, points = observed_scene(random)
    uncertainties = np.full(len(points), 0.01)
    wrong = random.choice(len(points), int(0.3 * len(points)), replace=False)
    points[wrong] += 0.5  # a consistent, wrong answer
    uncertainties[wrong] = 1.0
    estimate = pose_of(points, uncertainties)
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
            estimate = pose_of(points, told, options=TOLERANT)
            collected.append(geometry.pose_error(estimate.world_from_camera, world_from_camera)[0])
        errors[known] = np.median(collected)
    assert errors[True] < 0.7 * errors[False]


def test_cells_that_a_poor_hypothesis_misses_take_part_in_the_end():
    """Noise moves most of the few inliers further than the tolerance: three of them make no good pose."""
    errors = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        world_from_camera, points = observed_scene(random)
        points += random.normal(scale=0.03, size=points.shape)
        outliers = random.random(len(points)) > 0.2
        points[outliers] += random.normal(size=(outliers.sum(), 3))
        estimate = pose_of(points)
        errors.append(geometry.pose_error(estimate.world_from_camera, world_from_camera)[0])
    assert np.median(errors) < 0.03


def test_same_input_gives_the_same_pose():
    random = np.random.default_rng(3)
    _, points = observed_scene(random)
    points[::2] += random.normal(size=points[::2].shape)
    first, second = (pose_of(points) for _ in range(2))
    assert np.array_equal(first.world_from_camera, second.world_from_camera)


def no_pose(points, pixels=PIXELS, uncertainties=None):
    estimate = pose_of(points, uncertainties, pixels=pixels)
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
        estimate = pose_of(points, camera=camera, pixels=pixels)
        assert estimate.world_from_camera is None
        assert estimate.reason


def test_some_nan_among_good_points_do_no_harm():
    world_from_camera, points = observed_scene(np.random.default_rng(6))
    points[::3] = np.nan
    points[1::7] = np.inf
    estimate = pose_of(points)
    assert geometry.pose_error(estimate.world_from_camera, world_from_camera)[0] < 1e-5


def test_jacobian_matches_finite_differences():
    """Of the errors, but for the factor z of the first two, which weighs them."""
    random = np.random.default_rng(7)
    seen = random.normal(size=(50, 3)) + np.array([0, 0, 4])
    cells = Correspondences(seen[:, :2] / seen[:, 2:], seen, np.ones(50), seen[:, 2])
    analytic = cells.jacobian(seen)
    assert np.allclose(cells.errors(seen), 0)
    step = 1e-6
    for axis in range(6):
        twist = np.zeros(6)
        twist[axis] = step
        moved = geometry.apply(geometry.transform_from_rotation_vector(twist[3:], twist[:3]), seen)
        assert np.allclose(analytic[:, :, axis], cells.errors(moved) / step, atol=1e-4)


def with_depth(random, noise, outlier_share=0.0):
    """A pose, noisy scene coordinates and the depths that a noisy depth camera measures of all cells."""
    world_from_camera, points = observed_scene(random)
    depths = geometry.apply(geometry.invert(world_from_camera), points)[:, 2]
    points += random.normal(scale=noise, size=points.shape)
    wrong = random.random(len(points)) < outlier_share
    points[wrong] += random.normal(size=(wrong.sum(), 3))
    return world_from_camera, points, depths + random.normal(scale=0.0025 * depths**2)


def test_depth_sharpens_the_pose():
    """With errors like a network's, which are independent of what it says: the mean of what may be."""
    errors = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        said = CAMERA.rays(PIXELS) * random.uniform(1, 4, (len(PIXELS), 1))
        seen = said + random.normal(scale=0.05, size=said.shape)
        truth = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
        cells = Correspondences(
            seen[:, :2] / seen[:, 2:], geometry.apply(truth, said), np.full(len(said), 0.05), seen[:, 2]
        )
        found = [estimate_pose(each, CAMERA.focal, TOLERANT) for each in (cells, cells._replace(depths=None))]
        errors.append([geometry.pose_error(estimate.world_from_camera, truth)[0] for estimate in found])
    measured, colour_alone = np.median(errors, axis=0)
    assert measured < 0.0035
    assert measured < 0.8 * colour_alone


@pytest.mark.parametrize("inlier_share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("known_share", [0.1, 1.0])
def test_known_pose_among_outliers_with_depth(inlier_share, known_share):
    random = np.random.default_rng(8)
    truth, points, depths = with_depth(random, 0.01, 1 - inlier_share)
    depths[random.random(len(depths)) > known_share] = np.nan
    estimate = pose_of(points, np.full(len(points), 0.01), depths=depths, options=TOLERANT)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, truth)
    assert metres < 0.01
    assert degrees < 0.2


@pytest.mark.parametrize("few", [0, 2, 11])
def test_too_few_depths_go_unused(few):
    _, points, depths = with_depth(np.random.default_rng(9), noise=0.01)
    depths[few:] = np.nan
    with_few, without = pose_of(points, depths=depths), pose_of(points)
    assert np.array_equal(with_few.world_from_camera, without.world_from_camera)


@pytest.mark.parametrize("factor", [1000.0, 0.001, 1.3])
def test_depth_that_no_pose_explains_goes_unused(factor):
    """Millimetres taken for metres, say."""
    _, points, depths = with_depth(np.random.default_rng(10), noise=0.01)
    with_wrong, without = pose_of(points, depths=factor * depths), pose_of(points)
    assert np.array_equal(with_wrong.world_from_camera, without.world_from_camera)


def test_wrong_depths_of_some_cells_do_no_harm():
    """As at the edges of things, where the depth camera sees what is behind."""
    random = np.random.default_rng(11)
    truth, points, depths = with_depth(random, noise=0.01)
    depths[random.random(len(depths)) < 0.3] += 1.0
    estimate = pose_of(points, np.full(len(points), 0.01), depths=depths)
    assert geometry.pose_error(estimate.world_from_camera, truth)[0] < 0.01


def test_same_input_gives_the_same_pose_with_depth():
    _, points, depths = with_depth(np.random.default_rng(12), noise=0.05, outlier_share=0.5)
    first, second = (pose_of(points, depths=depths) for _ in range(2))
    assert np.array_equal(first.world_from_camera, second.world_from_camera)


def test_noise_with_depth_is_not_taken_for_a_pose():
    random = np.random.default_rng(13)
    pixels = cell_pixels(160, 120, 8)
    for _ in range(10):
        points, depths = random.uniform(-3, 3, (len(pixels), 3)), random.uniform(1, 4, len(pixels))
        estimate = pose_of(points, camera=CAMERA.resized(160, 120), pixels=pixels, depths=depths)
        assert estimate.world_from_camera is None
        assert estimate.reason
