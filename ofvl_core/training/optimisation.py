"""AdamW, its schedule, and its state as plain tensors."""

import math

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ofvl_core.errors import CheckpointError
from ofvl_core.training.config import Optimisation, TrainConfig

NOT_FINITE = "losses or gradients have become infinite; train again with a lower learning rate"

REPROJECTION_CLAMP = (16.0, 1.0)
"""Pixels of the network's input, at first and in the end."""


def make_optimizer(model: nn.Module, config: Optimisation) -> AdamW:
    """AdamW that decays convolution weights only: not biases, normalisation or scores."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(config: Optimisation, progress: float) -> float:
    """Linear warm-up, then a cosine to zero; `progress` runs from 0 to 1 over the training."""
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-2)
    falling = (progress - config.warmup) / (1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(falling, 1.0)))


def distance_warmup(config: TrainConfig, progress: float) -> float:
    """Share of the plain distance in the loss: from 1 linearly to 0 over `config.distance_warmup`."""
    return max(0.0, 1 - progress / config.distance_warmup) if config.distance_warmup else 0.0


def reprojection_clamp(config: TrainConfig, progress: float) -> float | None:
    """Pixels at which errors of reprojection are clamped, on a quarter circle; None before they count."""
    if progress < config.reprojection or config.reprojection == 1:
        return None
    passed = (progress - config.reprojection) / (1 - config.reprojection)
    widest, narrowest = REPROJECTION_CLAMP
    return narrowest + (widest - narrowest) * math.sqrt(1 - min(passed, 1.0) ** 2)


def optimizer_tensors(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """The optimiser's state by parameter name; parameters never selected have none."""
    return {
        f"{key}.{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: nn.Module, optimizer: AdamW, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`. Raises CheckpointError when the tensors are another model's."""
    parameters = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        if name not in parameters:
            raise CheckpointError(f"optimiser state names '{name}', which the model lacks; train anew")
        parameter = parameters[name]
        # Moments must lie in memory as their parameter does: the fused step relies on it.
        like = torch.empty((), device=parameter.device) if key == "step" else parameter
        optimizer.state[parameter][key] = torch.empty_like(like).copy_(tensor)
