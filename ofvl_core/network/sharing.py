"""Layer-adaptive sharing policy (paper Sec. 3.2, Eq. 1-2) and the container of scene-specific modules."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

THRESHOLD = 0.5
"""lambda of Eq. 1: a layer whose score is below it is shared by all scenes."""


def scene_key(scene: str) -> str:
    """Key of a scene in a ModuleDict or ParameterDict, where names such as "type" would collide."""
    return f"scene_{scene}"


class SceneSpecific(nn.Module):
    """One module of its own for every scene: normalisation, attention, head."""

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self._make = make
        self.modules_by_scene = nn.ModuleDict()

    def add_scene(self, scene: str) -> None:
        self.modules_by_scene[scene_key(scene)] = self._make()

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return self.modules_by_scene[scene_key(scene)](features)


class LayerAdaptiveConv2d(nn.Module):
    """A convolution whose weight is shared by all scenes or specific to each, as its score says.

    `score` is one learnable scalar for all scenes; the layer is shared iff score < THRESHOLD (Eq. 1).
    `is_shared` caches that decision: `update_gates` reads all scores of a model in one transfer, because
    asking the device layer by layer would stall it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.padding = kernel_size // 2
        self.shared = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.specific = nn.ParameterDict()
        self.score = nn.Parameter(torch.rand(()))
        self.is_shared = bool(self.score < THRESHOLD)
        nn.init.kaiming_normal_(self.shared, mode="fan_out", nonlinearity="relu")

    def add_scene(self, scene: str) -> None:
        """Give `scene` a weight of its own, which starts as a clone of the shared one."""
        self.specific[scene_key(scene)] = nn.Parameter(self.shared.detach().clone())

    def weight(self, scene: str) -> Tensor:
        """The weight in force for `scene` (w bar of Eq. 2), differentiable to the score as well."""
        return _SelectWeight.apply(self.shared, self.specific[scene_key(scene)], self.score, self.is_shared)

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return F.conv2d(features, self.weight(scene), stride=self.stride, padding=self.padding)


class _SelectWeight(torch.autograd.Function):
    """w bar = Theta(s) w + (1 - Theta(s)) w~ (Eq. 2), with a straight-through gradient for s.

    The indicator Theta falls from 1 to 0 as the score rises, so its surrogate slope is -1 and
    dL/ds = -<dL/dw bar, w - w~>. The weight that was not selected gets no gradient at all (None, not
    zero), so an optimiser leaves it alone: no momentum, no decay ("kept offline").
    """

    @staticmethod
    def forward(ctx, shared: Tensor, specific: Tensor, score: Tensor, is_shared: bool) -> Tensor:
        ctx.save_for_backward(shared, specific)
        ctx.is_shared = is_shared
        selected = shared if is_shared else specific
        return selected.view_as(selected)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        shared, specific = ctx.saved_tensors
        score_gradient = -torch.sum(gradient * (shared - specific))
        if ctx.is_shared:
            return gradient, None, score_gradient, None
        return None, gradient, score_gradient, None


def update_gates(layers: Iterable[LayerAdaptiveConv2d]) -> None:
    """Decide from the scores which layers are shared (Eq. 1)."""
    layers = list(layers)
    shared = torch.stack([layer.score.detach() for layer in layers]) < THRESHOLD
    for layer, is_shared in zip(layers, shared.tolist(), strict=True):
        layer.is_shared = is_shared
