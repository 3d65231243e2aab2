"""Covariances in ROS's convention: of simulated poses, carried to another frame, and their shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.correspondences import Correspondences
from ofvl_core.covariance import (
    carried,
    normalised_error_squared,
    pose_covariance,
    pose_difference,
)
from ofvl_core.geometry import apply, transform_from_rotation_vector
from ofvl_core.pose import estimate_pose

FOCAL = 120.0

seeds = st.integers(0, 2**32 - 1)


def some_pose(random: np.random.Generator) -> np.ndarray:
    return transform_from_rotation_vector(random.normal(size=3), random.normal(scale=3, size=3))


def some_covariance(random: np.random.Generator) -> np.ndarray:
    root = random.normal(size=(6, 6)) * 0.01
    return root @ root.T + 1e-6 * np.eye(6)


def displaced(pose: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """[Exp(dtheta) R | p + dp]: the convention, written out."""
    result = transform_from_rotation_vector(difference[3:], pose[:3, 3] + difference[:3])
    result[:3, :3] = result[:3, :3] @ pose[:3, :3]
    return result


def noisy_cells(
    random: np.random.Generator, world_from_camera: np.ndarray, cells: int = 150, depth: bool = False
) -> Correspondences:
    """What a network would say whose errors are independent and as large as it believes."""
    rays = random.uniform((-0.5, -0.4), (0.5, 0.4), (cells, 2))
    z = random.uniform(1.5, 5, cells)
    uncertainties = random.uniform(0.005, 0.02, cells)
    points = apply(world_from_camera, np.column_stack([rays, np.ones(cells)]) * z[:, None])
    points += random.normal(size=points.shape) * uncertainties[:, None]
    depths = None
    if depth:
        depths = z + random.normal(size=cells) * 0.0025 * z**2
        depths[::3] = np.nan
    return Correspondences(rays, points, uncertainties, depths)


@pytest.mark.parametrize("depth", [False, True])
def test_independent_errors_are_honestly_covered(depth):
    """Here no inflation is needed; the mean of a chi-square with 6 degrees of freedom is 6."""
    random = np.random.default_rng(0)
    errors = []
    for _ in range(150):
        true = some_pose(random)
        cells = noisy_cells(random, true, depth=depth)
        estimate = estimate_pose(cells, FOCAL)
        assert estimate.world_from_camera is not None
        # all take part in the covariance: which of them agreed is chance here
        covariance = pose_covariance(estimate.world_from_camera, cells, np.ones(len(cells.rays), bool))
        errors.append(normalised_error_squared(estimate.world_from_camera, covariance, true))
    assert 5 < np.mean(errors) < 8


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_it_is_symmetric_and_positive(seed):
    random = np.random.default_rng(seed)
    pose = some_pose(random)
    cells = noisy_cells(random, pose, cells=20)
    covariance = pose_covariance(pose, cells, random.permutation(20) < 12)
    assert np.array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_cells_that_miss_make_it_grow():
    random = np.random.default_rng(1)
    pose = some_pose(random)
    cells = noisy_cells(random, pose)
    inliers = np.arange(150) < 60
    before = pose_covariance(pose, cells, inliers)
    cells.points[100:] += 0.5
    after = pose_covariance(pose, cells, inliers)
    assert np.linalg.eigvalsh(after - before).min() > 0


def test_half_the_cells_in_agreement_are_half_the_knowledge_twice():
    """They are fewer, and fewer of all there are."""
    random = np.random.default_rng(1)
    pose = some_pose(random)
    cells = noisy_cells(random, pose)
    all_agree, half = (pose_covariance(pose, cells, np.arange(150) < count) for count in (150, 75))
    growth = (np.linalg.det(half) / np.linalg.det(all_agree)) ** (1 / 6)
    assert growth == pytest.approx(4, rel=0.2)


def test_depth_tells_more():
    random = np.random.default_rng(2)
    pose = some_pose(random)
    cells = noisy_cells(random, pose, depth=True)
    inliers = np.ones(150, bool)
    with_depth = pose_covariance(pose, cells, inliers)
    assert with_depth.trace() < pose_covariance(pose, cells._replace(depths=None), inliers).trace()


def test_cells_without_a_ray_or_behind_the_camera_do_no_harm():
    random = np.random.default_rng(3)
    pose = some_pose(random)
    cells = noisy_cells(random, pose)
    cells.rays[:10] = np.nan
    cells.points[10:20] = np.nan
    cells.points[20:120] = apply(pose, np.array([[0.0, 0.0, -2.0]]))
    assert np.isfinite(pose_covariance(pose, cells, np.arange(150) >= 120)).all()


def test_a_direction_that_is_open_is_vague_not_infinite():
    """One point thrice: the camera may be anywhere around it."""
    cells = Correspondences(np.zeros((3, 2)), np.tile([0.0, 0.0, 2.0], (3, 1)), np.full(3, 0.01))
    covariance = pose_covariance(np.eye(4), cells, np.ones(3, bool))
    assert np.isfinite(covariance).all()
    assert covariance[2, 2] > 1


@given(seeds)
def test_a_difference_leads_from_the_estimate_to_the_truth(seed):
    random = np.random.default_rng(seed)
    estimated = some_pose(random)
    difference = random.uniform(-1, 1, 6)
    true = displaced(estimated, difference)
    assert np.allclose(pose_difference(estimated, true), difference, atol=1e-9)


@given(seeds)
@settings(deadline=None)
def test_carrying_is_the_derivative_of_composition(seed):
    """A small displacement of the camera displaces the base by what `carried` takes it for."""
    random = np.random.default_rng(seed)
    camera, camera_from_base = some_pose(random), some_pose(random)
    base = camera @ camera_from_base
    step = 1e-6
    columns = [
        pose_difference(base, displaced(camera, step * axis) @ camera_from_base) / step for axis in np.eye(6)
    ]
    lever = np.stack(columns, axis=1)
    covariance = some_covariance(random)
    expected = lever @ covariance @ lever.T
    error = np.abs(carried(covariance, camera, camera_from_base) - expected).max()
    assert error < 1e-4 * np.abs(expected).max()


@given(seeds)
def test_an_error_is_the_same_in_any_frame_of_the_robot(seed):
    random = np.random.default_rng(seed)
    estimated, camera_from_base = some_pose(random), some_pose(random)
    true = displaced(estimated, 1e-5 * random.normal(size=6))
    covariance = some_covariance(random)
    error = normalised_error_squared(estimated, covariance, true)
    there = normalised_error_squared(
        estimated @ camera_from_base,
        carried(covariance, estimated, camera_from_base),
        true @ camera_from_base,
    )
    assert there == pytest.approx(error, rel=1e-3)


def test_carrying_there_and_back():
    random = np.random.default_rng(4)
    camera, camera_from_base = some_pose(random), some_pose(random)
    covariance = some_covariance(random)
    there = carried(covariance, camera, camera_from_base)
    back = carried(there, camera @ camera_from_base, np.linalg.inv(camera_from_base))
    assert np.allclose(back, covariance)


def test_a_turned_camera_keeps_the_worlds_axes():
    """Distance along the optical axis is what a camera knows least: after a turn that is another axis."""
    random = np.random.default_rng(5)
    ahead = np.eye(4)
    cells = noisy_cells(random, ahead)
    turned = transform_from_rotation_vector((0, np.pi / 2, 0), (0, 0, 0))  # optical z along the world's x
    elsewhere = cells._replace(points=apply(turned, cells.points))
    inliers = np.ones(150, bool)
    before, after = pose_covariance(ahead, cells, inliers), pose_covariance(turned, elsewhere, inliers)
    assert after[0, 0] == pytest.approx(before[2, 2])
    assert after[3, 3] == pytest.approx(before[5, 5])
