"""Layer-adaptive sharing policy (paper Sec. 3.2, Eq. 1-2): layers that are all scenes', each scene's own, or
either as their score says.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofvl_core.network.normalisation import FreezableBatchNorm2d

Sharing = Literal["conv_scored", "conv_norm_scored", "all_shared"]
"""What the backbone's scenes share (paper Table 5). `conv_scored`: a convolution as its score says, no
normalisation (EXP3, the paper's choice). `conv_norm_scored`: convolutions and normalisations as their
scores say (EXP2). `all_shared`: every convolution and normalisation, without scores (EXP1)."""

THRESHOLD = 0.5
"""lambda of Eq. 1: a layer whose score is below it is shared by all scenes."""


def scene_key(scene: str) -> str:
    """Key of a scene in a ModuleDict or ParameterDict, where names such as "type" would collide."""
    return f"scene_{scene}"


class Shared(nn.Module):
    """One module for all scenes, called as the scene-specific ones are."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return self.module(features)


class SceneSpecific(nn.Module):
    """One module of its own for every scene: normalisation, attention, head."""

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self._make = make
        self.modules_by_scene = nn.ModuleDict()

    def add_scene(self, scene: str, like: str | None = None) -> None:
        """Give `scene` a module: a new one, or a copy of that of the scene `like`."""
        module = self._make() if like is None else copy.deepcopy(self.modules_by_scene[scene_key(like)])
        self.modules_by_scene[scene_key(scene)] = module.requires_grad_().train(self.training)

    def remove_scene(self, scene: str) -> None:
        """Drop the module of `scene`."""
        del self.modules_by_scene[scene_key(scene)]

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return self.modules_by_scene[scene_key(scene)](features)


class ScoredLayer(nn.Module):
    """A layer that is shared by all scenes or specific to each, as its score says.

    `score` is one learnable scalar for all scenes; the layer is shared iff score < THRESHOLD (Eq. 1).
    `is_shared` caches that decision: `update_gates` reads all scores of a model in one transfer, because
    asking the device layer by layer would stall it.

    `score_slope` is the slope that the straight-through gradient of the score takes for Eq. 1's indicator.
    The indicator falls from 1 to 0 as the score rises, so -1 is right: descent then lowers the score, towards
    sharing, where the shared weight would lower the loss. +1 is what the authors' published code does; it
    moves every score the wrong way.

    `owners` names, for each scene that has no specific weights of its own here, the scene whose it uses.

    A compact layer holds what its gate selected alone: either `shared` is None or `specific` is empty. Its
    gate is fixed.
    """

    shared: nn.Parameter | nn.Module | None
    specific: nn.ParameterDict | nn.ModuleDict

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.rand(()))
        self.is_shared = True
        self.is_compact = False
        self.score_slope = -1.0
        self.owners: dict[str, str] = {}

    @property
    def size(self) -> int:
        """Number of parameters of one copy, shared or specific."""
        one = next(iter(self.specific.values())) if self.shared is None else self.shared
        return sum(p.numel() for p in ([one] if isinstance(one, nn.Parameter) else one.parameters()))

    def specific_key(self, scene: str) -> str:
        """Key in `specific` of the weights that `scene` uses."""
        return scene_key(self.owners.get(scene, scene))

    def add_scene(self, scene: str, like: str | None = None) -> None:
        """Give `scene` specific weights: a clone of the shared ones or of those of the scene `like`.

        None where an owner lends its own or, in a compact layer, where the shared ones are in use.
        """
        if scene in self.owners or (self.is_compact and self.is_shared):
            return
        source: Any = self.shared if like is None else self.specific[self.specific_key(like)]
        self.specific[scene_key(scene)] = copy.deepcopy(source).requires_grad_()

    def remove_scene(self, scene: str) -> None:
        """Drop the specific weights of `scene`, or hand them to the first scene that uses them too."""
        key = scene_key(scene)
        if key not in self.specific:
            return
        weights = self.specific.pop(key)
        heir = next((borrower for borrower, owner in self.owners.items() if owner == scene), None)
        if heir is not None:
            self.specific[scene_key(heir)] = weights

    def compact(self) -> None:
        """Drop what the gate did not select, for good."""
        self.is_compact = True
        if self.is_shared:
            self.specific.clear()
        else:
            self.shared = None

    def select(self, shared: Tensor, specific: Tensor) -> Tensor:
        """The tensor in force (Eq. 2), differentiable to the score as well."""
        return _Select.apply(shared, specific, self.score, self.is_shared, self.score_slope)


