"""Eq. 5: depth changes where the image does."""

import torch.nn.functional as F
from torch import Tensor


def smoothness_loss(inverse_depth: Tensor, image: Tensor) -> Tensor:
    """Eq. 5, mean over pixels, of inverse depths (B, 1, h, w) divided by their image's mean.

    `image` (B, C, H, W) of 0..1 is 2^s times as large and is shrunk to h x w. The slope of the inverse depth
    is per pixel of the image, so that one surface costs the same at every scale.
    """
    stride = image.shape[-1] // inverse_depth.shape[-1]
    shrunk = F.avg_pool2d(image, stride) if stride > 1 else image
    normalised = inverse_depth / inverse_depth.mean(dim=(2, 3), keepdim=True)
    across = _difference(normalised, 3) * (-_difference(shrunk, 3)).exp()
    down = _difference(normalised, 2) * (-_difference(shrunk, 2)).exp()
    return (across.mean() + down.mean()) / stride


def _difference(image: Tensor, dim: int) -> Tensor:
    """Mean over channels of the absolute difference of neighbours along `dim`."""
    return image.diff(dim=dim).abs().mean(dim=1, keepdim=True)
