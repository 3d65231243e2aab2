"""Convolutions in 8-bit integers: how their inputs are rounded, and a network that rounds so.

Weights are rounded symmetrically, each output channel to 255 steps; inputs to 256 steps of one range for the
layer, from zero where they never are negative (B. Jacob et al., Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference, CVPR 2018). The ranges are all that has to be known beside
the weights, two numbers a layer. Attention and the last layers, which give metres, keep their precision.
"""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from ofvl_core.engines.scene_network import FoldedConv2d, SceneNetwork
from ofvl_core.errors import CheckpointError

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Quantisation(BaseModel):
    """How a scene's network is rounded, and what that does to it.

    `ranges` are the lowest and highest input of every folded convolution, from input to output. `float32` and
    `int8` are the median errors of `frames` held-out frames, metres and degrees, with either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: list[tuple[Finite, Finite]]
    frames: int = Field(ge=0)
    float32: tuple[Finite, Finite]
    int8: tuple[Finite, Finite]


class QuantisedConv2d(nn.Module):
    """A folded convolution whose weights and input, of the range `low` to `high`, are rounded to 8 bits."""

    weight_scales: Tensor
    zeros: Tensor

    def __init__(self, folded: FoldedConv2d, low: float, high: float):
        super().__init__()
        self._folded = folded
        self._lowest, self._highest = (-127, 127) if low < 0 else (0, 255)
        self._scale = max(-low, high, 1e-6) / self._highest
        scales = folded.weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
        self.register_buffer("weight_scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int32))

    def forward(self, features: Tensor) -> Tensor:
        folded = self._folded
        rounded = torch.fake_quantize_per_tensor_affine(features, self._scale, 0, self._lowest, self._highest)
        weight = torch.fake_quantize_per_channel_affine(
            folded.weight, self.weight_scales, self.zeros, 0, -127, 127
        )
        return F.conv2d(rounded, weight, folded.bias, folded.stride, folded.padding)


def quantise(network: SceneNetwork, ranges: list[tuple[float, float]]) -> None:
    """Round a network's convolutions, as measured by `observed_ranges`.

    Raises CheckpointError when there are more or fewer `ranges` than convolutions.
    """
    places = [
        (parent, name)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, FoldedConv2d)
    ]
    if len(ranges) != len(places):
        raise CheckpointError("the checkpoint's int8 ranges are not this network's; run ofvl quantise again")
    for (parent, name), (low, high) in zip(places, ranges, strict=True):
        setattr(parent, name, QuantisedConv2d(getattr(parent, name), low, high))


@torch.inference_mode()
def observed_ranges(network: SceneNetwork, images: Iterable[NDArray[np.uint8]]) -> list[tuple[float, float]]:
    """Lowest and highest input of each folded convolution: the mean of those of `images` (H, W, 3).

    The extremes of all of them would make every step coarse for the sake of one image.
    """
    convolutions = [module for module in network.modules() if isinstance(module, FoldedConv2d)]
    extremes: list[list[tuple[float, float]]] = [[] for _ in convolutions]
    hooks = [
        conv.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(tuple(map(float, inputs[0].aminmax())))
        )
        for conv, seen in zip(convolutions, extremes, strict=True)
    ]
    for image in images:
        network(torch.from_numpy(image)[None])
    for hook in hooks:
        hook.remove()
    return [tuple(np.mean(seen, axis=0).tolist()) for seen in extremes]
