"""Every training setting, its default and its meaning; a checkpoint carries the whole of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ofvl_core.errors import ConfigError
from ofvl_core.keyframes.album import KEPT
from ofvl_core.looks import LOOKS
from ofvl_core.network import ARCHITECTURES, Architecture
from ofvl_core.training.gradients import Method

DEFAULT_NETWORK = "ofvl_ms_lite"
DEFAULT_AUGMENTATION = "handheld"

Precision = Literal["auto", "float32", "bfloat16"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Augmentation(BaseModel):
    """Ranges of the random warp and of the light; the paper's, and contrast besides. The small network learns
    faster where what lies outside the image is always grey."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reach: Literal["random", "full"] = Field(
        "random",
        description="how far a view's scale, rotation, shear and shift go in their ranges: in each view to a "
        "random share of them, or as in the paper to their ends",
    )
    scale: tuple[Positive, Positive] = (0.7, 1.5)
    rotation_deg: float = Field(30.0, ge=0, le=180)
    shear_deg: float = Field(10.0, ge=0, lt=90)
    shift: float = Field(0.2, ge=0, le=1, description="of the image's size")
    brightness: float = Field(20.0, ge=0, le=255, description="of 255")
    contrast: float = Field(0.2, ge=0, lt=1, description="the image's contrast changes by up to this factor")
    blur: float = Field(0.02, ge=0, le=1, description="longest motion blur, of the image's width")
    synthesised: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the views that are seen from where no camera was, by their depth",
    )
    translation: float = Field(
        0.15,
        ge=0,
        le=1,
        description="of the median depth, how far from the camera, but no farther than the camera roamed",
    )
    tilt_deg: float = Field(10.0, ge=0, lt=90, description="and how far turned to the side, up and down")
    fill: Literal["grey", "random"] = Field(
        "grey", description="outside the image: always the same, or as in the paper a random colour an image"
    )


AUGMENTATIONS = {
    "handheld": Augmentation(),
    "paper": Augmentation(reach="full", contrast=0.0, blur=0.0, synthesised=0.0, fill="random"),
    "robot": Augmentation(
        scale=(0.8, 1.25), rotation_deg=4.0, shear_deg=0.0, shift=0.1, blur=0.0, synthesised=0.0
    ),
}
"""By how the camera is carried: in any hand, or level on a wheeled robot, which needs less to be learned; and
the paper's."""


