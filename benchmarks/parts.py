"""What each part of training and of a query brings to a pose.

Each model knows one recorded scene, and all are trained for the same time, one after the other; all but the
first differ from the defaults in one setting. The poses are of frames that training held out in blocks, never
of the test split, by one look at the image and by five, turned and scaled a little (`network.looks`). It is
one training each: differences of a tenth may be chance. The first model is asked again for poses that are not
refined.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from harness import ROOT, Table, bootstrap, is_finished, recordings, write

from ofvl_core.checkpoint import load_manifest
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.evaluation import STRICT_DEG, STRICT_M, as_held_out, evaluate_scene
from ofvl_core.localizer import Localizer
from ofvl_core.looks import LOOKS
from ofvl_core.pose import PoseOptions
from ofvl_core.training.config import make_config
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train

OUT = ROOT / "out" / "parts"
COMMON = {"iterations": 100_000, "holdout": 0.15}
"""More iterations than there is time for, and enough frames to compare by."""

VARIANTS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "every view warped to the ends of the ranges": {"augmentation": {"reach": "full"}},
    "no view from where no camera was": {"augmentation": {"synthesised": 0.0}},
    "no motion blur": {"augmentation": {"blur": 0.0}},
    "no reprojection loss": {"reprojection": 1.0},
    "a head of 3x3 convolutions": {"network": {"head_kernel": 3}},
}


def medians(
    model: Path, scene: SceneData, looks: int, options: PoseOptions = PoseOptions()
) -> tuple[str, list[float]]:
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
    around = Surroundings(torch.device("cpu"), cache=OUT / "frames")
    rows: list[list[str | float | int | None]] = []
    figures: dict[str, Any] = {}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        out = OUT / f"{scene}_{number}"
        if not is_finished(out):
            config = make_config(COMMON, {"max_minutes": minutes}, changes)
            train([data], config, out, around, resume=out.exists())
        manifest = load_manifest(out)
        one, five = (medians(out, as_held_out(data, manifest), looks) for looks in (1, len(LOOKS)))
        rows.append([name, manifest.training.iteration, one[0], five[0]])
        figures[name] = {"one_look": one[1], "five_looks": five[1]}
        print(*rows[-1], sep=" | ", flush=True)
    first, held_out = OUT / f"{scene}_0", as_held_out(data, manifest)  # all hold out the same
    unrefined = (medians(first, held_out, looks, PoseOptions(refinements=0))[0] for looks in (1, len(LOOKS)))
    rows.append(["the defaults, by RANSAC's pose, not refined", rows[0][1], *unrefined])
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
