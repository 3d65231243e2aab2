"""`ofvl evaluate`: errors of a checkpoint on held-out frames."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.checkpoint import Manifest
from ofvl_core.cli.console import (
    DeviceOption,
    EngineOption,
    JsonOption,
    ThresholdOption,
    emit_json,
    parse_thresholds,
    print_table,
    progress_bar,
    stderr,
    stdout,
)
from ofvl_core.datasets import SceneData, find_scenes, load_scene
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.evaluation import as_held_out, average, evaluate_scene, write_trajectories
from ofvl_core.localizer import Localizer
from ofvl_core.network.parameters import count_parameters
from ofvl_core.report import honesty, write_report


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of `ofvl train`, or file of `ofvl deploy`.")],
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    split: Annotated[
        str, typer.Option(metavar="train|holdout|test", help="holdout: what training kept to itself.")
    ] = "test",
    threshold: ThresholdOption = None,
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write report.html there.")] = None,
    trajectories: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write SCENE.SEQUENCE.estimate.txt and .truth.txt there, TUM rows that evo reads.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    keyframes: Annotated[
        bool, typer.Option(help="Refine poses by keyframes; without, they are the network's own.")
    ] = True,
) -> None:
    """Localize every frame of a split; print median errors, shares within thresholds and the model's size.

    A frame without a pose is a failure and counts as one. Averages are unweighted means over scenes.
    """
    thresholds = parse_thresholds(threshold)
    localizer = Localizer(checkpoint, device, engine=engine, keyframes=keyframes)
    scenes = [as_trained(path, localizer.manifest) for path in find_scenes(data)]
    if split == HOLDOUT:
        scenes = [as_held_out(scene, localizer.manifest) for scene in scenes]
    with progress_bar() as bar:
        task = bar.add_task("localizing", total=sum(len(scene.frames(split)) for scene in scenes))
        evaluations = [evaluate_scene(localizer, scene, split, lambda: bar.advance(task)) for scene in scenes]
    summaries = [evaluation.summary(thresholds) for evaluation in evaluations]
    counts = count_parameters(localizer.model)
    shared = counts.single_scene - counts.per_scene
    size = (
        f"{localizer.manifest.architecture.name} has {counts.total / 1e6:.3f} M parameters for "
        f"{len(localizer.scenes)} scenes: {shared / 1e6:.3f} M shared by all, {counts.per_scene / 1e6:.3f} M "
        "a scene."
    )
    said = honesty(summaries)
    if json != "-":
        print_table(summaries)
        for sentence in (said, size):
            stdout.print(sentence, highlight=False, soft_wrap=True)
    if json is not None:
        content = {
            "checkpoint": str(checkpoint),
            "split": split,
            "parameters": {"total": counts.total, "shared": shared, "per_scene": counts.per_scene},
            "scenes": summaries,
            "average": average(summaries),
        }
        emit_json(content, json)
    if trajectories is not None:
        for scene, evaluation in zip(scenes, evaluations, strict=True):
            write_trajectories(trajectories, evaluation, scene.frames(split))
        stderr.print(f"trajectories: {trajectories}", soft_wrap=True)
    if report is not None:
        title = f"{localizer.manifest.architecture.name} on {len(scenes)} scenes"
        introduction = f"Single colour images of the {split} split, one model for all scenes. {size} {said}"
        page = write_report(report, title, introduction, summaries, evaluations)
        stderr.print(f"report: {page}", soft_wrap=True)


def as_trained(path: Path, manifest: Manifest) -> SceneData:
    """The scene in that folder, read as for training. Raises CheckpointError when the model lacks it."""
    scene = load_scene(path)
    register_depth = manifest.scene(scene.name).register_depth
    return scene if register_depth else load_scene(path, register_depth)
