"""DepthNet (paper Sec. 2.1): depth from one image, as monodepth2 has it (Godard et al., 2019)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofvl_core.collaborative.resnet import ResNetEncoder

SCALES = 4
"""Resolutions at which depth is predicted, each half the finer one."""


class DepthPrediction(NamedTuple):
    """What DepthNet makes of images (B, 3, H, W).

    `disparities` are SCALES maps (B, 1, H / 2^s, W / 2^s) in 0..1, finest first, which `depth_from` turns to
    depth. `encoded` is F_De of Eq. 9, the encoder's deepest feature, at stride 32; `decoded` is F_Dd2, the
    decoder's second-last, at stride 2.
    """

    disparities: list[Tensor]
    encoded: Tensor
    decoded: Tensor


def depth_from(disparity: Tensor, nearest: float = 0.1, farthest: float = 100.0) -> Tensor:
    """Depth between `nearest` and `farthest`, in the network's unit, from disparity in 0..1 (monodepth2).

    The inverse of depth is linear in the disparity.
    """
    return 1 / (1 / farthest + (1 / nearest - 1 / farthest) * disparity)


def decoder_channels(width: int) -> tuple[int, ...]:
    """Channels of a decoder's five levels, finest first, for encoders of that `width`."""
    return tuple(width // 4 * 2**level for level in range(5))


class DepthNet(nn.Module):
    """Images (B, 3, H, W), RGB in -1..1, sides multiples of STRIDE, to a DepthPrediction."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int):
        super().__init__()
        self.encoder = ResNetEncoder(blocks, width)
        channels = decoder_channels(width)
        skipped = (0, *self.encoder.channels[:-1])
        below = (*channels[1:], self.encoder.channels[-1])
        self.levels = nn.ModuleList(map(DecoderLevel, below, skipped, channels))
        self.disparities = nn.ModuleList(_conv(channels[scale], 1) for scale in range(SCALES))

    def forward(self, images: Tensor) -> DepthPrediction:
        encoded = self.encoder(images)
        features: list[Tensor] = [encoded[-1]]  # finest first
        for level, skip in zip(reversed(self.levels), (*reversed(encoded[:-1]), None), strict=True):
            features.insert(0, level(features[0], skip))
        with torch.autocast(images.device.type, enabled=False):  # 8 bits would make steps of a slope
            disparities = [
                torch.sigmoid(head(feature.float()))
                for head, feature in zip(self.disparities, features, strict=False)
            ]
        return DepthPrediction(disparities, encoded[-1], features[1])


class DecoderLevel(nn.Module):
    """One level of the decoder: from the feature of the coarser level and the encoder's at twice its size."""

    def __init__(self, in_channels: int, skipped: int, channels: int):
        super().__init__()
        self.narrow = _conv(in_channels, channels)
        self.join = _conv(channels + skipped, channels)

    def forward(self, coarse: Tensor, skip: Tensor | None) -> Tensor:
        features = F.interpolate(F.elu(self.narrow(coarse)), scale_factor=2.0, mode="nearest")
        if skip is not None:
            features = torch.cat([features, skip], dim=1)
        return F.elu(self.join(features))


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    # monodepth2 reflects at the border; that makes a CPU's pass a third slower, and encoders pad by zeros too
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
