"""Eq. 2-4: how badly synthesised images resemble the target."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

L1_SHARE = 0.15
"""lambda of Eq. 3, as in monodepth (Godard et al., 2017)."""

C1, C2 = 0.01**2, 0.03**2
"""SSIM's constants for images of 0..1 (Wang et al., 2004)."""


def ssim_dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of images (B, C, H, W) of 0..1 over windows of 3x3, mean of channels: (B, 1, H, W)."""
    a, b = F.pad(a, (1, 1, 1, 1), mode="reflect"), F.pad(b, (1, 1, 1, 1), mode="reflect")
    mean_a, mean_b = _mean(a), _mean(b)
    squares, product = mean_a.square() + mean_b.square(), mean_a * mean_b
    variances = _mean(a.square() + b.square()) - squares
    covariance = _mean(a * b) - product  # of equal images half the variances to the last bit
    ssim = (2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))
    return ((1 - ssim) / 2).clamp(0, 1).mean(dim=1, keepdim=True)


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 3 of images (B, C, H, W) of 0..1: (B, 1, H, W)."""
    difference = (a - b).abs().mean(dim=1, keepdim=True)
    return L1_SHARE * difference + (1 - L1_SHARE) * ssim_dissimilarity(a, b)


def least_dissimilarity(target: Tensor, images: Sequence[Tensor]) -> Tensor:
    """Each pixel's dissimilarity (B, 1, H, W) to whichever of the images resembles the target most there."""
    first, *others = (dissimilarity(target, image) for image in images)
    for other in others:
        first = first.minimum(other)
    return first


def stationary_mask(synthesised: Tensor, unmoved: Tensor) -> Tensor:
    """kappa of Eq. 4, bool: where motion explains the target better than no motion does.

    Both are least dissimilarities to the target, of the synthesised images and of the sources as they are. A
    pixel that resembles a source as it is belongs to a camera at rest or to something moving along with it.
    """
    return synthesised < unmoved


def photometric_loss(
    target: Tensor, unmoved: Tensor, synthesised: Sequence[Tensor], masked: bool = True
) -> Tensor:
    """Eq. 4, mean over pixels.

    `target` and the `synthesised` images, one a source, (B, C, H, W) of 0..1; `unmoved` (B, 1, H, W) is the
    `least_dissimilarity` of the sources themselves. Not `masked`, kappa is 1.
    """
    least = least_dissimilarity(target, synthesised)
    return (least * stationary_mask(least, unmoved)).mean() if masked else least.mean()


def _mean(padded: Tensor) -> Tensor:
    """Mean over windows of 3x3; on a CPU a tenth of the time that average pooling takes."""
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
