"""Augmented training views: targets, pixels and images stay exactly together."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.correspondences import Correspondences
from ofvl_core.errors import DataError
from ofvl_core.pose import estimate_pose
from ofvl_core.resize import normalise, resize
from ofvl_core.training.augmentation import (
    BatchSource,
    blur,
    cell_targets,
    random_warp,
    scene_frame,
    unwarped,
    warp_images,
)
from ofvl_core.training.config import Augmentation
from ofvl_core.training.packed import PackedFrames

INPUT = Camera(160, 120, 150.0, 149.0, 81.0, 58.5)
STORED = INPUT.resized(320, 240)
STRIDE = 8
CPU = torch.device("cpu")
STILL = Augmentation(
    scale=(1, 1), rotation_deg=0, shear_deg=0, shift=0, brightness=0, contrast=0, blur=0, synthesised=0
)


def packed(depths, poses, camera=STORED, images=None):
    """Frames with the given depths in millimetres and poses."""
    if images is None:
        images = np.zeros((len(depths), camera.height, camera.width, 3), np.uint8)
    return PackedFrames("room", images, np.asarray(depths, np.uint16), np.asarray(poses), camera, INPUT)


def targets_of(depth, pose, warp, camera=STORED):
    frames = packed([depth], [pose], camera)
    coordinates, valid, *_ = cell_targets(frames, np.array([0]), warp[None], STRIDE)
    return coordinates[0].reshape(3, -1).T, valid.ravel()


def uneven_depth(width=STORED.width, height=STORED.height):
    """A depth image with relief, one depth along each ray, and a hole; whole millimetres."""
    y, x = np.mgrid[:height, :width] * (STORED.width / width)
    depth = 2 + 0.8 * np.sin(x / 40) + 0.5 * np.cos(y / 30)
    depth[height // 2 : height // 2 + 40, width // 8 : width // 3] = 0
    return np.rint(1000 * depth)


def random_pose(random, far=0.0):
    translation = random.normal(size=3) + far
    return geometry.transform_from_rotation_vector(random.normal(size=3), translation)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pose_from_unwarped_targets_is_exact(seed):
    """The pixel at which a target is sampled is the pixel PnP uses: half a pixel apart would fail here."""
    pose = random_pose(np.random.default_rng(seed))
    points, valid = targets_of(uneven_depth(), pose, unwarped(INPUT, STORED))
    pixels = cell_pixels(INPUT.width, INPUT.height, STRIDE)
    rays, one = INPUT.rays(pixels[valid])[:, :2], np.ones(valid.sum())
    estimate = estimate_pose(Correspondences(rays, points[valid], one), INPUT.focal)
    metres, degrees = geometry.pose_error(estimate.world_from_camera, pose)
    assert metres < 1e-3
    assert degrees < 0.01
    shifted_rays = INPUT.rays(pixels[valid] + 0.5)[:, :2]
    shifted = estimate_pose(Correspondences(shifted_rays, points[valid], one), INPUT.focal)
    assert geometry.pose_error(shifted.world_from_camera, pose)[1] > 0.1


DISTORTED = Camera(320, 240, 300.0, 298.0, 162.0, 117.0, distortion=(0.08, -0.03, 1e-3, -5e-4))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([STORED, DISTORTED]), st.sampled_from([(320, 240), (128, 96)])
)
def test_warped_targets_lie_on_the_rays_of_the_stored_pixels(seed, camera, depth_size):
    """Whatever the warp, the lens and the resolution of the depth."""
    random = np.random.default_rng(seed)
    warp = random_warp(INPUT, camera, Augmentation(), random)
    depth = uneven_depth(*depth_size)
    points, valid = targets_of(depth, np.eye(4), warp, camera)
    pixels = cell_pixels(INPUT.width, INPUT.height, STRIDE) @ warp[:, :2].T + warp[:, 2]
    assert np.allclose(camera.project(points[valid]), pixels[valid], atol=1e-3)
    in_depth = (pixels + 0.5) * depth_size[0] / camera.width - 0.5
    sure = valid & (np.abs(in_depth % 1 - 0.5) > 1e-3).all(axis=1)  # not half-way between two depths
    column, row = np.rint(in_depth[sure]).astype(int).T
    assert np.allclose(points[sure][:, 2], depth[row, column] / 1000, atol=1e-9)
    outside = (pixels < -0.5).any(axis=1) | (pixels > (camera.width - 0.5, camera.height - 0.5)).any(axis=1)
    assert not valid[outside].any()
    assert (valid == ~outside & (nearest(depth, in_depth) > 0))[sure | outside].all()


def test_pixels_that_the_lens_gives_no_ray_are_no_targets():
    camera = Camera(320, 240, 180.0, 180.0, 159.5, 119.5, distortion=(-0.5, 0.0, 0.0, 0.0))
    points, valid = targets_of(np.full((240, 320), 2000), np.eye(4), unwarped(INPUT, camera), camera)
    assert 0.2 < valid.mean() < 0.9
    assert np.isfinite(points).all()
    assert (np.hypot(*(points[valid, :2] / points[valid, 2:]).T) <= camera.field_radius).all()


def nearest(depth, pixels):
    column, row = np.rint(pixels).astype(int).T
    return depth[row.clip(0, depth.shape[0] - 1), column.clip(0, depth.shape[1] - 1)]


def test_targets_far_from_the_origin_keep_their_millimetres():
    """A map in UTM metres: 4 million metres north, where float32 has steps of half a metre."""
    pose = random_pose(np.random.default_rng(0), far=4.4e6)
    points, valid = targets_of(uneven_depth(), pose, unwarped(INPUT, STORED))
    seen = geometry.apply(geometry.invert(pose), points[valid])
    pixels = cell_pixels(STORED.width, STORED.height, 2 * STRIDE)[valid] + 0.5
    assert np.abs(INPUT.project(seen) - cell_pixels(INPUT.width, INPUT.height, STRIDE)[valid]).max() < 1e-3
    assert np.abs(STORED.project(seen) - pixels).max() < 2e-3


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
    fill = np.array([1, 2, 250])
    [warped] = warp_images(image[None], warp[None], fill[None], camera)
    pixels = cell_pixels(40, 32, stride=1)
    sources = pixels @ warp[:, :2].T + warp[:, 2]
    inside = (sources >= 0).all(axis=1) & (sources <= (79, 63)).all(axis=1)
    u, v = pixels[inside].astype(int).T
    assert warped[v, u, :2] / levels == pytest.approx(sources[inside], abs=0.25)
    outside = (sources < -1).any(axis=1) | (sources > (80, 64)).any(axis=1)
    u, v = pixels[outside].astype(int).T
    assert (warped[v, u] == fill).all()


def test_outside_is_grey_or_as_in_the_paper_random(frames):
    def corners(fill):
        ranges = STILL.model_copy(update={"scale": (0.4, 0.4), "fill": fill})
        images = BatchSource(frames, 8, STRIDE, ranges, (0,), CPU).batch(0).images
        return {tuple(image[:, 0, 0].tolist()) for image in images}

    assert len(corners("grey")) == 1
    assert len(corners("random")) == 8


def test_views_reach_the_ends_of_their_ranges_or_a_random_share_of_them():
    """Half of the views that go a random share of the way are turned by less than a fifth of the range."""

    def turns(reach):
        random, ranges = np.random.default_rng(0), Augmentation(shear_deg=0, reach=reach)
        warps = np.stack([random_warp(INPUT, STORED, ranges, random) for _ in range(2000)])
        return np.abs(np.degrees(np.arctan2(warps[:, 1, 0], warps[:, 0, 0]))) / ranges.rotation_deg

    assert np.allclose(np.quantile(turns("full"), (0.25, 0.5, 0.75, 1.0)), (0.25, 0.5, 0.75, 1.0), atol=0.04)
    assert np.allclose(np.quantile(turns("random"), (0.25, 0.5, 0.75)), (0.09, 0.19, 0.41), atol=0.04)
    assert 0.9 < turns("random").max() <= 1 + 1e-9


def test_blur_is_a_motion_along_its_direction():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 240
    blur(image, 0.5, 0.0)
    assert image[20, 20, 0] == 240, "less than a pixel is no blur"
    blur(image, 8.0, 0.0)
    row, column = np.nonzero(image[..., 0])
    assert set(row) == {20}
    assert 16 <= column.min() < column.max() <= 24
    assert abs(int(image[..., 0].sum()) - 240) < 20
    assert np.mean(column) == 20


def test_identity_ranges_are_the_plain_resize():
    warp = random_warp(INPUT, STORED, STILL, np.random.default_rng(0))
    assert np.allclose(warp, unwarped(INPUT, STORED))


@pytest.fixture
def frames():
    """Five random frames."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, STORED.height, STORED.width, 3), np.uint8)
    depths = random.integers(500, 4000, (5, STORED.height, STORED.width), np.uint16)
    depths[:, :100] = 0
    return packed(depths, [random_pose(random) for _ in images], images=images)


