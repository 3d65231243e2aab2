"""Preparing scenes for int8: ranges measured on training images, kept only where poses stay as good."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ofvl_core.calibration import FEWEST
from ofvl_core.checkpoint import Manifest, SceneRecord
from ofvl_core.datasets import SceneData
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.engines.int8 import Quantisation, observed_ranges
from ofvl_core.engines.scene_network import SceneNetwork
from ofvl_core.errors import DataError
from ofvl_core.evaluation import evaluate_scene
from ofvl_core.localizer import Localizer
from ofvl_core.resize import input_camera, resize

GROWTH = 1.05
"""The median errors of held-out frames may grow by this factor, of position and of rotation."""

OBSERVED = 64
"""Training images, evenly spread, on which ranges are measured: twice as many move them by a percent."""


def quantised(
    checkpoint: Path, scenes: Sequence[SceneData], on_frame: Callable[[], None] = lambda: None
) -> Manifest:
    """The manifest of a checkpoint in which these `scenes`, made by `as_held_out`, are prepared for int8.

    Frames that training held out decide; neither ranges nor the decision see the test split. `on_frame` is
    called for each of them, twice.

    Raises DataError when a scene has too few held-out frames or poses to decide, or its median error grows
    by more than 5 %; ConfigError where OpenVINO is not installed.
    """
    rounded = Localizer(checkpoint, "cpu", engine="openvino-int8")
    exact = Localizer(checkpoint, "cpu", engine="torch")
    for scene in scenes:
        frames = len(scene.splits[HOLDOUT])
        if frames < FEWEST:
            raise DataError(
                f"training held out {frames} frames of {scene.name}, and {FEWEST} are needed to see what "
                "int8 does to its poses; train with a larger holdout"
            )
        float32 = _median_errors(exact, scene, on_frame)
        record = rounded.manifest.scene(scene.name)
        ranges = _ranges(exact, record, scene)
        trial = Quantisation(ranges=ranges, frames=frames, float32=float32, int8=float32)
        rounded.manifest = _with(rounded.manifest, record, trial)
        int8 = _median_errors(rounded, scene, on_frame)
        if any(after > GROWTH * before for before, after in zip(float32, int8, strict=True)):
            raise DataError(
                f"int8 takes the median error of {scene.name} from {_words(float32)} to {_words(int8)}, by "
                "more than 5 %; keep another engine for it"
            )
        rounded.manifest = _with(rounded.manifest, record, trial.model_copy(update={"int8": int8}))
    return rounded.manifest


def _ranges(localizer: Localizer, record: SceneRecord, scene: SceneData) -> list[tuple[float, float]]:
    frames = scene.frames("train")
    chosen = np.unique(np.linspace(0, len(frames) - 1, OBSERVED).round().astype(int))
    camera = input_camera(scene.camera, record.input_focal, localizer.model.architecture.stride)
    images = (resize(scene.read_color(frames[number]), camera) for number in chosen)
    return observed_ranges(SceneNetwork(localizer.model, scene.name), images)


def _median_errors(
    localizer: Localizer, scene: SceneData, on_frame: Callable[[], None]
) -> tuple[float, float]:
    """Metres and degrees, of frames that were held out."""
    metres, degrees = np.median(evaluate_scene(localizer, scene, HOLDOUT, on_frame).errors, axis=0)
    if not np.isfinite(metres):
        raise DataError(f"most held-out frames of {scene.name} have no pose; train longer")
    return float(metres), float(degrees)


def _with(manifest: Manifest, record: SceneRecord, quantisation: Quantisation) -> Manifest:
    changed = record.model_copy(update={"quantisation": quantisation})
    scenes = [changed if scene.name == record.name else scene for scene in manifest.scenes]
    return manifest.model_copy(update={"scenes": scenes})


def _words(errors: tuple[float, float]) -> str:
    return f"{100 * errors[0]:.2f} cm and {errors[1]:.2f} degrees"
