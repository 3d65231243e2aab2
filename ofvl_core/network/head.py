"""The regression layer (paper Sec. 3.2): scene coordinates and their uncertainty, one head a scene."""

from functools import partial

import torch
from torch import Tensor, nn


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class SceneCoordinateHead(nn.Module):
    """Features to (B, 4, h, w): scene coordinates in metres and the logarithm of their uncertainty.

    The network regresses offsets from `centre`, the mean of the scene's training coordinates, in units of
    `extent`, their standard deviation: a large hall starts as well conditioned as a small room. The
    uncertainty is predicted as a logarithm: always positive, and not capped at one metre as a sigmoid
    would. With a `kernel_size` of 1 a cell's answer is a function of its features alone.
    """

    centre: Tensor
    extent: Tensor

    def __init__(self, in_channels: int, widths: tuple[int, ...], branch_width: int, kernel_size: int):
        super().__init__()
        channels = (in_channels, *widths)
        conv = partial(_conv, kernel_size=kernel_size)
        self.trunk = nn.Sequential(*map(conv, channels, channels[1:]))
        self.coordinates = nn.Sequential(conv(channels[-1], branch_width), nn.Conv2d(branch_width, 3, 1))
        self.log_uncertainty = nn.Sequential(conv(channels[-1], branch_width), nn.Conv2d(branch_width, 1, 1))
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("extent", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        features = self.trunk(features)
        outputs = []
        for branch, last in (self.coordinates, self.log_uncertainty):
            features_of_branch = branch(features)
            # metres need more digits than half precision has: 8 bits of 4 m are 1.6 cm
            with torch.autocast(features.device.type, enabled=False):
                outputs.append(last(features_of_branch.float()))
        offsets, log_uncertainty = outputs
        return torch.cat([offsets * self.extent + self.centre[:, None, None], log_uncertainty], dim=1)
