"""GlobalPoseNet (paper Sec. 2.2): where in a known scene an image was taken."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ofvl_core.collaborative.guidance import guided
from ofvl_core.collaborative.resnet import ResNetEncoder
from ofvl_core.network.sharing import SceneSpecific, scene_key


class GlobalPose(NamedTuple):
    """world_from_camera of B images: the camera's position (B, 3) in metres, and the logarithm (B, 3) of the
    unit quaternion of its orientation (Eq. 8: half the angle times the axis)."""

    position: Tensor
    log_quaternion: Tensor


class GlobalPoseNet(nn.Module):
    """One encoder, and of every scene an MLP (Eq. 6)."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int, scenes: Iterable[str]):
        super().__init__()
        self.encoder = ResNetEncoder(blocks, width)
        self.heads = SceneSpecific(partial(PoseHead, self.encoder.channels[-1]))
        for scene in scenes:
            self.heads.add_scene(scene)

    def set_scene_frame(self, scene: str, centre: Tensor, extent: Tensor) -> None:
        """Set the point (3,) and the length from which the scene's positions are regressed, in metres."""
        head = self.heads.modules_by_scene[scene_key(scene)]
        assert isinstance(head, PoseHead)
        head.centre.copy_(centre)
        head.extent.copy_(extent)

    def forward(self, images: Tensor, scene: str, attention: Tensor | None = None) -> GlobalPose:
        """Poses in one scene of images (B, 3, H, W), RGB in -1..1.

        `attention` (B, 1, H / 32, W / 32) guides the deepest feature (Eq. 9).
        """
        features = self.encoder(images)[-1]
        if attention is not None:
            features = guided(features, attention)
        return self.heads(features.mean(dim=(2, 3)), scene)


class PoseHead(nn.Module):
    """Features (B, channels) to a pose in one scene.

    Positions are regressed from `centre`, the mean of the scene's training positions, in units of `extent`,
    their deviation: a street starts as well conditioned as a table.
    """

    centre: Tensor
    extent: Tensor

    def __init__(self, channels: int):
        super().__init__()
        hidden = 4 * channels
        self.hidden = nn.Linear(channels, hidden)
        self.position = nn.Linear(hidden, 3)
        self.log_quaternion = nn.Linear(hidden, 3)
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("extent", torch.ones(()))

    def forward(self, features: Tensor) -> GlobalPose:
        with torch.autocast(features.device.type, enabled=False):  # 8 bits of 100 m are 40 cm
            hidden = torch.relu(self.hidden(features.float()))
            return GlobalPose(self.centre + self.extent * self.position(hidden), self.log_quaternion(hidden))
