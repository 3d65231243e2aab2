"""OFVL-MS: the model of many scenes, and its named sizes."""

import re
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ofvl_core.errors import ConfigError
from ofvl_core.network.backbone import Backbone
from ofvl_core.network.head import SceneCoordinateHead
from ofvl_core.network.sharing import LayerAdaptiveConv2d, SceneSpecific, scene_key, update_gates

LOG_UNCERTAINTY_RANGE = (-7.0, 3.0)
"""Bounds of log u in Eq. 4, 1 mm to 20 m: outside, one cell could dominate the loss."""

SCENE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Architecture(BaseModel):
    """Shape of the network. The defaults are the paper's; `input_height` is that of the resized image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depths: tuple[int, int, int, int]
    kernels: tuple[int, ...] = (3, 3)
    stem_width: int = 16
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    strides: tuple[int, int, int, int] = (1, 1, 2, 2)
    head_widths: tuple[int, ...] = (512, 256, 128)
    branch_width: int = 64
    input_height: int = 480

    @property
    def stride(self) -> int:
        """Pixels of the network's input a cell."""
        total = 2
        for stride in self.strides:
            total *= stride
        return total


ARCHITECTURES = {
    "ofvl_ms18": Architecture(depths=(2, 2, 2, 2)),
    "ofvl_ms34": Architecture(depths=(3, 4, 6, 3)),
    "ofvl_ms50": Architecture(depths=(3, 4, 6, 3), kernels=(1, 3, 1)),
    "ofvl_ms_lite": Architecture(
        depths=(1, 1, 1, 1),
        widths=(16, 32, 64, 128),
        strides=(1, 2, 2, 1),
        head_widths=(128,),
        input_height=120,
    ),
}
"""The paper's three sizes and one that trains and runs on a CPU."""


class Prediction(NamedTuple):
    """Scene coordinates (B, 3, h, w) in metres and their uncertainty's logarithm (B, 1, h, w)."""

    coordinates: Tensor
    log_uncertainty: Tensor


class OFVLMS(nn.Module):
    """One backbone and a head for every scene.

    Images come as (B, 3, H, W), RGB in -1..1, H and W multiples of the architecture's stride; a batch
    belongs to one scene, because normalisation, attention and head do.
    """

    def __init__(self, architecture: Architecture, scenes: list[str] | tuple[str, ...] = ()):
        super().__init__()
        self.architecture = architecture
        self.scenes: list[str] = []
        self.backbone = Backbone(
            architecture.stem_width,
            architecture.widths,
            architecture.depths,
            architecture.strides,
            architecture.kernels,
        )
        self.head = SceneSpecific(
            lambda: SceneCoordinateHead(
                architecture.widths[-1], architecture.head_widths, architecture.branch_width
            )
        )
        for scene in scenes:
            self.add_scene(scene)

    @property
    def scored_layers(self) -> dict[str, LayerAdaptiveConv2d]:
        """Every layer that the sharing policy decides on, by name, from input to output."""
        return {
            name: module for name, module in self.named_modules() if isinstance(module, LayerAdaptiveConv2d)
        }

    def add_scene(self, scene: str) -> None:
        """Add a scene's own parameters. Raises ConfigError for a name that is taken or not a plain word."""
        if scene in self.scenes:
            raise ConfigError(f"scene '{scene}' is in the model already; give the new scene another name")
        if not SCENE_NAME.fullmatch(scene):
            raise ConfigError(f"scene name '{scene}' must be letters, digits, '_' and '-'; rename its folder")
        for module in list(self.modules()):
            if isinstance(module, SceneSpecific | LayerAdaptiveConv2d):
                module.add_scene(scene)
        self.scenes.append(scene)

    def set_scene_frame(self, scene: str, centre: Tensor, extent: Tensor) -> None:
        """Set the point (3,) and the length from which the scene's coordinates are regressed, in metres."""
        head = self.head.modules_by_scene[scene_key(scene)]
        assert isinstance(head, SceneCoordinateHead)
        head.centre.copy_(centre)
        head.extent.copy_(extent)

    def train(self, mode: bool = True) -> "OFVLMS":
        update_gates(self.scored_layers.values())
        return super().train(mode)

    def forward(self, images: Tensor, scene: str) -> Prediction:
        """Predict one scene's coordinates for a batch of its images."""
        output = self.head(self.backbone(images, scene), scene)
        return Prediction(output[:, :3], output[:, 3:].clamp(*LOG_UNCERTAINTY_RANGE))
