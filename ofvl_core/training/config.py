"""Every training setting, its default and its meaning; a checkpoint carries the whole of it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]


class Augmentation(BaseModel):
    """Ranges of the random warp and brightness; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[Positive, Positive] = (0.7, 1.5)
    rotation_deg: float = 30.0
    shear_deg: float = 10.0
    shift: float = Field(default=0.2, description="of the image's size")
    brightness: float = Field(default=20.0, description="of 255")
    contrast: float = Field(
        default=0.2, ge=0, lt=1, description="the image's contrast changes by up to this factor"
    )


AUGMENTATIONS = {
    "paper": Augmentation(),
    "robot": Augmentation(scale=(0.8, 1.25), rotation_deg=4.0, shear_deg=0.0, shift=0.1),
}
"""By how the camera is carried: in any hand, or level on a wheeled robot, which needs less to be learned."""


class TrainConfig(BaseModel):
    """How a model is trained. `learning_rate` is the peak of a cosine schedule with a linear warm-up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "ofvl_ms_lite"
    iterations: int = Field(2000, gt=0, description="optimiser steps; each sees one batch of every scene")
    max_minutes: Positive | None = Field(None, description="the schedule ends by then, wherever it is")
    batch_size: int = Field(8, gt=0, description="images a scene in a step")
    learning_rate: Positive = 4e-3
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the iterations")
    distance_warmup: float = Field(0.9, ge=0, lt=1, description="share of the iterations; 0 is Eq. 4 alone")
    penalty_weight: float = Field(0.25, ge=0, description="beta of Eq. 3")
    sharing_decided: float = Field(
        0.1, gt=0, le=1, description="share of the iterations after which scores rest"
    )
    statistics_rest: float = Field(
        0.1,
        gt=0,
        le=1,
        description="share of the iterations after which normalisation keeps to its running statistics: "
        "a batch holds few views of a scene, and its statistics vary",
    )
    gradient_clip: Positive = Field(1.0, description="largest global norm of a step's gradient")
    seed: int = Field(0, ge=0)
    augmentation: Augmentation = Augmentation()
