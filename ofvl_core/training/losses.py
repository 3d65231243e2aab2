"""The losses of one scene (paper Sec. 3.3, Eq. 3-5)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ofvl_core.network import Prediction


def scene_coordinate_loss(prediction: Prediction, coordinates: Tensor, valid: Tensor) -> Tensor:
    """Eq. 4, the mean over valid cells of 3 log u + |d - d^|^2 / (2 u^2).

    `coordinates` (B, 3, h, w) in metres, `valid` (B, 1, h, w). Zero when no cell is valid.
    """
    squared_distance = (prediction.coordinates - coordinates).square().sum(dim=1, keepdim=True)
    log_u = prediction.log_uncertainty
    negative_log_likelihood = 3 * log_u + 0.5 * squared_distance * torch.exp(-2 * log_u)
    return torch.where(valid, negative_log_likelihood, 0.0).sum() / valid.sum().clamp(min=1)


def sharing_penalty(scores: Iterable[Tensor]) -> Tensor:
    """Eq. 5, the mean absolute score: presses all layers towards being shared."""
    return torch.stack(list(scores)).abs().mean()
