"""The backbone: an SE-ResNet of scored convolutions, with normalisation and attention per scene."""

from functools import partial

from torch import Tensor, nn

from ofvl_core.network.attention import SqueezeExcitation
from ofvl_core.network.sharing import LayerAdaptiveConv2d, SceneSpecific

STEM_KERNEL = 7


class ConvNorm(nn.Module):
    """A scored convolution and its scene-specific batch normalisation (affine and statistics)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, zero: bool = False
    ):
        super().__init__()
        self.conv = LayerAdaptiveConv2d(in_channels, out_channels, kernel_size, stride)
        self.norm = SceneSpecific(partial(_batch_norm, out_channels, zero))

    def forward(self, features: Tensor, scene: str) -> Tensor:
        return self.norm(self.conv(features, scene), scene)


def _batch_norm(channels: int, zero: bool) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    if zero:
        nn.init.zeros_(norm.weight)
    return norm


class ResidualBlock(nn.Module):
    """Convolutions, attention, addition. `kernels` (3, 3) is ResNet's basic block,
    (1, 3, 1) its bottleneck, here with expansion 1 as in the authors' code.

    Attention acts after the last normalisation and before the addition. That normalisation starts at
    zero, so every block starts as its shortcut.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, kernels: tuple[int, ...], project: bool):
        super().__init__()
        layers = []
        strided = kernels.index(3)
        for position, kernel in enumerate(kernels):
            layers.append(
                ConvNorm(
                    in_channels if position == 0 else channels,
                    channels,
                    kernel,
                    stride if position == strided else 1,
                    zero=position == len(kernels) - 1,
                )
            )
        self.layers = nn.ModuleList(layers)
        self.attention = SceneSpecific(partial(SqueezeExcitation, channels))
        self.shortcut = ConvNorm(in_channels, channels, 1, stride) if project else None
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor, scene: str) -> Tensor:
        shortcut = features if self.shortcut is None else self.shortcut(features, scene)
        for layer in self.layers[:-1]:
            features = self.activation(layer(features, scene))
        features = self.attention(self.layers[-1](features, scene), scene)
        return self.activation(features + shortcut)


class Backbone(nn.Module):
    """Stem with stride 2, then stages of residual blocks. The first block of every stage projects."""

    def __init__(
        self,
        stem_width: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        strides: tuple[int, ...],
        kernels: tuple[int, ...],
    ):
        super().__init__()
        self.stem = ConvNorm(3, stem_width, STEM_KERNEL, stride=2)
        self.activation = nn.ReLU(inplace=True)
        blocks, in_channels = [], stem_width
        for width, depth, stride in zip(widths, depths, strides, strict=True):
            for position in range(depth):
                first = position == 0
                blocks.append(
                    ResidualBlock(in_channels, width, stride if first else 1, kernels, project=first)
                )
                in_channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor, scene: str) -> Tensor:
        features = self.activation(self.stem(images, scene))
        for block in self.blocks:
            features = block(features, scene)
        return features