class LayerAdaptiveConv2d(ScoredLayer):
    """A scored convolution without bias: one shared weight and one for each scene."""

    shared: nn.Parameter | None
    specific: nn.ParameterDict

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.padding = kernel_size // 2
        self.shared = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.specific = nn.ParameterDict()
        init_convolution(self.shared)

    def weight(self, scene: str) -> Tensor:
        """The weight in force for `scene` (w bar of Eq. 2)."""
        if self.is_compact:
            return self.shared if self.shared is not None else self.specific[self.specific_key(scene)]
        assert self.shared is not None
        return self.select(self.shared, self.specific[self.specific_key(scene)])

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return F.conv2d(features, self.weight(scene), stride=self.stride, padding=self.padding)


class LayerAdaptiveBatchNorm2d(ScoredLayer):
    """A scored batch normalisation: one shared by all scenes and one for each, affine and statistics.

    The statistics of the one that the gate did not select rest with its parameters.
    """

    shared: FreezableBatchNorm2d | None
    specific: nn.ModuleDict

    def __init__(self, channels: int, zero: bool = False):
        super().__init__()
        self.shared = FreezableBatchNorm2d(channels, zero)
        self.specific = nn.ModuleDict()

    def forward(self, features: Tensor, scene: str) -> Tensor:
        if self.is_compact and self.is_shared:
            assert self.shared is not None
            return self.shared(features)
        specific = self.specific[self.specific_key(scene)]
        if self.shared is None:
            return specific(features)
        assert isinstance(specific, FreezableBatchNorm2d)
        norm = self.shared if self.is_shared else specific
        assert norm.num_batches_tracked is not None
        if norm.training:
            norm.num_batches_tracked.add_(1)
        return F.batch_norm(
            features,
            norm.running_mean,
            norm.running_var,
            self.select(self.shared.weight, specific.weight),
            self.select(self.shared.bias, specific.bias),
            norm.training,
            norm.momentum or 0.0,
            norm.eps,
        )


class _Select(torch.autograd.Function):
    """w bar = Theta(s) w + (1 - Theta(s)) w~ (Eq. 2), with a straight-through gradient for s.

    With a for the slope that stands in for dTheta/ds, dL/ds = a <dL/dw bar, w - w~>. The weight that was
    not selected gets no gradient at all (None, not zero), so an optimiser leaves it alone: no momentum, no
    decay ("kept offline").
    """

    @staticmethod
    def forward(
        ctx, shared: Tensor, specific: Tensor, score: Tensor, is_shared: bool, slope: float
    ) -> Tensor:
        ctx.save_for_backward(shared, specific)
        ctx.is_shared, ctx.slope = is_shared, slope
        selected = shared if is_shared else specific
        return selected.view_as(selected)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        score_gradient = None
        if ctx.needs_input_grad[2]:
            shared, specific = ctx.saved_tensors
            score_gradient = ctx.slope * torch.sum(gradient * (shared - specific))
        if ctx.is_shared:
            return gradient, None, score_gradient, None, None
        return None, gradient, score_gradient, None, None


def init_convolution(weight: Tensor) -> None:
    """Start a convolution's weight as He et al. do for ReLU, by fan-out."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def update_gates(layers: Iterable[ScoredLayer]) -> None:
    """Decide from the scores which layers are shared (Eq. 1). Compact layers keep their state."""
    layers = [layer for layer in layers if not layer.is_compact]
    if not layers:
        return
    shared = torch.stack([layer.score.detach() for layer in layers]) < THRESHOLD
    for layer, is_shared in zip(layers, shared.tolist(), strict=True):
        layer.is_shared = is_shared
