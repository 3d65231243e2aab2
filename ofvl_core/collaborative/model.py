"""The three networks and the guidance between them (paper Fig. 2)."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from ofvl_core.collaborative.architecture import Architecture
from ofvl_core.collaborative.depth_net import DepthNet, DepthPrediction, decoder_channels
from ofvl_core.collaborative.global_pose_net import GlobalPose, GlobalPoseNet
from ofvl_core.collaborative.guidance import AttentionMap, Guidance
from ofvl_core.collaborative.local_pose_net import LocalPoseNet


class Sight(NamedTuple):
    """What DepthNet sees in images, and where it tells the pose networks to look, (B, 1, H / 32, W / 32).

    The maps are None where the architecture has nobody to look at them.
    """

    prediction: DepthPrediction
    local_attention: Tensor | None
    global_attention: Tensor | None


class CollaborativeModel(nn.Module):
    """DepthNet, LocalPoseNet and GlobalPoseNet of several scenes, guided as the architecture says.

    Images are (B, 3, H, W), RGB in -1..1, sides multiples of STRIDE. What the architecture leaves out is
    None.
    """

    def __init__(self, architecture: Architecture, scenes: Iterable[str] = ()):
        super().__init__()
        self.architecture = architecture
        self.scenes = list(scenes)
        width = architecture.width
        self.depth_net = DepthNet(architecture.depth_blocks, width)
        self.local_pose_net = LocalPoseNet(architecture.local_blocks, width)
        self.global_pose_net: GlobalPoseNet | None = None
        self.guidance: Guidance | None = None
        self.local_attention: AttentionMap | None = None
        self.global_attention: AttentionMap | None = None
        if architecture.relocalization:
            self.global_pose_net = GlobalPoseNet(architecture.global_blocks, width, self.scenes)
        if architecture.guidance:
            self.guidance = Guidance(self.depth_net.encoder.channels[-1], decoder_channels(width)[1])
            self.local_attention = AttentionMap()
            if architecture.relocalization:
                self.global_attention = AttentionMap()

    def see(self, images: Tensor) -> Sight:
        """Depth of images, and the guidance that follows from it (Eq. 9)."""
        prediction = self.depth_net(images)
        if self.guidance is None:
            return Sight(prediction, None, None)
        features = self.guidance(prediction.encoded, prediction.decoded)
        local, world = (
            None if attention is None else attention(features)
            for attention in (self.local_attention, self.global_attention)
        )
        return Sight(prediction, local, world)

    def motion(self, earlier: Tensor, later: Tensor, attention: Tensor | None) -> Tensor:
        """later_from_earlier (B, 4, 4), in the unit of depth; `attention` is the target image's local one."""
        return self.local_pose_net(earlier, later, attention)

    def relocalize(self, images: Tensor, scene: str, attention: Tensor | None) -> GlobalPose:
        """Poses of images in a scene; `attention` is the images' own global one.

        The architecture must have relocalization.
        """
        assert self.global_pose_net is not None
        return self.global_pose_net(images, scene, attention)
