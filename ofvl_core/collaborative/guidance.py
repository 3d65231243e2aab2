"""The Geometric Attention Guidance Model (paper Sec. 2.3, Eq. 9): where depth tells the poses to look."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Guidance(nn.Module):
    """F_D = W_c [F_De; F_Dd2]: what DepthNet knows of each cell of its deepest feature.

    From F_De (B, `encoded_channels`, h, w) and F_Dd2 (B, `decoded_channels`, H, W), averaged within each
    cell, to F_D (B, `encoded_channels`, h, w).
    """

    def __init__(self, encoded_channels: int, decoded_channels: int):
        super().__init__()
        self.combine = nn.Conv2d(encoded_channels + decoded_channels, encoded_channels, 1)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(decoded, (encoded.shape[2], encoded.shape[3]))
        return self.combine(torch.cat([encoded, pooled], dim=1))


class AttentionMap(nn.Module):
    """W [AVP(F_D); MAP(F_D)]: F_D (B, C, h, w) to a map (B, 1, h, w) in 0..1.

    Mean and maximum over the channels, a convolution and a sigmoid, as in CBAM (Woo et al., ECCV 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        pooled = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.weigh(pooled))


def guided(features: Tensor, attention: Tensor) -> Tensor:
    """F' = F A + F: features (B, C, h, w) with a map (B, 1, h, w) as guidance (Eq. 9)."""
    return features * attention + features