def test_a_batch_without_augmentation_is_the_frames_themselves(frames):
    batch = BatchSource(frames, 3, STRIDE, STILL, (1,), CPU).batch(0)
    indices = np.random.default_rng(1).integers(len(frames), size=3)
    plain = torch.from_numpy(np.stack([resize(frames.images[index], INPUT) for index in indices]))
    assert (batch.images - normalise(plain.permute(0, 3, 1, 2))).abs().max() < 2 / 127.5
    warps = np.tile(unwarped(INPUT, STORED), (3, 1, 1))
    coordinates, valid, *_ = cell_targets(frames, indices, warps, STRIDE)
    assert torch.equal(batch.coordinates, torch.from_numpy(coordinates).float())
    assert torch.equal(batch.valid, torch.from_numpy(valid))
    assert 0.2 < batch.valid.float().mean() < 0.8
    assert batch.images.shape == (3, 3, 120, 160)
    assert batch.coordinates.shape == (3, 3, 15, 20)
    assert batch.valid.shape == (3, 1, 15, 20)


def test_light_stays_in_range_and_moves_by_the_stated_amount(frames):
    grey = packed(frames.depths, frames.world_from_camera, images=np.full_like(frames.images, 102))
    ranges = STILL.model_copy(update={"brightness": 20.0})
    levels = BatchSource(grey, 64, STRIDE, ranges, (0,), CPU).batch(0).images
    assert torch.equal(levels.amin(dim=(1, 2, 3)), levels.amax(dim=(1, 2, 3)))
    levels = (levels[:, 0, 0, 0] + 1) * 127.5 - 102
    assert levels.abs().max() <= 20.001
    assert levels.max() > 15
    assert levels.min() < -15
    ranges = STILL.model_copy(update={"contrast": 0.2})
    gains = BatchSource(grey, 64, STRIDE, ranges, (0,), CPU).batch(0).images / (102 / 127.5 - 1)
    assert 0.799 < gains.min() < 0.85
    assert 1.15 < gains.max() < 1.201


