"""LocalPoseNet (paper Sec. 2.1): the motion between two images."""

import torch
from torch import Tensor, nn

from ofvl_core.collaborative.guidance import guided
from ofvl_core.collaborative.resnet import ResNetEncoder
from ofvl_core.collaborative.rigid import rigid

OUTPUT_SCALE = 0.2
"""What the network's numbers are multiplied by: warped images must overlap to be compared. With SfMLearner's
0.01 motions grew too slowly for minutes of training from scratch."""


class LocalPoseNet(nn.Module):
    """Two images to the transform between their cameras, at first close to none."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int):
        super().__init__()
        self.encoder = ResNetEncoder(blocks, width, images=2)
        hidden = 4 * width
        self.decoder = nn.Sequential(
            nn.Conv2d(self.encoder.channels[-1], hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.motion = nn.Conv2d(hidden, 6, 1)

    def forward(self, earlier: Tensor, later: Tensor, attention: Tensor | None = None) -> Tensor:
        """later_from_earlier (B, 4, 4) float32, in the unit of depth, of images (B, 3, H, W), RGB in -1..1.

        `attention` (B, 1, H / 32, W / 32) guides the deepest feature (Eq. 9).
        """
        features = self.encoder(torch.cat([earlier, later], dim=1))[-1]
        if attention is not None:
            features = guided(features, attention)
        features = self.decoder(features)
        with torch.autocast(features.device.type, enabled=False):  # a pose needs more digits than 8 bits
            motion = OUTPUT_SCALE * self.motion(features.float()).mean(dim=(2, 3))
            return rigid(motion[:, :3], motion[:, 3:])
