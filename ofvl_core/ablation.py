"""Ablations: the variants that the paper compares (Tables 4-7) and some beyond, trained and measured alike.

DIR/settings.yaml holds what all variants have in common. A run is one variant with one seed; its models are
trained into DIR/VARIANT/seed-N and its numbers, once all are measured, into results.json there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ofvl_core.checkpoint import load_manifest
from ofvl_core.checkpoint_folder import MANIFEST, require_empty
from ofvl_core.datasets import SceneData
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.evaluation import average, evaluate_scene
from ofvl_core.files import write_text
from ofvl_core.localizer import Localizer
from ofvl_core.network.parameters import count_parameters
from ofvl_core.provenance import provenance
from ofvl_core.training.add_scene import add_scene
from ofvl_core.training.config import TrainConfig, make_config, read_settings, write_settings
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train

SETTINGS = "settings.yaml"
RESULTS = "results.json"

Plan = Literal["joint", "separate", "added"]
"""One model of all scenes; one a scene (Table 4); or each scene in turn added to a frozen model of the others
(Table 6)."""


@dataclass(frozen=True)
class Variant:
    """What is done otherwise than in the full model: `changes` of the settings, or the plan."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan = "joint"


FULL: Mapping[str, Any] = {
    "network": {"sharing": "conv_scored", "attention": True},
    "gradients": "normalised",
    "score_slope": -1,
}
"""What the full model is, in the settings that variants change; its penalty may have any weight but none."""

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("full"),
        Variant("separate", plan="separate"),
        Variant("all_shared", {"network": {"sharing": "all_shared"}}),
        Variant("conv_norm_scored", {"network": {"sharing": "conv_norm_scored"}}),
        Variant("new_scene", plan="added"),
        Variant("no_attention", {"network": {"attention": False}}),
        Variant("average_gradients", {"gradients": "average"}),
        Variant("no_penalty", {"penalty_weight": 0.0}),
        Variant("published_sign", {"score_slope": 1}),
        Variant("imtl_g", {"gradients": "imtl_g"}),
        Variant("mgda", {"gradients": "mgda"}),
        Variant("aligned_mtl", {"gradients": "aligned_mtl"}),
    )
}
"""By name, in the order in which they run."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SceneErrors(_Record):
    """A scene's errors, as `SceneEvaluation.summary` counts them."""

    scene: str
    frames: int
    failures: int
    median_m: float | None
    median_deg: float | None
    within_5cm_5deg: float
    within_10cm_5deg: float


class ModelSize(_Record):
    """What `count_parameters` counts of a model, and how many of its scored layers are shared."""

    parameters: int
    per_scene: int
    shared_layers: int
    scored_layers: int


class Outcome(_Record):
    """The numbers of one run. `data` holds the name and the number of training and test frames of each scene,
    `models` the size of every model that was measured."""

    variant: str
    config: TrainConfig
    data: list[tuple[str, int, int]]
    provenance: str
    minutes: float
    models: list[ModelSize]
    scenes: list[SceneErrors]

    @property
    def average(self) -> dict[str, Any]:
        """The unweighted mean over scenes of `SceneErrors`."""
        return average([scene.model_dump() for scene in self.scenes])


@dataclass(frozen=True)
class Training:
    """One training of a run: of `scenes` jointly or, with `base`, of the one added to that checkpoint.

    The model in `folder` is measured on the test frames of `measured`.
    """

    folder: Path
    scenes: Sequence[SceneData]
    measured: Sequence[SceneData]
    base: Path | None = None

    def iterations_done(self) -> int:
        """How far it went before."""
        started = (self.folder / MANIFEST).exists()
        return load_manifest(self.folder).training.iteration if started else 0


@dataclass(frozen=True)
class Run:
    """One variant with one seed, in `folder`."""

    variant: Variant
    config: TrainConfig
    folder: Path
    scenes: Sequence[SceneData]

    @property
    def data(self) -> list[tuple[str, int, int]]:
        """Names and numbers of training and test frames of the scenes."""
        return [(scene.name, len(scene.frames("train")), len(scene.frames("test"))) for scene in self.scenes]

    def trainings(self) -> list[Training]:
        """What is to be trained, in order."""
        if self.variant.plan == "joint":
            return [Training(self.folder / "model", self.scenes, self.scenes)]
        if self.variant.plan == "separate":
            return [Training(self.folder / scene.name, [scene], [scene]) for scene in self.scenes]
        trainings = []
        for scene in self.scenes:
            others = Training(
                self.folder / scene.name / "others", [s for s in self.scenes if s is not scene], []
            )
            extended = self.folder / scene.name / "extended"
            trainings += [others, Training(extended, [scene], [scene], base=others.folder)]
        return trainings

    def outcome(self) -> Outcome | None:
        """What was measured before. Raises CheckpointError when that was something else."""
        path = self.folder / RESULTS
        if not path.exists():
            return None
        outcome = read_outcome(path)
        if (outcome.config, outcome.data) != (self.config, self.data):
            what = "data" if outcome.config == self.config else "settings"
            raise CheckpointError(f"{path}: was measured with other {what}; choose another --out")
        return outcome

    def steps_left(self) -> int:
        """Batches that are still to be seen, a measure of the time that is left."""
        if self.outcome() is not None:
            return 0
        return sum(
            len(training.scenes) * (self.config.iterations - training.iterations_done())
            for training in self.trainings()
        )


