"""Augmented training views: targets, pixels and images stay exactly together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.pose import estimate_pose
from ofvl_core.training.augmentation import cell_targets, random_warp, unwarped, warp_images
from ofvl_core.training.config import Augmentation

INPUT = Camera(160, 120, 150.0, 149.0, 81.0, 58.5)
STORED = INPUT.resized(320, 240)
STRIDE = 8


def as_batch(array):
    return torch.from_numpy(np.asarray(array)).float()[None]


def targets_of(depth, pose, warp):
    coordinates, valid = cell_targets(as_batch(depth), as_batch(pose), STORED, INPUT, as_batch(warp), STRIDE)
    return coordinates[0].flatten(1).T.double().numpy(), valid.flatten().numpy()


def uneven_depth(random):
    """A depth image with relief, one depth along each ray, and a hole."""
    y, x = np.mgrid[: STORED.height, : STORED.width]
    depth = 2 + 0.8 * np.sin(x / 40) + 0.5 * np.cos(y / 30)
    depth[100:140, 50:120] = 0
    return depth


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pose_from_unwarped_targets_is_exact(seed):
    """The pixel at which a target is sampled is the pixel PnP uses: half a pixel apart would fail here."""
    random = np.random.default_rng(seed)
    pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
    points, valid = targets_of(uneven_depth(random), pose, unwarped(INPUT, STORED))
    pixels = cell_pixels(INPUT.width, INPUT.height, STRIDE)
    estimate = estimate_pose(pixels[valid], points[valid], np.ones(valid.sum()), INPUT)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, pose)
    assert metres < 1e-3
    assert degrees < 0.01
    shifted = estimate_pose(pixels[valid] + 0.5, points[valid], np.ones(valid.sum()), INPUT)
    assert geometry.pose_error(shifted.world_from_camera, pose)[1] > 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_warped_targets_lie_on_the_rays_of_the_stored_pixels(seed):
    random = np.random.default_rng(seed)
    warp = random_warp(INPUT, STORED, Augmentation(), random)
    depth = uneven_depth(random)
    points, valid = targets_of(depth, np.eye(4), warp)
    pixels = cell_pixels(INPUT.width, INPUT.height, STRIDE) @ warp[:, :2].T + warp[:, 2]
    assert np.allclose(STORED.project(points[valid]), pixels[valid], atol=1e-3)
    sure = valid & (np.abs(pixels % 1 - 0.5) > 1e-3).all(axis=1)  # not half-way between two depths
    column, row = np.rint(pixels[sure]).astype(int).T
    assert np.allclose(points[sure][:, 2], depth[row, column], atol=1e-5)
    outside = (pixels < -0.5).any(axis=1) | (pixels > (STORED.width - 0.5, STORED.height - 0.5)).any(axis=1)
    assert not valid[outside].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_images_are_warped_like_targets(seed):
    """A stored image that holds its own coordinates, warped, still says where each pixel came from."""
    camera = Camera(40, 32, 40.0, 40.0, 20.0, 16.0)
    stored = camera.resized(80, 64)
    warp = random_warp(camera, stored, Augmentation(), np.random.default_rng(seed))
    y, x = np.mgrid[:64, :80]
    levels = 3  # grey levels a stored pixel
    image = (levels * np.stack([x, y, np.zeros_like(x)], axis=-1)).astype(np.uint8)
    [warped] = warp_images(image[None], [warp], camera)
    pixels = cell_pixels(40, 32, stride=1)
    sources = pixels @ warp[:, :2].T + warp[:, 2]
    inside = (sources >= 0).all(axis=1) & (sources <= (79, 63)).all(axis=1)
    u, v = pixels[inside].astype(int).T
    assert warped[v, u, :2] / levels == pytest.approx(sources[inside], abs=0.25)


def test_identity_ranges_are_the_plain_resize():
    still = Augmentation(scale=(1, 1), rotation_deg=0, shear_deg=0, shift=0, brightness=0, contrast=0)
    warp = random_warp(INPUT, STORED, still, np.random.default_rng(0))
    assert np.allclose(warp, unwarped(INPUT, STORED))
