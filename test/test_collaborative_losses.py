"""The terms of Eq. 13, each against a direct computation, and Eq. 1 against rendered views."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import REAL_DATA
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from ofvl_core.camera import Camera
from ofvl_core.collaborative.consistency import (
    aligning_scale,
    consistency_loss,
    global_motion,
    local_motion,
)
from ofvl_core.collaborative.depth_net import depth_from
from ofvl_core.collaborative.global_pose_net import GlobalPose
from ofvl_core.collaborative.objective import Losses, Weights, joint_loss
from ofvl_core.collaborative.photometric import (
    dissimilarity,
    least_dissimilarity,
    photometric_loss,
    ssim_dissimilarity,
    stationary_mask,
)
from ofvl_core.collaborative.pose_loss import PoseLoss
from ofvl_core.collaborative.smoothness import smoothness_loss
from ofvl_core.collaborative.video import VideoBatch
from ofvl_core.collaborative.warping import synthesise
from ofvl_core.geometry import Array, invert, transform_from_rotation_vector

CAMERA = Camera(64, 32, 40.0, 42.0, 30.7, 16.2)
FRAMES = [  # world_from_camera before a wall: t - 1, t, t + 1
    transform_from_rotation_vector((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    transform_from_rotation_vector((0.01, -0.02, 0.01), (0.1, 0.02, 0.15)),
    transform_from_rotation_vector((0.015, -0.05, 0.0), (0.22, 0.03, 0.35)),
]
WALL = np.array([0.1, -0.05, 1.0, -4.0])
"""The plane's a b c d: points of it have a x + b y + c z + d = 0."""


def tensor(values) -> Tensor:
    return torch.tensor(np.asarray(values, float))


