"""`ofvl evaluate`: errors of a checkpoint on held-out frames."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.cli.console import DeviceOption, JsonOption, emit_json, print_table, progress_bar, stderr
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.evaluation import evaluate_scene
from ofvl_core.localizer import Localizer
from ofvl_core.report import write_report


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `ofvl train` wrote.")],
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    split: Annotated[str, typer.Option(metavar="train|test")] = "test",
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write report.html there.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Localize every frame of a split; print median errors and the share within 5 cm and 5 degrees."""
    localizer = Localizer(checkpoint, device)
    scenes = [load_scene(path) for path in find_scenes(data)]
    for scene in scenes:
        localizer.manifest.scene(scene.name)  # unknown scenes are named before any work
    with progress_bar() as bar:
        task = bar.add_task("localizing", total=sum(len(scene.frames(split)) for scene in scenes))
        evaluations = [evaluate_scene(localizer, scene, split, lambda: bar.advance(task)) for scene in scenes]
    summaries = [evaluation.summary() for evaluation in evaluations]
    if json != "-":
        print_table(summaries)
    if json is not None:
        emit_json({"checkpoint": str(checkpoint), "split": split, "scenes": summaries}, json)
    if report is not None:
        title = f"{localizer.manifest.model} on {len(scenes)} scenes"
        introduction = f"Single colour images of the {split} split, one model for all scenes."
        stderr.print(
            f"report: {write_report(report, title, introduction, summaries, evaluations)}", soft_wrap=True
        )
