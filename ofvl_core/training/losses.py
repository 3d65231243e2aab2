"""The losses of one scene (paper Sec. 3.3, Eq. 3-5)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ofvl_core.network import Prediction


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


def sharing_penalty(scores: Iterable[Tensor]) -> Tensor:
    """Eq. 5, the mean absolute score: presses all layers towards being shared."""
    return torch.stack(list(scores)).abs().mean()
