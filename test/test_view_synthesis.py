"""Views from where no camera was: what they show, and that their targets are exact."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.network import Prediction
from ofvl_core.training.augmentation import Batch, BatchSource, cell_targets, random_warp, unwarped
from ofvl_core.training.config import Augmentation
from ofvl_core.training.losses import reprojection_loss
from ofvl_core.training.packed import PackedFrames
from ofvl_core.training.view_synthesis import random_motion, synthesise
from ofvl_core.warps import warp, warp_images

INPUT = Camera(160, 120, 150.0, 149.0, 81.0, 58.5)
STORED = INPUT.resized(320, 240)
DISTORTED = Camera(320, 240, 300.0, 298.0, 162.0, 117.0, distortion=(0.08, -0.03, 1e-3, -5e-4))
STRIDE = 8
GREY = np.full(3, 128)
CELLS = cell_pixels(INPUT.width, INPUT.height, STRIDE)
RANGES = Augmentation(synthesised=1.0)


def frame(depth, image=None, camera=STORED, pose=None):
    """Two frames of one depth image in metres, the second by a camera 20 m beside the first."""
    if image is None:
        image = np.random.default_rng(0).integers(0, 256, (camera.height, camera.width, 3), np.uint8)
    millimetres = np.rint(1000 * np.asarray(depth)).astype(np.uint16)
    first = np.eye(4) if pose is None else pose
    poses = np.stack([first, first @ geometry.transform_from_rotation_vector([0, 0, 0], [20, 0, 0])])
    return PackedFrames(
        "room", image[None].repeat(2, 0), millimetres[None].repeat(2, 0), poses, camera, INPUT
    )


def relief(width=STORED.width, height=STORED.height):
    """Smooth depths around 2 m with a hole."""
    y, x = np.mgrid[:height, :width] * (STORED.width / width)
    depth = 2 + 0.3 * np.sin(x / 60) + 0.2 * np.cos(y / 50)
    depth[height // 2 : height // 2 + 40, width // 8 : width // 3] = 0
    return depth


def plain(camera=STORED):
    return unwarped(INPUT, camera)


def smooth_picture(height=STORED.height, width=STORED.width):
    noise = np.random.default_rng(1).random((height // 16, width // 16, 3))
    return (255 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)).astype(
        np.uint8
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([STORED, DISTORTED]), st.sampled_from([1, 2]))
def test_targets_lie_on_their_rays_and_on_the_surface(seed, camera, coarser):
    """Whatever the motion, the warp, the lens and the resolution of the depth."""
    random = np.random.default_rng(seed)
    pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
    frames = frame(relief(320 // coarser, 240 // coarser), camera=camera, pose=pose)
    warp, motion = random_warp(INPUT, camera, RANGES, random), random_motion(frames, 0, RANGES, random)
    _, coordinates, valid = synthesise(frames, 0, warp, motion, GREY, STRIDE)
    points = coordinates.reshape(3, -1).T[valid.ravel()]
    in_moved = geometry.apply(geometry.invert(pose @ motion), points)
    pixels = CELLS @ warp[:, :2].T + warp[:, 2]
    assert np.allclose(camera.project(in_moved), pixels[valid.ravel()], atol=2e-3)
    in_camera = geometry.apply(geometry.invert(pose), points)
    small = camera.resized(320 // coarser, 240 // coarser)
    column, row = np.rint(small.project(in_camera)).astype(int).T
    surface = frames.depths[0, row.clip(0, small.height - 1), column.clip(0, small.width - 1)] / 1000
    known = surface > 0  # not so at the hole's very edge
    assert known.sum() >= 0.9 * len(known)
    errors = np.abs(surface - in_camera[:, 2])[known]
    assert np.median(errors if len(errors) else [0]) < 0.01
    assert (errors < 0.1).all()


@pytest.mark.parametrize("camera", [STORED, replace(STORED, distortion=(1e-9, 0, 0, 0)), DISTORTED])
@pytest.mark.parametrize("wide", [False, True])
def test_without_a_motion_the_view_is_the_warped_frame(camera, wide):
    """A lens or none, and also where the view shows what lies beside the frame."""
    picture = smooth_picture()
    frames = frame(relief(), picture, camera)
    shown = warp(INPUT, camera, 0.7, np.radians(20), shift=(0.1, -0.1)) if wide else plain(camera)
    image, coordinates, valid = synthesise(frames, 0, shown, np.eye(4), GREY, STRIDE)
    still = cell_targets(frames, np.array([0]), shown[None], STRIDE)
    both = valid & still.valid[0, 0]
    assert both.sum() > 0.95 * still.valid.sum()
    assert np.allclose(coordinates[:, both], still.coordinates[0][:, both], atol=0.01)  # a pixel next to it
    assert not (valid & ~still.valid[0, 0]).any()
    expected = warp_images([picture], shown[None], GREY[None], INPUT)[0].astype(int)
    errors = np.abs(image - expected).max(axis=2)
    assert np.mean(errors > 8) < (0.05 if wide else 0.001), "but for the frame's edge"
    assert np.median(errors) <= 1


def through(lens, image):
    """What an image without distortion is behind a lens of the same intrinsics."""
    u, v = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    rays = lens.rays(np.stack([u, v], axis=-1).reshape(-1, 2))
    at = replace(lens, distortion=()).project(rays).astype(np.float32).reshape(*u.shape, 2)
    return cv2.remap(image, at, None, cv2.INTER_LINEAR)


@pytest.mark.parametrize("distortion", [(), (1e-9, 0.0, 0.0, 0.0), DISTORTED.distortion])
def test_a_wall_looks_as_its_homography_says(distortion):
    """Of a plane, the view from elsewhere is known exactly; the lens bends it as it bends the frame."""
    lens, small_lens = (replace(camera, distortion=distortion) for camera in (STORED, INPUT))
    picture, distance = smooth_picture(), 2.0
    frames = frame(np.full((240, 320), distance), through(lens, picture), camera=lens)
    motion = geometry.transform_from_rotation_vector([0.05, -0.1, 0.0], [0.2, -0.1, 0.15])
    image, _, valid = synthesise(frames, 0, plain(lens), motion, GREY, STRIDE)

    moved_from_camera = geometry.invert(motion)
    normal = np.array([[0.0, 0.0, 1.0]])
    homography = INPUT.matrix @ (moved_from_camera[:3, :3] + moved_from_camera[:3, 3:] @ normal / distance)
    homography = homography @ np.linalg.inv(INPUT.matrix)
    size = INPUT.width, INPUT.height
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    u, v = small_lens.project(INPUT.rays(np.indices(size).reshape(2, -1).T)).T.reshape(2, *size)
    shown = ((u >= 0) & (u <= size[0] - 1) & (v >= 0) & (v <= size[1] - 1)).T
    expected = through(small_lens, cv2.warpPerspective(small, homography, size))
    shown = through(small_lens, cv2.warpPerspective(255 * shown.astype(np.uint8), homography, size))
    inside = cv2.erode(shown, np.ones((5, 5))) == 255
    assert inside.mean() > 0.6
    assert valid.mean() > 0.6
    assert np.abs(image.astype(int) - expected)[inside].mean() < 2.0
    outside = ~cv2.dilate(inside.astype(np.uint8), np.ones((15, 15))).astype(bool)
    assert outside.any()
    assert (image[outside] == 128).all()


def test_what_is_in_front_hides_what_is_behind():
    """A post at 1 m before a wall at 4 m: seen from the right, it covers another part of the wall."""
    depth = np.full((240, 320), 4.0)
    depth[:, 140:180] = 1.0
    image = np.where(depth[..., None] == 1, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    motion = geometry.transform_from_rotation_vector([0, 0, 0], [0.2, 0, 0])
    seen, coordinates, valid = synthesise(frame(depth, image), 0, plain(), motion, GREY, STRIDE)
    left, right = (INPUT.project(np.array([[u / 300, 0.0, 1.0]]) - (0.2, 0, 0))[0, 0] for u in (-22, 17))
    row = seen[60]
    assert (row[round(left) + 3 : round(right) - 3, 0] > 200).all(), "the post is where it must be"
    assert (row[88:148, 2] > 200).all(), "and so is the wall that was seen"
    z = coordinates[2]
    on_post = (CELLS[:, 0] > left + 3) & (CELLS[:, 0] < right - 3)
    assert np.allclose(z.ravel()[valid.ravel() & on_post], 1.0)
    off_post = (CELLS[:, 0] < left - 4) | (CELLS[:, 0] > right + 4)
    assert np.allclose(z.ravel()[valid.ravel() & off_post], 4.0)
    uncovered = (CELLS[:, 0] > right + 4) & (CELLS[:, 0] < 78)
    assert not valid.ravel()[uncovered].any(), "what the post hid is no target"


@pytest.mark.parametrize("depth", [np.zeros((240, 320)), np.eye(240, 320) * 2, np.full((240, 320), 60.0)])
def test_hardly_any_depth_gives_a_picture_and_few_targets(depth):
    random = np.random.default_rng(0)
    frames = frame(depth)
    motion = random_motion(frames, 0, RANGES, random)
    image, coordinates, valid = synthesise(frames, 0, plain(), motion, GREY, STRIDE)
    assert image.shape == (120, 160, 3)
    assert np.isfinite(coordinates).all()
    assert valid.mean() < 0.2 or depth.min() > 0


def test_a_motion_stays_within_its_ranges():
    frames, random = frame(np.full((240, 320), 3.0)), np.random.default_rng(0)
    motions = np.array([random_motion(frames, 0, RANGES, random) for _ in range(200)])
    farthest = np.abs(motions[:, :3, 3]).max()
    assert 0.8 < farthest / (RANGES.translation * 3.0) <= 1
    angles = [np.degrees(np.arccos((np.trace(motion[:3, :3]) - 1) / 2)) for motion in motions]
    assert 0.9 * RANGES.tilt_deg < max(angles) <= np.sqrt(2) * RANGES.tilt_deg


def test_a_motion_goes_no_farther_than_the_camera_did():
    """A camera that turns on the spot, up to 3 cm: half a metre beside it nobody will look."""
    turning, random = frame(np.full((240, 320), 3.0)), np.random.default_rng(0)
    turning.world_from_camera[:, :3, 3] = [[0.03, 0, 0], [-0.03, 0, 0]]
    assert turning.roamed == pytest.approx(0.03)
    motions = np.array([random_motion(turning, 0, RANGES, random) for _ in range(200)])
    assert 0.024 < np.abs(motions[:, :3, 3]).max() <= 0.03
    angles = [np.degrees(np.arccos((np.trace(motion[:3, :3]) - 1) / 2)) for motion in motions]
    assert max(angles) > 0.9 * RANGES.tilt_deg


def test_every_target_of_a_batch_reprojects_onto_its_cell():
    """Moved or not: rays, poses and coordinates of a batch belong together."""
    random = np.random.default_rng(0)
    pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
    frames = frame(relief(), pose=pose)
    batch = BatchSource(frames, 16, STRIDE, Augmentation(), (0,), torch.device("cpu")).batch(0)
    perfect = Prediction(batch.coordinates, torch.zeros_like(batch.coordinates[:, :1]))
    known = batch._replace(seen=batch.valid)
    assert reprojection_loss(perfect, known, INPUT.focal, 1.0) < 1e-3
    poses = {tuple(np.round(pose.numpy().ravel(), 4)) for pose in batch.camera_from_world}
    assert 3 < len(poses) < 16, "some are moved and some are not"
    assert (batch.seen & ~batch.valid).any()
    assert not (batch.valid & ~batch.seen).any()


def test_the_reprojection_loss_is_the_clamped_error_in_pixels():
    rays = torch.tensor([[0.1, 0.0, 0.0], [0.0, -0.2, 0.0]]).reshape(1, 2, 1, 3)
    points = torch.tensor([[0.3, 0.0, 0.0], [0.0, -0.2, 0.0], [2.0, 1.0, -1.0]]).reshape(1, 3, 1, 3)
    points.requires_grad_()
    seen = torch.tensor([True, True, True]).reshape(1, 1, 1, 3)
    pose = torch.eye(4)[None]
    prediction = Prediction(points, torch.zeros(1, 1, 1, 3))
    images = torch.zeros(1, 3, 8, 24)

    batch = Batch(images, points.detach(), seen, rays, seen, pose)
    loss = reprojection_loss(prediction, batch, focal=100.0, clamp=4.0)
    # 5 px beside its ray; exactly on it; behind the camera, which does not count
    assert loss.item() == pytest.approx(4 * np.tanh(5 / 4) / 2, rel=1e-5)
    loss.backward()
    assert torch.isfinite(points.grad).all()
    assert (points.grad[..., 2] == 0).all()
