"""The losses of one scene (paper Sec. 3.3, Eq. 3-5), and one that it does not have."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ofvl_core.network import Prediction
from ofvl_core.training.augmentation import Batch

NEAREST = 0.1
"""Points closer than this to the camera, metres, are no use for an error in pixels."""

TINY = 1e-14
"""A root has no gradient at zero."""


def scene_coordinate_loss(
    prediction: Prediction, coordinates: Tensor, valid: Tensor, distance_share: float = 0.0
) -> Tensor:
    """Eq. 4, the mean over valid cells of 3 log u + |d - d^|^2 / (2 u^2).

    `coordinates` (B, 3, h, w) in metres, `valid` (B, 1, h, w). Zero when no cell is valid.
    With `distance_share` a > 0 the coordinates learn from a |d - d^| + (1 - a) Eq. 4 instead, and the
    uncertainty from Eq. 4 as before: the pull of Eq. 4 on a far cell fades with its uncertainty, which
    holds a large scene back at the start.
    """
    difference = prediction.coordinates - coordinates
    squared_distance = difference.square().sum(dim=1, keepdim=True)
    log_u = prediction.log_uncertainty
    if distance_share > 0:
        distance = torch.where(valid, squared_distance, 1.0).sqrt()  # no gradient of a root at zero
        seen = (1 - distance_share) * squared_distance + distance_share * squared_distance.detach()
        loss = 3 * log_u + 0.5 * seen * torch.exp(-2 * log_u) + distance_share * distance
    else:
        loss = 3 * log_u + 0.5 * squared_distance * torch.exp(-2 * log_u)
    return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp(min=1)


def reprojection_loss(prediction: Prediction, batch: Batch, focal: float, clamp: float) -> Tensor:
    """How far from their pixels the true camera sees the predicted points: c tanh(e / c) of every error e.

    Mean over the cells that are seen, in pixels of the network's input, whose mean focal length is `focal`.
    It is what the pose is solved from, and needs no depth. `clamp` c, pixels, keeps cells that are far off
    from pulling (after Brachmann et al., ACE, CVPR 2023); points behind the camera do not count.
    """
    camera_from_world = batch.camera_from_world
    points = prediction.coordinates.float().flatten(2)
    seen = camera_from_world[:, :3, :3] @ points + camera_from_world[:, :3, 3:]
    in_front = batch.seen.flatten(2) & (seen[:, 2:] > NEAREST)
    depth = torch.where(in_front, seen[:, 2:], 1.0)
    squared = (seen[:, :2] / depth - batch.rays.flatten(2)).square().sum(dim=1, keepdim=True)
    error = torch.where(in_front, squared + TINY, 1.0).sqrt() * focal
    return torch.where(in_front, clamp * torch.tanh(error / clamp), 0.0).sum() / in_front.sum().clamp(min=1)


def sharing_penalty(scores: Iterable[Tensor]) -> Tensor:
    """Eq. 5, the mean absolute score: presses all layers towards being shared."""
    return torch.stack(list(scores)).abs().mean()
