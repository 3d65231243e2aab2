"""Every setting of collaborative training, its default and its meaning."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ofvl_core.collaborative.architecture import ARCHITECTURES, STRIDE, Architecture
from ofvl_core.collaborative.consistency import Form
from ofvl_core.collaborative.objective import Weight, Weights
from ofvl_core.collaborative.video import Turns
from ofvl_core.training.config import Optimisation, by_name

DEFAULT_NETWORK = "collab_lite"


class Stage(BaseModel):
    """The second of the two stages of training (paper, Training Details)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(4, gt=0, description="triplets in a step")
    input_pixels: int = Field(
        96 * 128,
        ge=(2 * STRIDE) ** 2,
        description="of an image, in the camera's shape: 128x96 of 4:3, 192x64 of KITTI's",
    )
    weights: Weights = Weights()


class PretrainingWeights(Weights):
    """Those of the first stage, which has no GlobalPoseNet."""

    photometric: Weight = 1.0
    pose: Weight = 0.0
    consistency: Weight = 0.0


class Pretraining(Stage):
    """The first stage: DepthNet and LocalPoseNet learn without GlobalPoseNet."""

    weights: Weights = PretrainingWeights()

    @field_validator("weights", mode="before")
    @classmethod
    def _of_this_stage(cls, weights: Any) -> Any:
        return PretrainingWeights(**weights) if isinstance(weights, dict) else weights


class CollaborativeConfig(Optimisation):
    """How DepthNet, LocalPoseNet and GlobalPoseNet are trained; a step sees triplets of one scene."""

    settings_command = "ofvl collab config"

    iterations: int = Field(3000, gt=0, description="optimiser steps of both stages")
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False)
    step_down: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="instead of a cosine for each stage: the learning rate stays, and after this share of "
        "the second stage it is a tenth",
    )
    network: Annotated[Architecture, by_name(ARCHITECTURES, DEFAULT_NETWORK)] = Field(
        ARCHITECTURES[DEFAULT_NETWORK], description="a size's name, or a mapping of `name` and what differs"
    )
    pretraining_share: float = Field(
        0.4, ge=0, lt=1, description="of the iterations, in which DepthNet and LocalPoseNet learn alone"
    )
    pretraining: Pretraining = Field(Pretraining(), description="the first stage")
    collaboration: Stage = Field(Stage(), description="the second stage")
    consistency: Form = Field(
        "relative", description="Eq. 11: a relative pose, or 'printed', differences of poses by the letter"
    )
    warp_at_full_size: bool = Field(
        False,
        description="Eq. 1 of coarse scales at the image's size, as in monodepth2, three times slower; else "
        "at their own, as in Zhou et al.",
    )
    masked_from: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the iterations after which kappa of Eq. 4 hides what does not seem to move: "
        "while motions are still wrong, it hides what would correct them",
    )
    turns: Turns = Field(Turns(), description="random turns and zooms of the camera, and of its light")

    def stage(self, progress: float) -> Stage:
        """The stage at a `progress` from 0 to 1."""
        return self.pretraining if progress < self.pretraining_share else self.collaboration
