"""Eq. 13: what depth, odometry and relocalization are trained to make small, together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ofvl_core.collaborative.consistency import (
    Form,
    aligning_scale,
    consistency_loss,
    global_motion,
    local_motion,
)
from ofvl_core.collaborative.depth_net import depth_from
from ofvl_core.collaborative.global_pose_net import GlobalPose
from ofvl_core.collaborative.photometric import least_dissimilarity, photometric_loss
from ofvl_core.collaborative.pose_loss import PoseLoss
from ofvl_core.collaborative.rigid import inverse, log_quaternion, rotation_from_log, transform
from ofvl_core.collaborative.smoothness import smoothness_loss
from ofvl_core.collaborative.warping import synthesise

if TYPE_CHECKING:  # it reads files
    from ofvl_core.collaborative.video import VideoBatch

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Weights(BaseModel):
    """alpha, beta, gamma and delta of Eq. 13, by default those of the paper's collaborative stage.

    `motion` is of a term that the paper does not have: the poses of a posed video tell the true motions
    between its frames, too. What weighs nothing is not computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photometric: Weight = 0.5
    smoothness: Weight = 0.05
    pose: Weight = 0.85
    consistency: Weight = 0.1
    motion: Weight = 0.5


class Losses(NamedTuple):
    """The terms of Eq. 13 and `motion` as they are, the first two as means over scales; the weighted sum.

    All are scalars; what was not computed is zero.
    """

    photometric: Tensor
    smoothness: Tensor
    pose: Tensor
    consistency: Tensor
    motion: Tensor
    total: Tensor


def joint_loss(
    batch: "VideoBatch",
    disparities: Sequence[Tensor] | None,
    previous_from_target: Tensor | None,
    following_from_target: Tensor | None,
    weights: Weights,
    poses: Sequence[GlobalPose] | None = None,
    pose_loss: PoseLoss | None = None,
    motion_loss: PoseLoss | None = None,
    form: Form = "relative",
    full_size: bool = True,
    masked: bool = True,
) -> Losses:
    """Eq. 13 of a batch of three frames each, the middle one being the target.

    `disparities` are the target's, (B, 1, H / 2^s, W / 2^s) in 0..1, finest first. With `full_size` all are
    brought to the image's size before they warp it, as in monodepth2; else the images to theirs. `masked` is
    whether kappa of Eq. 4 hides what no motion explains better than rest. The motions (B, 4, 4) are
    source_from_target of Eq. 1 in the depth's units. `poses` are those of the three frames in their order;
    `pose_loss` and `motion_loss` balance position and rotation of poses and of motions; `form` is that of
    `consistency_loss`. Where something is None, terms that need it are not computed: in pretraining no poses
    are estimated, and relocalization may be trained without depth and motions.
    """
    photometric = smoothness = pose = consistency = motion = batch.clean.new_zeros(())
    motions = None
    if previous_from_target is not None and following_from_target is not None:
        motions = previous_from_target.float(), following_from_target.float()
    with torch.autocast(batch.clean.device.type, enabled=False):  # 8 bits are no subpixels
        if weights.photometric and disparities is not None and motions is not None:
            photometric = _photometric(batch, disparities, motions, full_size, masked)
        if weights.smoothness and disparities is not None:
            target = batch.clean[:, 1]
            smoothness = _mean([smoothness_loss(1 / depth_from(each), target) for each in disparities])
        if weights.pose and poses is not None and pose_loss is not None:
            pose = _pose(batch.world_from_camera, poses, pose_loss)
        if weights.consistency and poses is not None and motions is not None:
            consistency = _consistency(batch.world_from_camera, poses, motions, form)
        if weights.motion and motions is not None and motion_loss is not None:
            motion = _motion(batch.world_from_camera, motions, motion_loss)
        total = (
            weights.photometric * photometric
            + weights.smoothness * smoothness
            + weights.pose * pose
            + weights.consistency * consistency
            + weights.motion * motion
        )
    return Losses(photometric, smoothness, pose, consistency, motion, total)


def _photometric(
    batch: "VideoBatch",
    disparities: Sequence[Tensor],
    motions: tuple[Tensor, Tensor],
    full_size: bool,
    masked: bool,
) -> Tensor:
    """Eq. 4, mean over scales."""
    losses = []
    for disparity in disparities:
        images, intrinsics = batch.clean, batch.intrinsics
        size = images.shape[-2:]
        if full_size:
            disparity = F.interpolate(disparity, size, mode="bilinear", align_corners=False)
        elif disparity.shape[-2:] != size:
            images, intrinsics = _shrunk(images, intrinsics, size[0] // disparity.shape[-2])
        previous, target, following = images.unbind(dim=1)
        sources, depth = (previous, following), depth_from(disparity)
        seen = [
            synthesise(source, depth, motion, intrinsics)
            for source, motion in zip(sources, motions, strict=True)
        ]
        unmoved = least_dissimilarity(target, sources)
        losses.append(photometric_loss(target, unmoved, seen, masked))
    return _mean(losses)


def _shrunk(images: Tensor, intrinsics: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 3, H, W) `factor` f times smaller, and intrinsics: pixel c is at (c + 0.5) / f - 0.5."""
    small = F.avg_pool2d(images.flatten(0, 1), factor).unflatten(0, images.shape[:2])
    shrink = intrinsics.new_tensor(
        [[1.0, 0.0, 0.5 - 0.5 * factor], [0.0, 1.0, 0.5 - 0.5 * factor], [0, 0, factor]]
    )
    return small, shrink / factor @ intrinsics


def _pose(true: Tensor, poses: Sequence[GlobalPose], pose_loss: PoseLoss) -> Tensor:
    """Eq. 7, mean over the three frames; `true` world_from_camera (B, 3, 4, 4)."""
    positions = torch.stack([pose.position for pose in poses], dim=1)
    logs = torch.stack([pose.log_quaternion for pose in poses], dim=1)
    return pose_loss(positions.flatten(0, 1), logs.flatten(0, 1), true.flatten(0, 1))


def _motion(true: Tensor, motions: tuple[Tensor, Tensor], motion_loss: PoseLoss) -> Tensor:
    """Eq. 7 of the motions, mean over both, as MapNet has it of relative poses (Brahmbhatt et al., 2018); so
    the networks' unit is the metre. `true` world_from_camera (B, 3, 4, 4)."""
    known = torch.cat([inverse(true[:, source]) @ true[:, 1] for source in (0, 2)])
    estimated = torch.cat(motions)
    return motion_loss(estimated[:, :3, 3], log_quaternion(estimated[:, :3, :3]), known)


def _consistency(
    true: Tensor, poses: Sequence[GlobalPose], motions: tuple[Tensor, Tensor], form: Form
) -> Tensor:
    """Eq. 12, after the odometry's unit was brought to metres; `true` world_from_camera (B, 3, 4, 4)."""
    previous_from_target, following_from_target = motions
    local = local_motion(following_from_target, previous_from_target)
    scale = aligning_scale(local[:, :3, 3], global_motion(true[:, 0], true[:, 2])[:, :3, 3])
    previous, _, following = (
        transform(rotation_from_log(pose.log_quaternion), pose.position) for pose in poses
    )
    return consistency_loss(local, previous, following, scale, form)


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()