def plan_runs(
    scenes: Sequence[SceneData], settings: TrainConfig, variants: Sequence[str], seeds: int, out: Path
) -> list[Run]:
    """The runs of `variants`, each with `seeds` seeds that count from the settings' own.

    `out` becomes the folder of these settings. Raises ConfigError for what makes no ablation and
    CheckpointError when `out` holds something else.
    """
    for name in variants:
        if name not in VARIANTS:
            raise ConfigError(f"unknown variant '{name}'; choose among {', '.join(VARIANTS)}")
    if len(scenes) < 2:
        raise ConfigError("an ablation compares models of several scenes; give two scenes or more")
    if settings.max_minutes is not None:
        raise ConfigError("max_minutes makes a model depend on the machine's load; set iterations instead")
    if make_config(settings.model_dump(), FULL) != settings or settings.penalty_weight == 0:
        raise ConfigError(
            "gradients, score_slope, penalty_weight 0, network.sharing and network.attention are what the "
            "variants change; leave them at their defaults"
        )
    for scene in scenes:
        scene.frames("test")  # an empty split is known before the hours of training
    _claim(out, settings)
    return [
        Run(VARIANTS[name], config, out / name / f"seed-{config.seed}", scenes)
        for seed in range(settings.seed, settings.seed + seeds)
        for name in dict.fromkeys(variants)
        for config in [make_config(settings.model_dump(), VARIANTS[name].changes, {"seed": seed})]
    ]


def measure(run: Run, surroundings: Surroundings) -> Outcome:
    """Train and measure what is missing of a run; what is finished stays as it is.

    Raises KeyboardInterrupt when a signal stopped a training: the next call continues it.
    """
    outcome = run.outcome()
    if outcome is not None:
        return outcome
    made_by = provenance(surroundings.device)  # before the hours in which another commit may be checked out
    sizes, errors, seconds = [], [], 0.0
    for training in run.trainings():
        if not _train(training, run.config, surroundings):
            raise KeyboardInterrupt
        seconds += load_manifest(training.folder).training.seconds
        if not training.measured:
            continue
        localizer = Localizer(training.folder, surroundings.device.type)
        sizes.append(_size(localizer))
        for scene in training.measured:
            summary = evaluate_scene(localizer, scene, "test").summary()
            errors.append(SceneErrors.model_validate({key: summary[key] for key in SceneErrors.model_fields}))
    outcome = Outcome(
        variant=run.variant.name,
        config=run.config,
        data=run.data,
        provenance=made_by,
        minutes=seconds / 60,
        models=sizes,
        scenes=errors,
    )
    write_text(run.folder / RESULTS, outcome.model_dump_json(indent=2) + "\n")
    return outcome


def gather(out: Path) -> list[Outcome]:
    """All outcomes in a folder, in the order of `VARIANTS` and their seeds."""
    found = [read_outcome(path) for name in VARIANTS for path in (out / name).glob(f"seed-*/{RESULTS}")]
    order = list(VARIANTS)
    return sorted(found, key=lambda outcome: (order.index(outcome.variant), outcome.config.seed))


def read_outcome(path: Path) -> Outcome:
    """A file of results. Raises CheckpointError when it is damaged."""
    try:
        outcome = Outcome.model_validate_json(path.read_text(encoding="utf-8"))
        if outcome.variant != path.parents[1].name or not outcome.scenes or not outcome.models:
            raise ValueError
    except (OSError, ValueError):
        raise CheckpointError(f"{path}: damaged; delete it to measure that variant again") from None
    return outcome


def _claim(out: Path, settings: TrainConfig) -> None:
    path = out / SETTINGS
    if path.exists():
        if make_config(read_settings(path)) != settings:
            raise CheckpointError(
                f"{out} was begun with other settings; continue with --config {path}, or choose another --out"
            )
    else:
        require_empty(out, "it is no ablation; choose another --out")
        write_text(path, write_settings(settings))


def _train(training: Training, config: TrainConfig, surroundings: Surroundings) -> bool:
    resume = (training.folder / MANIFEST).exists()
    if training.base is None:
        return train(training.scenes, config, training.folder, surroundings, resume=resume)
    (scene,) = training.scenes
    return add_scene(training.base, scene, config, training.folder, surroundings, resume=resume)


def _size(localizer: Localizer) -> ModelSize:
    counts = count_parameters(localizer.model)
    layers = localizer.model.scored_layers.values()
    return ModelSize(
        parameters=counts.total,
        per_scene=counts.per_scene,
        shared_layers=sum(layer.is_shared for layer in layers),
        scored_layers=len(layers),
    )
