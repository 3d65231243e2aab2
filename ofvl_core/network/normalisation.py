"""Batch normalisation that can be frozen whole."""

from torch import nn


class FreezableBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose statistics rest with its parameters.

    While `weight` asks for no gradient, `train()` leaves it in evaluation mode: a scene that trains beside
    frozen ones must not move the statistics that they rely on. With `zero` its scale starts at zero.
    """

    def __init__(self, channels: int, zero: bool = False):
        super().__init__(channels)
        if zero:
            nn.init.zeros_(self.weight)

    def train(self, mode: bool = True) -> "FreezableBatchNorm2d":
        return super().train(mode and self.weight.requires_grad)
