"""Eq. 10-12: odometry and relocalization tell of the same motion.

The motion is that between the window's ends, previous_from_following: where the following camera is as the
previous one sees it. In Eq. 1 T(a->t) takes points of camera t to camera a, so Eq. 10 reads
T(t-1->t) T(t+1->t)^-1. It equals P(t-1)^-1 P(t+1) of the global poses P = world_from_camera. Eq. 11 as
printed does not: it is a difference of poses, in the world's axes.
"""

from typing import Literal

import torch
from torch import Tensor

from ofvl_core.collaborative.rigid import inverse, log_quaternion

Form = Literal["relative", "printed"]


def local_motion(following_from_target: Tensor, previous_from_target: Tensor) -> Tensor:
    """Eq. 10: previous_from_following (B, 4, 4) by way of the target."""
    return previous_from_target @ inverse(following_from_target)


def global_motion(previous: Tensor, following: Tensor) -> Tensor:
    """previous_from_following (B, 4, 4) of two poses world_from_camera (B, 4, 4)."""
    return inverse(previous) @ following


def aligning_scale(local_translations: Tensor, true_translations: Tensor) -> Tensor:
    """The factor >= 0 that brings the local translations (B, 3) closest to the true ones, without a gradient.

    Depth and odometry of a monocular video are in a unit of their own. Zero if no factor helps.
    """
    local, true = local_translations.detach(), true_translations.detach()
    return ((local * true).sum() / local.square().sum().clamp(min=1e-12)).clamp(min=0)


def consistency_loss(
    local: Tensor, previous: Tensor, following: Tensor, scale: Tensor | float, form: Form = "relative"
) -> Tensor:
    """Eq. 12, mean over the batch: l1 of translations (metres) and of quaternions' logarithms.

    `local` (B, 4, 4) is previous_from_following by the odometry, whose translation `scale` turns to metres;
    `previous` and `following` (B, 4, 4) are the relocalized world_from_camera. `form` "printed" takes Eq. 11
    to the letter, differences of positions and of quaternions' logarithms.
    """
    if form == "relative":
        motion = global_motion(previous, following)
        translation, turn = motion[:, :3, 3], log_quaternion(motion[:, :3, :3])
    else:
        translation = following[:, :3, 3] - previous[:, :3, 3]
        turn = log_quaternion(following[:, :3, :3]) - log_quaternion(previous[:, :3, :3])
    differences = [scale * local[:, :3, 3] - translation, log_quaternion(local[:, :3, :3]) - turn]
    return torch.cat(differences, dim=1).abs().sum(dim=1).mean()