def by_name(known: Mapping[str, BaseModel], default: str) -> BeforeValidator:
    """Accept the name of a known value, or a mapping of changes to the one that its `name` says."""

    def complete(value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        name = value.get("name", default)
        if not isinstance(name, str) or name not in known:
            if len(value) > 1:
                return value  # not a change of a known one but all of another
            raise ValueError(f"'{name}' is unknown; choose one of {', '.join(known)}")
        defaults = known[name].model_dump()
        return defaults | {key: entry for key, entry in value.items() if key in defaults or key != "name"}

    return BeforeValidator(complete)


class Optimisation(BaseModel):
    """How long and how fast a model learns. `learning_rate` is the peak of a cosine with a linear warm-up.

    `settings_command` prints all settings of the class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings_command: ClassVar[str]

    iterations: int = Field(20_000, gt=0, description="optimiser steps")
    max_minutes: Positive | None = Field(None, description="the schedule ends by then, wherever it is")
    learning_rate: Positive = 4e-3
    weight_decay: float = Field(0.05, ge=0, allow_inf_nan=False)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the iterations")
    gradient_clip: Positive | None = Field(1.0, description="largest global norm of a step's gradient")
    precision: Precision = Field(
        "auto", description="of the network while training; auto is bfloat16 where that is faster"
    )
    seed: int = Field(0, ge=0, lt=2**63)

    def progress(self, iteration: int, seconds: float) -> float:
        """Share of the schedule that is over after so many steps and seconds of training, from 0 to 1."""
        steps = iteration / self.iterations
        return steps if self.max_minutes is None else max(steps, seconds / 60 / self.max_minutes)


class TrainConfig(Optimisation):
    """How an OFVL-MS model is trained; a step sees a batch of every scene."""

    settings_command = "ofvl config"

    network: Annotated[Architecture, by_name(ARCHITECTURES, DEFAULT_NETWORK)] = Field(
        ARCHITECTURES[DEFAULT_NETWORK], description="a size's name, or a mapping of `name` and what differs"
    )
    batch_size: int = Field(8, gt=0, description="images a scene and worker in a step")
    distance_warmup: float = Field(0.9, ge=0, lt=1, description="share of the iterations; 0 is Eq. 4 alone")
    reprojection: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the iterations after which errors in the image count too, clamped ever closer; "
        "1 is never, as in the paper",
    )
    penalty_weight: float = Field(0.25, ge=0, allow_inf_nan=False, description="beta of Eq. 3")
    score_slope: Literal[-1, 1] = Field(
        -1, description="of the surrogate for Eq. 1's indicator; 1 has the sign of the published code"
    )
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
    gradients: Method = Field(
        "normalised", description="how the scenes' gradients of shared parameters combine"
    )
    holdout: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of the frames that training does not see and poses' covariances are calibrated on",
    )
    keyframes: int = Field(
        200,
        ge=0,
        le=KEPT,
        description="training frames a scene that are remembered as they are, and refine poses; 0 is the "
        "network alone, as in the paper",
    )
    augmentation: Annotated[Augmentation, by_name(AUGMENTATIONS, DEFAULT_AUGMENTATION)] = Field(
        AUGMENTATIONS[DEFAULT_AUGMENTATION], description="one of the names, or ranges"
    )
    register_depth: bool = Field(
        True, description="bring depth to the colour camera where a data set's are two, as in 7-Scenes"
    )

    @field_validator("augmentation")
    @classmethod
    def _looks_are_learned(cls, augmentation: Augmentation, info: ValidationInfo) -> Augmentation:
        """A network that never saw turned views is wrong about the looks that turn them."""
        looks = LOOKS[: info.data["network"].looks] if "network" in info.data else ()
        turn = max((abs(look.degrees) for look in looks), default=0.0)
        if turn > augmentation.rotation_deg:
            raise ValueError(
                f"views turned by up to {augmentation.rotation_deg:g} degrees do not teach it to look "
                f"{len(looks)} times, turned by {turn:g}; choose handheld, or a network that looks once"
            )
        return augmentation


Settings = TypeVar("Settings", bound=Optimisation)


def make_config(*layers: Mapping[str, Any]) -> TrainConfig:
    """The defaults, changed by each of the layers in turn. Raises ConfigError naming the wrong key."""
    return make_settings(TrainConfig, *layers)


def make_settings(kind: type[Settings], *layers: Mapping[str, Any]) -> Settings:
    """Settings of a `kind`, as `make_config` makes them of its own."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _layered(merged, layer)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(str(part) for part in wrong["loc"])
        cause = wrong["msg"].removeprefix("Value error, ").lower()
        raise ConfigError(f"setting '{key}': {cause}; '{kind.settings_command}' lists all settings") from None


def _layered(before: Any, value: Any) -> Any:
    """`value` over what was there `before`: mappings change key by key, unless they name another whole."""
    if isinstance(before, str):
        before = {"name": before}
    if not (isinstance(value, Mapping) and isinstance(before, Mapping)) or "name" in value:
        return value
    return {**before, **{key: _layered(before.get(key), entry) for key, entry in value.items()}}


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a YAML file, not yet checked. Raises ConfigError when it is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a file of settings") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not YAML ({' '.join(str(error).split())}); 'ofvl config' writes an example"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no settings; 'ofvl config' writes an example")
    return content


def write_settings(config: Optimisation) -> str:
    """The whole configuration as YAML that `read_settings` reads, every setting with its meaning."""
    lines = []
    for name, field in type(config).model_fields.items():
        setting = config.model_dump(mode="json", include={name})
        if field.description:
            lines.append(f"# {field.description}")
        lists_in_line = None if isinstance(setting[name], dict) else False
        lines.append(yaml.safe_dump(setting, default_flow_style=lists_in_line, sort_keys=False).strip())
    return "\n".join(lines) + "\n"