def source(frames, seed=(0, 0, 0), ahead=False):
    """The batches of some frames; drawn ahead as for a GPU, if asked, but computed here."""
    batches = BatchSource(frames, 2, STRIDE, Augmentation(), seed, CPU)
    if ahead:
        batches._pool = ThreadPoolExecutor(1)
    return batches


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_depend_on_seed_and_iteration_alone(frames, ahead):
    """A resumed run, or one that asks twice, gets what an uninterrupted one got; so does one on a GPU."""
    whole = [source(frames).batch(iteration) for iteration in range(4)]
    again = source(frames, ahead=ahead)
    for iteration in (2, 3, 0, 0, 1, 2):
        for one, other in zip(again.batch(iteration), whole[iteration], strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(whole[0].images, whole[1].images)
    for seed in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(source(frames, seed).batch(0).images, whole[0].images)


def test_the_next_batch_is_drawn_ahead_and_its_failure_is_passed_on(frames):
    batches = source(frames, ahead=True)
    drawn = []
    draw = batches._draw

    def draw_until_it_fails(iteration):
        drawn.append((iteration, threading.current_thread() is threading.main_thread()))
        if iteration == 2:
            raise OSError("the disc is gone")
        return draw(iteration)

    batches._draw = draw_until_it_fails
    batches.batch(0)
    batches.batch(1)
    assert sorted(drawn)[:2] == [(0, True), (1, False)]
    with pytest.raises(OSError, match="the disc is gone"):
        batches.batch(2)


def test_the_drawing_thread_ends_with_its_source(frames):
    batches = source(frames, ahead=True)
    batches.batch(0)
    [thread] = batches._pool._threads
    del batches
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_scene_frame_is_the_mean_and_extent_of_all_coordinates(frames):
    centre, extent = scene_frame(frames, STRIDE)
    warps = np.tile(unwarped(INPUT, STORED), (5, 1, 1))
    coordinates, valid, *_ = cell_targets(frames, np.arange(5), warps, STRIDE)
    points = [coordinates[n, :, i, j] for n, _, i, j in np.argwhere(valid)]
    assert centre == pytest.approx(np.mean(points, axis=0))
    assert extent == pytest.approx(np.sqrt(np.var(points, axis=0).sum()))


def test_a_scene_without_depth_has_no_frame():
    with pytest.raises(DataError, match=r"room.*next to no valid depth"):
        scene_frame(packed(np.zeros((2, 240, 320)), [np.eye(4)] * 2), STRIDE)
