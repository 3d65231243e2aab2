"""Eq. 7: global poses, supervised."""

import torch
from torch import Tensor, nn

from ofvl_core.collaborative import rigid


class PoseLoss(nn.Module):
    """Position and orientation errors, weighed against each other by what is learned of their size.

    `eta` and `phi` start at AtLoc's values (Wang et al., 2019) and are trained with the networks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.eta = nn.Parameter(torch.tensor(0.0))
        self.phi = nn.Parameter(torch.tensor(-3.0))

    def forward(self, position: Tensor, log_quaternion: Tensor, world_from_camera: Tensor) -> Tensor:
        """Eq. 7, mean over poses: positions (N, 3) in metres, logarithms (N, 3), true poses (N, 4, 4)."""
        metres = (position - world_from_camera[:, :3, 3]).abs().sum(dim=1).mean()
        true_log = rigid.log_quaternion(world_from_camera[:, :3, :3])
        turn = (log_quaternion - true_log).abs().sum(dim=1).mean()
        return metres * torch.exp(-self.eta) + self.eta + turn * torch.exp(-self.phi) + self.phi
