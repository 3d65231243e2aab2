"""What each part of training and of a query brings to a pose.

Each model knows one recorded scene, and all are trained for the same time, one after the other; all but the
first differ from the defaults in one setting, or in a loss that neighbouring cells differ as their points do.
The poses are of frames that training held out in blocks, never of the test split, by one look at the image
and by five, turned and scaled a little (`network.looks`). It is one training each: differences of a tenth may
be chance. The first model is asked again for poses that are not refined, with weights averaged over its last
steps, and with statistics of normalisation measured anew on training views: these ruin it, as its weights
were learned for the statistics of the first tenth, at which normalisation then rests (`statistics_rest`).

The camera of fr1_rpy turns on the spot: there synthesised views and blur bring nothing.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
import typer
from harness import ROOT, Table, bootstrap, is_finished, recordings, require_end, write
from torch import Tensor

from ofvl_core.checkpoint import Manifest, load_manifest, load_model, save_checkpoint
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.evaluation import STRICT_DEG, STRICT_M, as_held_out, evaluate_scene
from ofvl_core.localizer import Localizer
from ofvl_core.looks import LOOKS
from ofvl_core.network import OFVLMS, Prediction
from ofvl_core.pose import PoseOptions
from ofvl_core.resize import input_camera
from ofvl_core.training.augmentation import Batch, BatchSource
from ofvl_core.training.config import make_config
from ofvl_core.training.loop import Step, Surroundings
from ofvl_core.training.packed import pack_frames
from ofvl_core.training.run import train
from ofvl_core.training.trainer import Trainer

OUT = ROOT / "out" / "parts"
FRAMES = OUT / "frames"
CPU = torch.device("cpu")
COMMON = {"iterations": 100_000, "holdout": 0.15, "keyframes": 0}
"""More iterations than there is time for, enough frames to compare by, and the network alone."""

AVERAGED = 100
"""Steps that the moving average of the weights goes back, about."""

RECALIBRATED = 64
"""Batches of training views on which statistics of normalisation are measured anew."""


class Averaging(Trainer):
    """Keeps a moving average of the model's parameters beside them."""

    latest: ClassVar["Averaging"]

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        Averaging.latest = self
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]

    def step(self, iteration: int, progress: float, stop: bool = False, seconds: float = 0.0) -> Step:
        step = super().step(iteration, progress, stop, seconds)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 / AVERAGED)
        return step


class Smoothing(Trainer):
    """Learns besides that what neighbouring cells say differs as their points do, metres for metres."""

    def _loss(self, prediction: Prediction, batch: Batch, source: BatchSource, progress: float) -> Tensor:
        loss = super()._loss(prediction, batch, source, progress)
        error = (prediction.coordinates - batch.coordinates).float()
        for axis in (2, 3):
            both = batch.valid.unfold(axis, 2, 1).all(dim=-1)
            differences = error.diff(dim=axis).square().sum(dim=1, keepdim=True)
            lengths = torch.where(both, differences + 1e-12, 1.0).sqrt()
            loss = loss + torch.where(both, lengths, 0.0).sum() / both.sum().clamp(min=1)
        return loss


class Variant(NamedTuple):
    """What differs from the defaults: settings, or the trainer."""

    changes: dict[str, Any]
    kind: type[Trainer] = Trainer


VARIANTS = {
    "the defaults": Variant({}, Averaging),
    "every view warped to the ends of the ranges": Variant({"augmentation": {"reach": "full"}}),
    "no view from where no camera was": Variant({"augmentation": {"synthesised": 0.0}}),
    "no motion blur": Variant({"augmentation": {"blur": 0.0}}),
    "no reprojection loss": Variant({"reprojection": 1.0}),
    "a head of 3x3 convolutions": Variant({"network": {"head_kernel": 3}}),
    "neighbouring cells smoothed": Variant({}, Smoothing),
}


def averaged(model: OFVLMS, data: SceneData, manifest: Manifest) -> None:
    """Give the model of the latest training the weights that `Averaging` kept of it."""
    with torch.no_grad():
        torch._foreach_copy_(list(model.parameters()), Averaging.latest.average)


