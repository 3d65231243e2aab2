"""Task-specific attention (paper Sec. 3.2): squeeze and excitation."""

from torch import Tensor, nn

REDUCTION = 16
WIDTH_MULTIPLE = 8


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole image shows; one instance a scene and block.

    The squeeze width is channels / 16 rounded to a multiple of 8, at least 8.
    """

    def __init__(self, channels: int):
        super().__init__()
        rounded = int(channels / REDUCTION + WIDTH_MULTIPLE / 2) // WIDTH_MULTIPLE * WIDTH_MULTIPLE
        squeezed = max(WIDTH_MULTIPLE, rounded)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weigh(features)
