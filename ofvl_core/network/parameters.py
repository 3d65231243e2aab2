"""How many parameters a model has, counted as the paper counts them: weights and biases in use.

A weight that the sharing policy did not select, normalisation statistics and scores are not parameters in
this sense.
"""

from typing import NamedTuple

from torch import nn

from ofvl_core.network.ofvl_ms import OFVLMS
from ofvl_core.network.sharing import scene_key


class ParameterCount(NamedTuple):
    """Parts of one scene, and the model of N scenes.

    `total` is `single_scene` + (N - 1) x `per_scene`, less `specific_convolutions` for every scene that uses
    another's. It is all weights and biases of a compact model; with `buffers` (normalisation statistics and,
    four numbers a scene, the frame its coordinates are regressed in) and `scores` it is all numbers in that
    model's state_dict.
    """

    backbone_convolutions: int
    normalisation: int
    attention: int
    head: int
    specific_convolutions: int
    single_scene: int
    per_scene: int
    total: int
    buffers: int
    scores: int


def count_parameters(model: OFVLMS) -> ParameterCount:
    """Count a model that has at least one scene."""
    owner = scene_key(next(scene for scene in model.scenes if scene not in model.owners))
    others = {scene_key(scene) for scene in model.scenes} - {owner}
    scores = {id(score) for score in model.scores()}
    parts = dict.fromkeys(("conv", "norm", "attention", "head"), 0)
    specific = dict(parts)
    total = buffers = 0
    for name, tensor in model.used_tensors().items():
        if id(tensor) in scores:
            continue
        if not isinstance(tensor, nn.Parameter):
            buffers += tensor.numel()
            continue
        total += tensor.numel()
        words = name.split(".")
        if others.isdisjoint(words):
            part = next(part for part in ("head", "attention", "norm", "conv") if part in words)
            parts[part] += tensor.numel()
            if owner in words:
                specific[part] += tensor.numel()
    return ParameterCount(
        backbone_convolutions=parts["conv"],
        normalisation=parts["norm"],
        attention=parts["attention"],
        head=parts["head"],
        specific_convolutions=specific["conv"],
        single_scene=sum(parts.values()),
        per_scene=sum(specific.values()),
        total=total,
        buffers=buffers,
        scores=len(scores),
    )