def recalibrated(model: OFVLMS, data: SceneData, manifest: Manifest) -> None:
    """Measure a model's statistics of normalisation anew, on training views."""
    config, stride = manifest.training.config, manifest.architecture.stride
    camera = input_camera(data.camera, manifest.scene(data.name).input_focal, stride)
    frames = pack_frames(as_held_out(data, manifest), camera, FRAMES)
    source = BatchSource(frames, config.batch_size, stride, config.augmentation, (1,), CPU)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
    with torch.no_grad():
        for number in range(RECALIBRATED):
            model(source.batch(number).images, data.name)


DERIVED = {
    f"the defaults, weights averaged over {AVERAGED} steps": averaged,
    "the defaults, normalisation measured anew": recalibrated,
}
"""What is made of the first model when its training is done."""


def medians(model: Path, scene: SceneData, looks: int, options: PoseOptions) -> tuple[str, list[float]]:
    """Median errors and the share within 5 cm and 5 degrees with so many looks, as text and as numbers."""
    localizer = Localizer(model, "cpu", options)
    localizer.model.architecture = localizer.model.architecture.model_copy(update={"looks": looks})
    found = evaluate_scene(localizer, scene, HOLDOUT)
    metres, degrees = found.errors.T
    middle = [float(np.median(metres)), float(np.median(degrees))]
    share = found.within(STRICT_M, STRICT_DEG)
    low, high = bootstrap(metres, np.median)
    interval = f"{100 * middle[0]:.2f} cm [{100 * low:.2f}, {100 * high:.2f}]"
    text = f"{interval}, {middle[1]:.2f} deg, {100 * share:.0f} %"
    return text, [*middle, share]


def main(
    scene: Annotated[str, typer.Option(help="Name of a recorded scene.")] = "fr1_rpy",
    minutes: Annotated[float, typer.Option(help="Of training, for each model.")] = 5.0,
) -> None:
    """Train and compare; results go to parts_SCENE.json. Models that out/parts holds already are taken."""
    data = load_scene(recordings("scenes") / scene)
    around = Surroundings(CPU, cache=FRAMES)
    derived = {name: OUT / f"{scene}_{change.__name__}" for name, change in DERIVED.items()}
    first = OUT / f"{scene}_0"
    if is_finished(first) and not all(path.exists() for path in derived.values()):
        shutil.rmtree(first)  # what they are made of was lost with the process that trained it
    models: dict[str, Path] = {}
    for number, (name, variant) in enumerate(VARIANTS.items()):
        out = models[name] = OUT / f"{scene}_{number}"
        if not is_finished(out):
            config = make_config(COMMON, {"max_minutes": minutes}, variant.changes)
            require_end(train([data], config, out, around, resume=out.exists(), kind=variant.kind))
            if number == 0:
                for made, change in DERIVED.items():
                    manifest = load_manifest(out)
                    model = load_model(out, manifest, CPU)
                    change(model, data, manifest)
                    save_checkpoint(derived[made], manifest, model)
    models |= derived
    held_out = as_held_out(data, load_manifest(models["the defaults"]))  # all hold out the same
    asked = {name: (model, PoseOptions()) for name, model in models.items()}
    asked["the defaults, by RANSAC's pose, not refined"] = models["the defaults"], PoseOptions(refinements=0)
    rows: list[list[str | float | int | None]] = []
    figures: dict[str, Any] = {}
    for name, (model, options) in asked.items():
        one, five = (medians(model, held_out, looks, options) for looks in (1, len(LOOKS)))
        rows.append([name, load_manifest(model).training.iteration, one[0], five[0]])
        figures[name] = {"one_look": one[1], "five_looks": five[1]}
        print(*rows[-1], sep=" | ", flush=True)
    write(
        f"parts_{scene}",
        " ".join(["benchmarks/parts.py", *sys.argv[1:]]),
        [
            Table(
                f"{scene}, {len(held_out.frames(HOLDOUT))} frames, {minutes:g} minutes",
                ["training", "iterations", "one look", "five"],
                rows,
            )
        ],
        figures,
    )


if __name__ == "__main__":
    typer.run(main)
