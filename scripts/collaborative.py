"""What collaborative learning brings, on real video: trains every variant, evaluates, reports.

    python scripts/collaborative.py [--only NAME ...] [--jobs 2]

Variants are the paper's ladder (without GAGM; GAGM without GlobalPoseNet; full), where depth is measured,
GlobalPoseNet trained apart, and the paper's loss without that of the motions. On KITTI, full and apart have
three seeds. Runs that are finished are not run again, and stopped ones continue: remove out/collaborative to
start over. OFVL_DATA names the folder that holds kitti/ and scenes/ (default ../shared/data);
docs/datasets.md says where the recordings come from.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from markdown_tables import markdown_table
from rich.console import Console

from ofvl_core.collaborative.checkpoint import load_manifest
from ofvl_core.collaborative.config import CollaborativeConfig
from ofvl_core.collaborative.estimator import Estimator
from ofvl_core.collaborative.evaluation import NETWORK, Evaluation, evaluate, look_at
from ofvl_core.collaborative.report import TABLES, write_report
from ofvl_core.collaborative.splits import ODOMETRY, held_out
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.depth_metrics import INDOORS, KITTI
from ofvl_core.files import write_json, write_text
from ofvl_core.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out" / "collaborative"
DATA = Path(os.environ.get("OFVL_DATA", ROOT / "../shared/data")).resolve()
SCENES = {
    "kitti": "kitti/00",
    **{name: f"scenes/{name}" for name in ("redkitchen", "hololens_office", "fr1_rpy")},
}
SEEDS = 3
STRANGERS = 3
"""Images of each other place that are shown with the depth found in them."""

DEFAULTS = CollaborativeConfig()
TOGETHER = round(DEFAULTS.iterations * (1 - DEFAULTS.pretraining_share))
"""Steps in which the three networks learn together: GlobalPoseNet alone gets as many."""

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "without_gagm": {"network.guidance": "false", "network.relocalization": "false"},
    "without_globalposenet": {"network.relocalization": "false"},
    "apart": {
        "network.guidance": "false",
        "iterations": TOGETHER,
        "pretraining_share": 0,
        "collaboration.weights.photometric": 0,
        "collaboration.weights.smoothness": 0,
        "collaboration.weights.consistency": 0,
        "collaboration.weights.motion": 0,
    },
    "papers_loss": {"pretraining.weights.motion": 0, "collaboration.weights.motion": 0},
}
"""By what each changes of the default settings."""


class Run(NamedTuple):
    """One training: a variant on a scene, with a seed."""

    scene: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.scene}-{self.variant}-{self.seed}"

    def train(self) -> None:
        """Train, or continue; a finished run is left as it is. One thread: runs share the cores."""
        checkpoint = OUT / self.name
        started = (checkpoint / "manifest.json").exists()
        if started and load_manifest(checkpoint).training.finished:
            return
        changes = VARIANTS[self.variant] | {"seed": self.seed}
        words = [f"--set={key}={value}" for key, value in changes.items()]
        command = [
            sys.executable,
            "-m",
            "ofvl_core",
            "collab",
            "train",
            DATA / SCENES[self.scene],
            "--out",
            checkpoint,
        ]
        subprocess.run(
            [*map(str, command), *(["--resume"] if started else words)],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def runs() -> list[Run]:
    """All of them, what is needed most first."""
    seeds = range(SEEDS)
    rungs = ("without_gagm", "without_globalposenet")
    return [
        *(Run("kitti", variant, seed) for seed in seeds for variant in ("full", "apart")),
        *(Run("redkitchen", variant, 0) for variant in ("full", *rungs, "apart")),
        *(
            Run(scene, variant, 0)
            for scene in ("hololens_office", "fr1_rpy")
            for variant in ("full", "apart")
        ),
        Run("kitti", "papers_loss", 0),
    ]


def measured(run: Run, scene: SceneData) -> Evaluation:
    """The run on the frames that it has not seen."""
    torch.set_num_threads(1)
    return evaluate(Estimator(OUT / run.name, "cpu"), scene, KITTI if run.scene == "kitti" else INDOORS)


def learned(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """The summary of what was trained: apart, depth and odometry were not."""
    return evaluation.summary() | ({"depth": None, "odometry": None} if run.variant == "apart" else {})


def together_or_apart(done: dict[Run, Evaluation]) -> list[str]:
    """Medians of relocalization by seed, as rows of a table for the documentation."""
    lines = ["| scene | seed | together | apart |", "| --- | --- | --- | --- |"]
    for scene in SCENES:
        medians = {}
        for seed in range(SEEDS):
            pair = [done.get(Run(scene, variant, seed)) for variant in ("full", "apart")]
            if None in pair:
                continue
            found = [np.median(each.relocalization.errors, axis=0) for each in pair]
            medians[seed] = found
            lines.append(
                f"| {scene} | {seed} | " + " | ".join(f"{m:.2f} m, {d:.1f} deg" for m, d in found) + " |"
            )
        if len(medians) > 1:
            mean = np.mean(list(medians.values()), axis=0)
            spread = np.std(list(medians.values()), axis=0, ddof=1)
            cells = [
                f"{m:.2f} +- {dm:.2f} m, {d:.1f} +- {dd:.1f} deg"
                for (m, d), (dm, dd) in zip(mean, spread, strict=True)
            ]
            lines.append(f"| {scene} | mean | " + " | ".join(cells) + " |")
    return lines


def ladder(done: dict[Run, Evaluation]) -> list[str]:
    """Depth and snippet ATE of the paper's ladder, as rows of a table for the documentation."""
    lines = ["| scene | variant | ATE, 5 frames | Abs Rel | < 1.25 |", "| --- | --- | --- | --- | --- |"]
    for run, evaluation in done.items():
        if run.variant == "apart" or run.seed:
            continue
        found = evaluation.summary()
        ate = found["odometry"]["snippets"][NETWORK]
        depth = found["depth"]
        cells = f"{depth['abs_rel']:.3f} | {depth['delta_1']:.3f}" if depth else "- | -"
        lines.append(
            f"| {run.scene} | {run.variant} | {ate['mean_m']:.4f} +- {ate['deviation_m']:.4f} m | {cells} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="runs whose names begin so")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there: set OFVL_DATA to the folder that holds kitti/ and scenes/")
    console = Console()
    wanted = [run for run in runs() if not options.only or run.name.startswith(tuple(options.only))]
    with ThreadPoolExecutor(options.jobs) as pool:
        for run, _ in zip(wanted, pool.map(Run.train, wanted), strict=True):
            console.print(f"trained {run.name}", highlight=False)
    scenes = {name: held_out(load_scene(DATA / path)) for name, path in SCENES.items()}
    done = {run: measured(run, scenes[run.scene]) for run in wanted}
    shown = {run: evaluation for run, evaluation in done.items() if (run.variant, run.seed) == ("full", 0)}
    summaries = [evaluation.summary() for evaluation in shown.values()]
    tables = [
        line
        for title, make in TABLES.items()
        for line in ("", f"**{title}**", "", markdown_table(*make(summaries)).rstrip())
    ]
    minutes = [load_manifest(OUT / run.name).training.seconds / 60 for run in wanted]
    trained = f"{min(minutes):.1f} to {max(minutes):.1f} minutes each"
    said = f"{provenance(torch.device('cpu'))}; one thread a run, {trained}."
    compared = [
        "**Together or apart**",
        "",
        *together_or_apart(done),
        "",
        "**The paper's ladder**",
        "",
        *ladder(done),
    ]
    write_text(OUT / "tables.md", "\n".join([said, "", *compared, *tables, ""]))
    write_json(
        OUT / "results.json",
        {"machine": said, "runs": {run.name: learned(run, each) for run, each in done.items()}},
    )
    strangers = []
    if shown:
        first = next(iter(shown))
        estimator = Estimator(OUT / first.name, "cpu")
        for name, scene in scenes.items():
            if name != first.scene:
                frames = scene.frames(ODOMETRY)
                strangers += [
                    look_at(estimator, scene, frame, estimator.scenes[0])
                    for frame in frames[:: len(frames) // STRANGERS]
                ]
    report = write_report(
        OUT, "Depth, odometry and relocalization learned together", said, list(shown.values()), strangers
    )
    console.print(f"tables: {OUT / 'tables.md'}\nreport: {report}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
