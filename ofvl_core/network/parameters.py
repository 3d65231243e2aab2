"""How many parameters a model has, counted as the paper counts them: weights and biases in use.

A weight that the sharing policy did not select, normalisation statistics and scores are not counted.
"""

from typing import NamedTuple

from torch import nn

from ofvl_core.network.attention import SqueezeExcitation
from ofvl_core.network.head import SceneCoordinateHead
from ofvl_core.network.ofvl_ms import OFVLMS
from ofvl_core.network.sharing import scene_key


class ParameterCount(NamedTuple):
    """`total` of a model of N scenes is `single_scene` + (N - 1) x `per_scene`."""

    backbone_convolutions: int
    normalisation: int
    attention: int
    head: int
    specific_convolutions: int
    single_scene: int
    per_scene: int
    total: int


def count_parameters(model: OFVLMS) -> ParameterCount:
    """Count a model that has at least one scene."""
    key = scene_key(model.scenes[0])
    layers = model.scored_layers.values()
    convolutions = sum(layer.shared.numel() for layer in layers)
    specific = sum(layer.shared.numel() for layer in layers if not layer.is_shared)
    own = [module for name, module in model.named_modules() if name.endswith(f"modules_by_scene.{key}")]
    attention = sum(_size(module) for module in own if isinstance(module, SqueezeExcitation))
    head = sum(_size(module) for module in own if isinstance(module, SceneCoordinateHead))
    normalisation = sum(_size(module) for module in own if isinstance(module, nn.BatchNorm2d))
    per_scene = normalisation + attention + head + specific
    single_scene = convolutions + normalisation + attention + head
    total = single_scene + (len(model.scenes) - 1) * per_scene
    return ParameterCount(
        convolutions, normalisation, attention, head, specific, single_scene, per_scene, total
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
