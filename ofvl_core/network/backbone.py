"""The backbone: an SE-ResNet whose scenes share what the sharing strategy says; attention per scene."""

from functools import partial

from torch import Tensor, nn

from ofvl_core.network.architecture import Architecture
from ofvl_core.network.attention import SqueezeExcitation
from ofvl_core.network.normalisation import FreezableBatchNorm2d
from ofvl_core.network.sharing import (
    LayerAdaptiveBatchNorm2d,
    LayerAdaptiveConv2d,
    SceneSpecific,
    Shared,
    Sharing,
    init_convolution,
)

STEM_KERNEL = 7


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation; `zero` starts the normalisation at zero."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        sharing: Sharing,
        zero: bool = False,
    ):
        super().__init__()
        self.conv: nn.Module
        self.norm: nn.Module
        if sharing == "all_shared":
            convolution = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
            )
            init_convolution(convolution.weight)
            self.conv = Shared(convolution)
            self.norm = Shared(FreezableBatchNorm2d(out_channels, zero))
            return
        self.conv = LayerAdaptiveConv2d(in_channels, out_channels, kernel_size, stride)
        if sharing == "conv_norm_scored":
            self.norm = LayerAdaptiveBatchNorm2d(out_channels, zero)
        else:
            self.norm = SceneSpecific(partial(FreezableBatchNorm2d, out_channels, zero))

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return self.norm(self.conv(features, scene), scene)


class ResidualBlock(nn.Module):
    """Convolutions, attention, addition. The architecture's `kernels` (3, 3) is ResNet's basic block,
    (1, 3, 1) its bottleneck, here with expansion 1 as in the authors' code.

    Attention acts after the last normalisation and before the addition. That normalisation starts at
    zero, so every block starts as its shortcut.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, architecture: Architecture, project: bool
    ):
        super().__init__()
        kernels, sharing = architecture.kernels, architecture.sharing
        layers = []
        strided = kernels.index(3)
        for position, kernel in enumerate(kernels):
            layers.append(
                ConvNorm(
                    in_channels if position == 0 else channels,
                    channels,
                    kernel,
                    stride if position == strided else 1,
                    sharing,
                    zero=position == len(kernels) - 1,
                )
            )
        self.layers = nn.ModuleList(layers)
        self.attention = (
            SceneSpecific(partial(SqueezeExcitation, channels)) if architecture.attention else None
        )
        self.shortcut = ConvNorm(in_channels, channels, 1, stride, sharing) if project else None
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor, scene: str) -> Tensor:
        shortcut = features if self.shortcut is None else self.shortcut(features, scene)
        for layer in self.layers[:-1]:
            features = self.activation(layer(features, scene))
        features = self.layers[-1](features, scene)
        if self.attention is not None:
            features = self.attention(features, scene)
        return self.activation(features + shortcut)


class Backbone(nn.Module):
    """Stem with stride 2, then stages of residual blocks. The first block of every stage projects."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        in_channels = architecture.stem_width
        self.stem = ConvNorm(3, in_channels, STEM_KERNEL, stride=2, sharing=architecture.sharing)
        self.activation = nn.ReLU(inplace=True)
        blocks = []
        stages = zip(architecture.widths, architecture.depths, architecture.strides, strict=True)
        for width, depth, stride in stages:
            for position in range(depth):
                first = position == 0
                blocks.append(
                    ResidualBlock(in_channels, width, stride if first else 1, architecture, project=first)
                )
                in_channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor, scene: str) -> Tensor:
        features = self.activation(self.stem(images, scene))
        for block in self.blocks:
            features = block(features, scene)
        return features
