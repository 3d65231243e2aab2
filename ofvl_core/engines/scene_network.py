"""One scene's network by itself, for inference: batch normalisation folded into the convolutions before it.

In evaluation a normalisation is an affine map of each channel, and so is what follows from scaling a
convolution's weights and giving it a bias: the same function up to rounding.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ofvl_core.network import OFVLMS
from ofvl_core.network.backbone import ConvNorm
from ofvl_core.network.sharing import (
    LayerAdaptiveBatchNorm2d,
    LayerAdaptiveConv2d,
    SceneSpecific,
    Shared,
    scene_key,
)
from ofvl_core.resize import normalise


class FoldedConv2d(nn.Module):
    """A convolution with the batch normalisation that followed it, not to be trained."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        norm: nn.BatchNorm2d,
        stride: int | tuple[int, ...],
        padding: int | tuple[int, ...],
        dtype: torch.dtype,
    ):
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        folded = fuse_conv_bn_weights(
            weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        for name, tensor in zip(("weight", "bias"), folded, strict=True):
            self.register_buffer(name, tensor.detach().to(dtype))
        self.stride, self.padding = stride, padding

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight, self.bias, self.stride, self.padding)


class SceneNetwork(nn.Module):
    """A model's network for one scene: images (K, H, W, 3), RGB of 0..255, to what their cells see.

    That is scene coordinates (K, 3, h, w) and their uncertainty (K, 1, h, w), metres. It has tensors of its
    own for the folded convolutions, of type `dtype`, and the model's for the rest. The model must be in
    evaluation mode, and does not change.
    """

    def __init__(self, model: OFVLMS, scene: str, dtype: torch.dtype = torch.float32):
        super().__init__()
        assert not model.training
        self._scene = scene
        self.network = _folded(model, scene, dtype)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        prediction = self.network(normalise(image.permute(0, 3, 1, 2)), self._scene)
        return prediction.coordinates, prediction.log_uncertainty.exp()


def _folded(module: nn.Module, scene: str, dtype: torch.dtype) -> nn.Module:
    """The module with the scene's own parts in place of those of all, as its `forward` calls them."""
    if isinstance(module, ConvNorm):
        return Shared(_folded_conv(module, scene, dtype))
    if isinstance(module, SceneSpecific):
        return Shared(_folded(module.modules_by_scene[scene_key(scene)], scene, dtype))
    if isinstance(module, nn.Sequential):
        parts: list[nn.Module] = []
        for part in module:
            if isinstance(part, nn.BatchNorm2d):
                parts.append(_folded_pair(parts.pop(), part, dtype))
            else:
                parts.append(_folded(part, scene, dtype))
        return nn.Sequential(*parts)
    clone = copy.copy(module)
    clone._modules = {name: child and _folded(child, scene, dtype) for name, child in module._modules.items()}
    return clone


def _folded_conv(layer: ConvNorm, scene: str, dtype: torch.dtype) -> FoldedConv2d:
    norm = _norm_in_force(layer.norm, scene)
    conv = layer.conv
    if isinstance(conv, LayerAdaptiveConv2d):
        return FoldedConv2d(conv.weight(scene), norm, conv.stride, conv.padding, dtype)
    assert isinstance(conv, Shared)
    return _folded_pair(conv.module, norm, dtype)


def _folded_pair(conv: nn.Module, norm: nn.BatchNorm2d, dtype: torch.dtype) -> FoldedConv2d:
    assert isinstance(conv, nn.Conv2d) and not isinstance(conv.padding, str)
    return FoldedConv2d(conv.weight, norm, conv.stride, conv.padding, dtype)


def _norm_in_force(norm: nn.Module, scene: str) -> nn.BatchNorm2d:
    """That of a scene, of the three kinds that a `ConvNorm` may have."""
    chosen: nn.Module | None = norm
    if isinstance(norm, Shared):
        chosen = norm.module
    elif isinstance(norm, SceneSpecific):
        chosen = norm.modules_by_scene[scene_key(scene)]
    elif isinstance(norm, LayerAdaptiveBatchNorm2d):
        chosen = norm.shared if norm.is_shared else norm.specific[norm.specific_key(scene)]
    assert isinstance(chosen, nn.BatchNorm2d)
    return chosen
