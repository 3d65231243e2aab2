"""Which of a model's scenes a new scene resembles, judged by its images alone."""

import numpy as np
import torch
from torch import Tensor, nn

from ofvl_core.datasets import SceneData
from ofvl_core.network import OFVLMS
from ofvl_core.network.sharing import LayerAdaptiveBatchNorm2d
from ofvl_core.resize import input_camera, normalise, resize

FRAMES_COMPARED = 16
"""Training frames of the new scene that are seen with every old scene's parameters."""


@torch.no_grad()
def divergences(model: OFVLMS, scene: SceneData, input_focal: float) -> dict[str, float]:
    """How unlike each of the model's scenes the images of `scene` look; the nearest first.

    With a scene's parameters, every batch normalisation of the backbone expects features of its running mean
    and variance. Measured is the symmetric Kullback-Leibler divergence between these and the mean and
    variance that the new images give, both taken for Gaussian: over channels and layers, the mean of
    log(1 + nats), because a few channels that were almost constant would outweigh all others.
    """
    images = _images(scene, input_focal, model.architecture.stride).to(next(model.parameters()).device)
    model.eval()
    found = {name: _divergence(model, name, images) for name in model.scenes}
    return dict(sorted(found.items(), key=lambda entry: entry[1]))


def _images(scene: SceneData, input_focal: float, stride: int) -> Tensor:
    """Evenly spaced training images (N, 3, H, W) at the network's input."""
    frames = scene.frames("train")
    camera = input_camera(scene.camera, input_focal, stride)
    chosen = np.unique(np.linspace(0, len(frames) - 1, FRAMES_COMPARED).round().astype(int))
    colors = np.stack([resize(scene.read_color(frames[number]), camera) for number in chosen])
    return normalise(torch.from_numpy(colors).permute(0, 3, 1, 2))


def _divergence(model: OFVLMS, scene: str, images: Tensor) -> float:
    layers: list[Tensor] = []

    def observe(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layers.append(_symmetric_divergence(inputs[0], _norm_in_force(module, scene)).log1p().mean())

    norms = [module for module in model.backbone.modules() if _normalises(module)]
    hooks = [norm.register_forward_pre_hook(observe) for norm in norms]
    try:
        model.backbone(images, scene)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers).mean().item()


def _normalises(module: nn.Module) -> bool:
    """Whether a module is where features are normalised; a compact scored one leaves that to the selected."""
    scored = isinstance(module, LayerAdaptiveBatchNorm2d) and not module.is_compact
    return scored or isinstance(module, nn.BatchNorm2d)


def _norm_in_force(module: nn.Module, scene: str) -> nn.BatchNorm2d:
    if isinstance(module, LayerAdaptiveBatchNorm2d):
        norm = module.shared if module.is_shared else module.specific[module.specific_key(scene)]
    else:
        norm = module
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def _symmetric_divergence(features: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Nats of every channel (C,): KL(p | q) + KL(q | p) of the Gaussians."""
    assert norm.running_mean is not None and norm.running_var is not None
    variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3))
    variance, expected = variance + norm.eps, norm.running_var + norm.eps
    squared = (mean - norm.running_mean).square()
    return ((variance + squared) / expected + (expected + squared) / variance) / 2 - 1
