"""Eq. 4 and Eq. 5 against a direct computation."""

import math

import pytest
import torch

from ofvl_core.network import Prediction
from ofvl_core.training.losses import scene_coordinate_loss, sharing_penalty


@pytest.fixture
def cells():
    generator = torch.Generator().manual_seed(0)
    prediction = Prediction(
        torch.randn(3, 3, 4, 5, generator=generator, requires_grad=True),
        torch.randn(3, 1, 4, 5, generator=generator, requires_grad=True),
    )
    coordinates = torch.randn(3, 3, 4, 5, generator=generator)
    valid = torch.rand(3, 1, 4, 5, generator=generator) < 0.6
    return prediction, coordinates, valid


def test_loss_equals_a_loop_over_cells(cells):
    """At batch > 1, where a broadcast of (B, 1, h, w) with (B, h, w) would go unnoticed."""
    prediction, coordinates, valid = cells
    total, count = 0.0, 0
    for b in range(3):
        for i in range(4):
            for j in range(5):
                if valid[b, 0, i, j]:
                    u = math.exp(prediction.log_uncertainty[b, 0, i, j].item())
                    squared = sum(
                        (prediction.coordinates[b, c, i, j].item() - coordinates[b, c, i, j].item()) ** 2
                        for c in range(3)
                    )
                    total += 3 * math.log(u) + squared / (2 * u**2)
                    count += 1
    assert scene_coordinate_loss(prediction, coordinates, valid).item() == pytest.approx(
        total / count, rel=1e-5
    )


def test_invalid_cells_have_no_gradient(cells):
    prediction, coordinates, valid = cells
    coordinates = torch.where(valid, coordinates, 1e6)
    scene_coordinate_loss(prediction, coordinates, valid).backward()
    assert (prediction.coordinates.grad[~valid.expand(-1, 3, -1, -1)] == 0).all()
    assert (prediction.log_uncertainty.grad[~valid] == 0).all()
    assert (prediction.log_uncertainty.grad[valid] != 0).all()


def test_no_valid_cell_is_no_loss(cells):
    prediction, coordinates, valid = cells
    assert scene_coordinate_loss(prediction, coordinates, torch.zeros_like(valid)).item() == 0


def test_the_best_uncertainty_is_the_error():
    """Eq. 4 is the likelihood of a 3D normal distribution: least where u^2 = error^2 / 3."""
    error = 0.3
    log_u = torch.linspace(-4, 1, 2001)[:, None, None, None]
    coordinates = torch.zeros(2001, 3, 1, 1)
    coordinates[:, 0] = error
    losses = torch.stack(
        [
            scene_coordinate_loss(
                Prediction(coordinates[i : i + 1], log_u[i : i + 1]),
                torch.zeros(1, 3, 1, 1),
                torch.ones(1, 1, 1, 1, dtype=torch.bool),
            )
            for i in range(2001)
        ]
    )
    assert math.exp(log_u[losses.argmin()]) == pytest.approx(error / math.sqrt(3), rel=1e-2)


def test_penalty_is_the_mean_absolute_score():
    scores = [torch.tensor(0.5), torch.tensor(-1.5), torch.tensor(1.0)]
    assert sharing_penalty(scores).item() == pytest.approx(1.0)