def random_images(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Eq. 1


@dataclass(frozen=True)
class View:
    """What a camera sees of the wall: its image (1, 3, H, W) of 0..1 and depth (1, 1, H, W)."""

    image: Tensor
    depth: Tensor


def view(world_from_camera: Array, camera: Camera = CAMERA) -> View:
    """Rays meet the plane, whose colours are smooth functions of the place: exact at every pixel."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)])
    directions = np.einsum("ij,jvu->ivu", world_from_camera[:3, :3], rays)
    origin = world_from_camera[:3, 3]
    depth = -(WALL[:3] @ origin + WALL[3]) / np.einsum("i,ivu->vu", WALL[:3], directions)
    x, y, _ = origin[:, None, None] + depth * directions
    colours = [np.sin(4 * x + y), np.cos(3 * y - 2 * x), np.sin(2 * x) * np.cos(4 * y)]
    return View(tensor([colours]) / 2 + 0.5, tensor(depth)[None, None])


def intrinsics(camera: Camera = CAMERA) -> Tensor:
    return tensor([camera.matrix])


@pytest.mark.parametrize("source", [0, 2])
def test_a_rendered_view_is_synthesised_from_another(source):
    camera = CAMERA.resized(128, 64)
    target = view(FRAMES[1], camera)
    source_from_target = invert(FRAMES[source]) @ FRAMES[1]
    source_image = view(FRAMES[source], camera).image
    made = synthesise(source_image, target.depth, tensor([source_from_target]), intrinsics(camera))
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([u, v, np.ones(u.shape)]).reshape(3, -1)
    points = np.linalg.inv(camera.matrix) @ pixels * target.depth.numpy().ravel()
    seen = camera.matrix @ (source_from_target[:3, :3] @ points + source_from_target[:3, 3:])
    us, vs = seen[:2] / seen[2]
    inside = (us >= 0) & (us <= camera.width - 1) & (vs >= 0) & (vs <= camera.height - 1)
    error = (made - target.image).abs().numpy().reshape(3, -1)[:, inside]
    assert inside.mean() > 0.75
    # what bilinear interpolation errs by: an eighth of the second derivative, here of half a sine of 4.5
    # radians a metre, in pixels of 5 cm on the wall, along and across
    assert error.max() < 0.5 * (4.5 * 0.05) ** 2 / 8 * 2
    unmoved = (source_image - target.image).abs().numpy().reshape(3, -1)[:, inside]
    assert np.median(unmoved) > 20 * np.median(error)


def test_a_shift_of_whole_pixels_is_exact_and_the_border_goes_on():
    source = random_images(0, 2, 3, 6, 8)
    depth = torch.full((2, 1, 6, 8), 5.0, dtype=torch.float64)
    source_from_target = np.tile(np.eye(4), (2, 1, 1))
    source_from_target[:, 0, 3] = 2 * 5.0 / 40.0  # two pixels to the right
    source_from_target[1, 1, 3] = -1 * 5.0 / 42.0  # and one up
    made = synthesise(source, depth, tensor(source_from_target), intrinsics().expand(2, 3, 3))
    columns, rows = [2, 3, 4, 5, 6, 7, 7, 7], [0, 0, 1, 2, 3, 4]
    expected = torch.stack([source[0][..., columns], source[1][:, rows][..., columns]])
    assert torch.allclose(made, expected, rtol=0, atol=1e-12)


def test_derivatives_by_depth_and_motion_are_those_of_finite_differences():
    source = random_images(1, 1, 2, 5, 6)
    camera = Camera(6, 5, 6.0, 7.0, 2.4, 2.1)
    depth = (2 + random_images(2, 1, 1, 5, 6)).requires_grad_()
    motion = tensor([transform_from_rotation_vector((0.02, -0.03, 0.05), (0.11, -0.07, 0.2))])
    motion.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda depth, motion: synthesise(source, depth, motion, intrinsics(camera)), (depth, motion)
    )


def test_points_behind_the_source_camera_give_finite_values_and_derivatives():
    source = random_images(3, 1, 3, 32, 64)
    depth = torch.ones(1, 1, 32, 64, dtype=torch.float64, requires_grad=True)
    motion = np.eye(4)
    for motion[2, 3] in (-1.0, -3.0):  # into the camera's plane, and behind it
        made = synthesise(source, depth, tensor([motion]), intrinsics())
        (gradient,) = torch.autograd.grad(made.sum(), depth)
        assert ((made >= 0) & (made <= 1)).all()
        assert torch.isfinite(gradient).all()


# Eq. 2-4


def direct_ssim(a: Array, b: Array) -> Array:
    """(1 - SSIM) / 2 (H, W) of images (C, H, W), pixel by pixel."""
    channels, height, width = a.shape

    def mirrored(index: int, size: int) -> int:
        return size - 1 - abs(size - 1 - abs(index))

    result = np.zeros((height, width))
    for c, v, u in np.ndindex(channels, height, width):
        window = [
            (mirrored(v + dv, height), mirrored(u + du, width)) for dv in (-1, 0, 1) for du in (-1, 0, 1)
        ]
        of_a, of_b = (np.array([image[c, row, column] for row, column in window]) for image in (a, b))
        covariance = np.mean((of_a - of_a.mean()) * (of_b - of_b.mean()))
        luminance = (2 * of_a.mean() * of_b.mean() + 1e-4) / (of_a.mean() ** 2 + of_b.mean() ** 2 + 1e-4)
        structure = (2 * covariance + 9e-4) / (of_a.var() + of_b.var() + 9e-4)
        result[v, u] += np.clip((1 - luminance * structure) / 2, 0, 1) / channels
    return result


def direct_dissimilarity(a: Tensor, b: Tensor) -> Array:
    """Eq. 3 of images (B, C, H, W): (B, H, W)."""
    return np.stack(
        [
            0.15 * np.abs(one - other).mean(axis=0) + 0.85 * direct_ssim(one, other)
            for one, other in zip(a.numpy(), b.numpy(), strict=True)
        ]
    )


def test_ssim_is_that_of_windows_of_three_by_three():
    a, b = random_images(4, 1, 3, 5, 6), random_images(5, 1, 3, 5, 6)
    mixed = 0.8 * a + 0.2 * b
    for other in (b, mixed, 1 - a):
        expected = direct_ssim(a[0].numpy(), other[0].numpy())
        assert np.allclose(ssim_dissimilarity(a, other)[0, 0], expected, rtol=0, atol=1e-12)
    assert ssim_dissimilarity(1 - a, a).mean() > 2 * ssim_dissimilarity(mixed, a).mean()


def test_dissimilarity_joins_l1_and_ssim():
    a, b = random_images(6, 2, 3, 5, 6), random_images(7, 2, 3, 5, 6)
    assert np.allclose(dissimilarity(a, b)[:, 0], direct_dissimilarity(a, b), rtol=0, atol=1e-12)
    single = dissimilarity(a.float(), b.float())[:, 0]
    assert np.allclose(single, direct_dissimilarity(a, b), rtol=0, atol=1e-4)
    assert (dissimilarity(a.float(), a.float()) == 0).all()


def test_photometric_loss_takes_the_better_source_where_motion_explains_more():
    target = random_images(8, 2, 3, 6, 7)
    sources = [0.7 * target + 0.3 * random_images(seed, 2, 3, 6, 7) for seed in (9, 10)]
    synthesised = [0.7 * target + 0.3 * random_images(seed, 2, 3, 6, 7) for seed in (11, 12)]
    loss = photometric_loss(target, least_dissimilarity(target, sources), synthesised)
    total, moving = 0.0, 0
    explained = [direct_dissimilarity(target, image) for image in synthesised]
    still = [direct_dissimilarity(target, image) for image in sources]
    for place in np.ndindex(2, 6, 7):
        least = min(each[place] for each in explained)
        if least < min(each[place] for each in still):
            total, moving = total + least, moving + 1
    assert 20 < moving < 64
    assert loss.item() == pytest.approx(total / (2 * 6 * 7), abs=1e-12)


def test_pixels_that_rest_teach_nothing():
    """Eq. 4's kappa: a standing camera, and whatever moves along with it."""
    target = random_images(13, 1, 3, 16, 16)
    source = target.clone()
    source[..., 8:] = random_images(14, 1, 3, 16, 8)  # the left half rests
    unmoved = least_dissimilarity(target, [source])
    made = target + 0.01 * random_images(15, 1, 3, 16, 16)
    mask = stationary_mask(least_dissimilarity(target, [made]), unmoved)
    assert not mask[..., :7].any()
    assert mask[..., 8:].all()
    made.requires_grad_()
    standing = photometric_loss(target, least_dissimilarity(target, [target]), [made])
    assert standing == 0
    standing.backward()
    assert (made.grad == 0).all()


def test_photometric_derivatives_are_those_of_finite_differences():
    target, image = random_images(16, 1, 2, 4, 5), random_images(17, 1, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: dissimilarity(target, image), image)


# Eq. 5


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_smoothness_counts_slopes_where_the_image_is_even(stride):
    height, width = 4, 6
    inverse_depth = 0.1 + random_images(18, 2, 1, height, width)
    image = random_images(19, 2, 3, height * stride, width * stride)
    expected = 0.0
    for b in range(2):
        normalised = (inverse_depth[b, 0] / inverse_depth[b, 0].mean()).numpy()
        cells = image[b].numpy().reshape(3, height, stride, width, stride).mean(axis=(2, 4))
        slopes: dict[tuple[int, int], list[float]] = {(0, 1): [], (1, 0): []}
        for (dv, du), found in slopes.items():
            for v, u in np.ndindex(height - dv, width - du):
                slope = abs(normalised[v + dv, u + du] - normalised[v, u]) / stride
                edge = np.abs(cells[:, v + dv, u + du] - cells[:, v, u]).mean()
                found.append(slope * np.exp(-edge))
        expected += sum(np.mean(found) for found in slopes.values()) / 2
    assert smoothness_loss(inverse_depth, image).item() == pytest.approx(expected, abs=1e-12)


def test_smoothness_knows_no_unit_and_one_surface_costs_the_same_at_every_scale():
    ramp = (1 + torch.linspace(0, 1, 64, dtype=torch.float64)).expand(1, 1, 32, 64)
    even = torch.full((1, 3, 32, 64), 0.5, dtype=torch.float64)
    loss = smoothness_loss(ramp, even)
    assert torch.allclose(smoothness_loss(7 * ramp, even), loss)
    coarse = torch.nn.functional.avg_pool2d(ramp, 4)
    assert torch.allclose(smoothness_loss(coarse, even), loss)
    assert smoothness_loss(torch.ones_like(ramp), even) == 0


# Eq. 7


def test_pose_loss_is_eq_7():
    true = [
        transform_from_rotation_vector((0.3, -0.5, 1.0), (1.0, 2.0, -3.0)),
        transform_from_rotation_vector((0.0, 0.0, -3.0), (0.0, 0.5, 0.1)),
    ]
    positions, logs = np.array([[1.5, 2.0, -3.2], [0.1, 0.5, 0.0]]), np.array([[0.1, 0, 0], [0, 0.2, -1.4]])
    loss = PoseLoss().double()
    expected = 0.0
    for matrix, position, log in zip(true, positions, logs, strict=True):
        quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat(canonical=True)
        true_log = quaternion[:3] / np.linalg.norm(quaternion[:3]) * np.arccos(quaternion[3])
        metres, turn = np.abs(position - matrix[:3, 3]).sum(), np.abs(log - true_log).sum()
        expected += (metres * np.exp(-0.0) + 0.0 + turn * np.exp(3.0) - 3.0) / 2
    found = loss(tensor(positions), tensor(logs), tensor(true))
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_pose_loss_comes_to_rest_at_the_logarithms_of_the_errors():
    loss = PoseLoss().double()
    positions, logs = tensor([[2.0, 0, 0]]), tensor([[0.0, 0.1, 0]])
    for eta, phi, pull in [(np.log(2), np.log(0.1), (0, 0)), (0.0, -3.0, (-1, 1 - 0.1 * np.exp(3)))]:
        torch.nn.utils.vector_to_parameters(tensor([eta, phi]), loss.parameters())
        gradients = torch.autograd.grad(loss(positions, logs, tensor([np.eye(4)])), list(loss.parameters()))
        assert np.allclose(gradients, pull, rtol=0, atol=1e-12)


# Eq. 10-12

motions = st.builds(
    transform_from_rotation_vector,
    st.tuples(*[st.floats(-1.7, 1.7)] * 3).map(np.array),
    st.tuples(*[st.floats(-100, 100)] * 3).map(np.array),
)


def true_motion(previous: Array, target: Array, following: Array) -> Tensor:
    """Eq. 10 of what a faultless LocalPoseNet says of three poses world_from_camera (B, 4, 4)."""
    return local_motion(
        following_from_target=tensor(invert(following) @ target),
        previous_from_target=tensor(invert(previous) @ target),
    )


@given(motions, motions, motions)
def test_true_odometry_and_true_poses_agree(previous, target, following):
    previous, target, following = previous[None], target[None], following[None]
    local = true_motion(previous, target, following)
    motion = global_motion(tensor(previous), tensor(following))
    assert torch.allclose(local, motion, rtol=0, atol=1e-11)
    assert torch.allclose(motion, tensor(invert(previous) @ following), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("heading_deg", "error_deg"), [(30, 0.5), (90, 1.6), (170, 3.4)])
def test_eq_11_as_printed_is_no_relative_pose(heading_deg, error_deg):
    """A car of some heading that pitches by 2 degrees as it drives a metre on."""
    heading = Rotation.from_euler("y", heading_deg, degrees=True)
    pitched = heading * Rotation.from_euler("x", 2, degrees=True)
    start = np.array([5.0, 0.0, 7.0])
    previous = transform_from_rotation_vector(heading.as_rotvec(), start)
    following = transform_from_rotation_vector(pitched.as_rotvec(), start + heading.apply([0, 0, 1]))
    poses = tensor(previous[None]), tensor(following[None])
    local = true_motion(previous[None], previous[None], following[None])
    assert consistency_loss(local, *poses, 1.0) < 1e-12
    printed = consistency_loss(local, *poses, 1.0, "printed").item()
    logs = [Rotation.from_matrix(each[:3, :3]).as_rotvec() / 2 for each in (previous, following)]
    turn = logs[1] - logs[0] - [np.radians(1), 0, 0]
    assert np.degrees(2 * np.linalg.norm(turn)) == pytest.approx(error_deg, abs=0.05)
    metres = np.abs(heading.apply([0, 0, 1]) - [0, 0, 1]).sum()
    assert printed == pytest.approx(np.abs(turn).sum() + metres, abs=1e-12)


def test_consistency_loss_is_the_l1_of_eq_12():
    previous = transform_from_rotation_vector((0.1, 0.2, 0.3), (1, 2, 3))[None]
    following = transform_from_rotation_vector((0.2, 0.0, 0.1), (1.5, 2.5, 2.0))[None]
    local = transform_from_rotation_vector((0.05, -0.1, 0.02), (0.1, -0.2, 0.3))[None]
    motion = invert(previous)[0] @ following[0]
    expected = np.abs(3.0 * local[0, :3, 3] - motion[:3, 3]).sum()
    expected += np.abs([0.025, -0.05, 0.01] - Rotation.from_matrix(motion[:3, :3]).as_rotvec() / 2).sum()
    found = consistency_loss(tensor(local), tensor(previous), tensor(following), torch.tensor(3.0))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_unit_of_odometry_is_brought_to_metres_by_least_squares():
    local = random_images(20, 8, 3) - 0.5
    true = 12.5 * local + 0.1 * random_images(21, 8, 3)
    expected = np.linalg.lstsq(local.reshape(-1, 1).numpy(), true.flatten().numpy(), rcond=None)[0]
    scale = aligning_scale(local.requires_grad_(), true)
    assert scale.item() == pytest.approx(expected.item(), abs=1e-9)
    assert not scale.requires_grad
    assert aligning_scale(local, -true) == 0
    assert aligning_scale(torch.zeros(4, 3), torch.ones(4, 3)) == 0


def test_the_recorded_drive_agrees_with_the_relative_form_only():
    path = REAL_DATA / "kitti" / "00" / "poses.txt"
    if not path.is_file():
        pytest.skip(f"KITTI poses are absent: set OFVL_DATA to their folder (looked for {path})")
    poses = np.tile(np.eye(4), (len(rows := np.loadtxt(path)), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    previous, target, following = poses[:-2], poses[1:-1], poses[2:]
    local = true_motion(previous, target, following)
    ends = tensor(previous), tensor(following)
    assert consistency_loss(local, *ends, 1.0) < 1e-5  # seven digits of hundreds of metres
    assert consistency_loss(local, *ends, 1.0, "printed") > 0.5
    true = global_motion(*ends)[:, :3, 3]
    assert aligning_scale(local[:, :3, 3] / 7.0, true).item() == pytest.approx(7.0, abs=1e-5)


# Eq. 13


def wall_batch() -> VideoBatch:
    """Three frames of the wall, in float32 as in training."""
    clean = torch.stack([view(frame).image[0] for frame in FRAMES])[None].float()
    return VideoBatch(2 * clean - 1, clean, intrinsics().float(), tensor([FRAMES]).float())


def wall_disparities() -> list[Tensor]:
    """The wall's true depth as DepthNet would say it, at four scales: it is linear in the image."""
    fine = (1 / view(FRAMES[1]).depth.float() - 0.01) / (10 - 0.01)
    return [torch.nn.functional.avg_pool2d(fine, 2**scale) if scale else fine for scale in range(4)]


def from_target(source: int) -> Tensor:
    return tensor([invert(FRAMES[source]) @ FRAMES[1]]).float()


def some_poses() -> list[GlobalPose]:
    """Poses of the three frames, each a little off."""
    logs = [Rotation.from_matrix(frame[:3, :3]).as_rotvec() / 2 + 0.01 for frame in FRAMES]
    return [
        GlobalPose(tensor([frame[:3, 3] + 0.1 * i]).float(), tensor([log]).float())
        for i, (frame, log) in enumerate(zip(FRAMES, logs, strict=True))
    ]


def test_the_joint_loss_is_the_weighted_sum_of_its_terms():
    batch, disparities, poses, pose_loss = wall_batch(), wall_disparities(), some_poses(), PoseLoss()
    motions = from_target(0), from_target(2)
    halved = [motion.clone() for motion in motions]
    for motion in halved:
        motion[:, :3, 3] *= 0.5  # the odometry's unit is two metres
    weights = Weights()
    motion_loss = PoseLoss()
    losses = joint_loss(batch, disparities, *halved, weights, poses, pose_loss, motion_loss)
    previous, target, following = batch.clean.unbind(dim=1)
    unmoved = least_dissimilarity(target, [previous, following])
    photometric, smoothness = 0.0, 0.0
    for disparity in disparities:
        full = torch.nn.functional.interpolate(disparity, (32, 64), mode="bilinear")
        made = [
            synthesise(source, depth_from(full), motion, batch.intrinsics)
            for source, motion in zip((previous, following), halved, strict=True)
        ]
        photometric += photometric_loss(target, unmoved, made).item() / 4
        smoothness += smoothness_loss(1 / depth_from(disparity), target).item() / 4
    pose = np.mean([pose_loss(*each, batch.world_from_camera[:, i]).item() for i, each in enumerate(poses)])
    worlds = [
        transform_from_rotation_vector(2 * each.log_quaternion[0].numpy(), each.position[0].numpy())[None]
        for each in poses
    ]
    local = tensor(invert(FRAMES[0]) @ FRAMES[2])[None]  # true again once its scale is
    consistency = consistency_loss(local, tensor(worlds[0]), tensor(worlds[2]), 1.0).item()
    assert losses.photometric.item() == pytest.approx(photometric, rel=1e-5)
    assert losses.smoothness.item() == pytest.approx(smoothness, rel=1e-5)
    assert losses.pose.item() == pytest.approx(pose, rel=1e-5)
    assert losses.consistency.item() == pytest.approx(consistency, abs=0.02)  # one scale for turning motions
    lengths = [np.abs(invert(FRAMES[source]) @ FRAMES[1])[:3, 3].sum() for source in (0, 2)]
    assert losses.motion.item() == pytest.approx(np.mean(lengths) / 2 - 3, rel=1e-5)  # too short by half
    expected = 0.5 * photometric + 0.05 * smoothness + 0.85 * pose + 0.1 * losses.consistency.item()
    expected += 0.5 * losses.motion.item()
    assert losses.total.item() == pytest.approx(expected, rel=1e-5)
    printed = joint_loss(batch, disparities, *halved, weights, poses, pose_loss, form="printed")
    assert printed.consistency != losses.consistency


def test_scales_compared_at_their_own_size_see_the_smaller_image():
    """The wall through a camera whose pixels are `factor` times larger, computed beside the code."""
    batch, disparities, weights = (
        wall_batch(),
        wall_disparities(),
        Weights(smoothness=0, pose=0, consistency=0),
    )
    motions = from_target(0), from_target(2)
    expected = 0.0
    for scale, disparity in enumerate(disparities):
        factor = 2**scale
        pixels = batch.clean[0].numpy()
        rows, columns = pixels.shape[-2] // factor, pixels.shape[-1] // factor
        small = pixels.reshape(3, 3, rows, factor, columns, factor).mean(axis=(3, 5))
        intrinsics = batch.intrinsics.clone() / factor
        intrinsics[:, :2, 2] = (batch.intrinsics[:, :2, 2] + 0.5) / factor - 0.5
        intrinsics[:, 2, 2] = 1.0
        images = tensor(small).float()[:, None]
        depth = depth_from(disparity)
        made = [synthesise(images[source], depth, motions[source // 2], intrinsics) for source in (0, 2)]
        unmoved = least_dissimilarity(images[1], [images[0], images[2]])
        expected += photometric_loss(images[1], unmoved, made).item() / 4
    losses = joint_loss(batch, disparities, *motions, weights, full_size=False)
    assert losses.photometric.item() == pytest.approx(expected, rel=1e-5)
    assert losses.photometric != joint_loss(batch, disparities, *motions, weights).photometric


def test_without_its_mask_every_pixel_counts():
    target, source, made = (
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    unmoved = least_dissimilarity(target, [source])
    whole = photometric_loss(target, unmoved, [made], masked=False).item()
    assert whole == pytest.approx(dissimilarity(target, made).mean().item())
    assert photometric_loss(target, unmoved, [made]).item() < whole


@pytest.mark.parametrize("term", list(Weights.model_fields))
def test_what_weighs_nothing_is_not_computed(term):
    """Were a term computed and multiplied by zero, its NaN would be the total's."""
    only = dict.fromkeys(Weights.model_fields, 0.0) | {term: 1.0}
    nothing = torch.full((1, 1, 32, 64), torch.nan)
    disparities = wall_disparities() if term in ("photometric", "smoothness") else [nothing]
    motions = [torch.full((1, 4, 4), torch.nan)] * 2
    if term in ("photometric", "consistency", "motion"):
        motions = [from_target(0), from_target(2)]
    nowhere = GlobalPose(torch.full((1, 3), torch.nan), torch.full((1, 3), torch.nan))
    poses = some_poses() if term in ("pose", "consistency") else [nowhere] * 3
    losses = joint_loss(wall_batch(), disparities, *motions, Weights(**only), poses, PoseLoss(), PoseLoss())
    assert losses.total == getattr(losses, term) != 0
    assert sum(loss != 0 for loss in losses) == 2


def test_terms_without_their_networks_are_left_out():
    batch, motions = wall_batch(), (from_target(0), from_target(2))
    pretraining = joint_loss(batch, wall_disparities(), *motions, Weights())
    assert pretraining.pose == pretraining.consistency == 0 != pretraining.photometric
    relocalization = joint_loss(batch, None, None, None, Weights(), some_poses(), PoseLoss())
    assert relocalization.total == 0.85 * relocalization.pose
    assert relocalization.photometric == relocalization.smoothness == relocalization.consistency == 0


def test_true_depth_and_motion_cost_least():
    def cost(depth_factor: float, turn: float) -> float:
        disparities = [each * depth_factor for each in wall_disparities()]
        turned = tensor(transform_from_rotation_vector((0.0, turn, 0.0), (0, 0, 0))).float()
        weights = Weights(photometric=1.0, smoothness=0.0)
        motions = turned @ from_target(0), turned @ from_target(2)
        return joint_loss(wall_batch(), disparities, *motions, weights).photometric.item()

    truth = cost(1.0, 0.0)
    assert all(cost(*wrong) > 1.5 * truth for wrong in [(0.6, 0.0), (1.6, 0.0), (1.0, 0.02), (1.0, -0.02)])


def test_every_input_learns_and_the_scale_does_not():
    disparities = [each.clone().requires_grad_() for each in wall_disparities()]
    motions = [from_target(source).requires_grad_() for source in (0, 2)]
    poses = [GlobalPose(*(part.requires_grad_() for part in pose)) for pose in some_poses()]
    pose_loss = PoseLoss()
    joint_loss(wall_batch(), disparities, *motions, Weights(), poses, pose_loss).total.backward()
    learning = [*disparities, *motions, *(part for pose in poses for part in pose), *pose_loss.parameters()]
    for each in learning:
        assert each.grad is not None
        assert torch.isfinite(each.grad).all()
        assert each.grad.abs().sum() > 0


def test_mixed_precision_leaves_the_losses_as_they_are():
    arguments = wall_batch(), wall_disparities(), from_target(0), from_target(2), Weights(), some_poses()
    losses = joint_loss(*arguments, PoseLoss())
    with torch.autocast("cpu", torch.bfloat16):
        assert joint_loss(*arguments, PoseLoss()) == losses


def test_weights_are_the_papers_and_not_negative():
    assert Weights() == Weights(photometric=0.5, smoothness=0.05, pose=0.85, consistency=0.1)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Weights(pose=-1.0)
    assert Losses._fields == (*Weights.model_fields, "total")


def test_a_motion_that_is_no_number_does_not_end_the_process():
    source, depth = torch.rand(1, 3, 32, 64), torch.ones(1, 1, 32, 64, requires_grad=True)
    nowhere = torch.full((1, 4, 4), torch.nan)
    synthesise(source, depth, nowhere, torch.eye(3)[None]).sum().backward()
