"""`ofvl collab`: depth, odometry and relocalization learned together from a plain video."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.cli.console import (
    DeviceOption,
    JsonOption,
    emit_json,
    print_rows,
    progress_bar,
    stderr,
    stdout,
)
from ofvl_core.cli.settings import ConfigOption, SetOption, layers, print_settings
from ofvl_core.cli.train import CacheOption, ResumeOption, TrainingProgress, conclude
from ofvl_core.collaborative.architecture import ARCHITECTURES
from ofvl_core.collaborative.checkpoint import load_manifest
from ofvl_core.collaborative.config import CollaborativeConfig
from ofvl_core.collaborative.estimator import Estimator
from ofvl_core.collaborative.objective import Losses
from ofvl_core.collaborative.presets import PRESETS
from ofvl_core.collaborative.splits import held_out
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.device import choose_device
from ofvl_core.training.config import make_settings
from ofvl_core.training.loop import Surroundings

app = typer.Typer(
    help="Depth, visual odometry and relocalization, learned together from posed video.", no_args_is_help=True
)

PresetOption = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"A run of the paper: {', '.join(PRESETS)}.")
]
CheckpointArgument = Annotated[Path, typer.Argument(help="Folder of `ofvl collab train`.")]


@app.command()
def config(preset: PresetOption = None, file: ConfigOption = None, changes: SetOption = None) -> None:
    """Print all settings with their meaning, for `ofvl collab train --config`."""
    print_settings(make_settings(CollaborativeConfig, *layers(preset, file, changes, PRESETS)))


@app.command()
def train(
    data: Annotated[list[Path], typer.Argument(help="Scene folders with posed video, or folders of scenes.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    preset: PresetOption = None,
    config: ConfigOption = None,
    model: Annotated[str | None, typer.Option(help=f"One of {', '.join(ARCHITECTURES)}.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps of both stages.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Finish the schedule by then at the latest.")
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    changes: SetOption = None,
    imagenet18: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of a standard ResNet18 to start from.")
    ] = None,
    imagenet34: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Those of a ResNet34, for GlobalPoseNet.")
    ] = None,
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
) -> None:
    """Train all three networks on posed videos. Ctrl-C stops it so that --resume continues.

    No depth is needed. Where the data have no test frames, parts of each sequence are held out.
    """
    from ofvl_core.collaborative.run import start_from_imagenet
    from ofvl_core.collaborative.run import train as run

    given = layers(
        preset,
        config,
        changes,
        PRESETS,
        network=model,
        iterations=iterations,
        max_minutes=max_minutes,
        seed=seed,
    )
    before = load_manifest(out).training.config.model_dump() if resume else {}
    settings = make_settings(CollaborativeConfig, before, *given)
    scenes = [load_scene(path) for path in find_scenes(data)]
    chosen = choose_device(device)
    with TrainingProgress(list(Losses._fields), settings.iterations) as progress:
        surroundings = Surroundings(chosen, cache, None, progress.on_load, progress.on_step)
        start = start_from_imagenet(imagenet18, imagenet34)
        run(scenes, settings, out, surroundings, resume=resume, start=start)
    manifest = load_manifest(out)
    conclude(out, manifest.training, settings.iterations, [scene.name for scene in manifest.scenes])


@app.command()
def evaluate(
    checkpoint: CheckpointArgument,
    data: Annotated[list[Path], typer.Argument(help="The scene folders that it was trained on.")],
    protocol: Annotated[str, typer.Option(metavar="indoors|kitti", help="Which depths count.")] = "indoors",
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write report.html there.")] = None,
    unseen: Annotated[
        list[Path] | None, typer.Option(metavar="SCENE", help="Show depth of that place in the report, too.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Compare depth, odometry and relocalization with the truth on frames that training did not see."""
    from ofvl_core.collaborative.evaluation import evaluate as run
    from ofvl_core.collaborative.evaluation import look_at
    from ofvl_core.collaborative.report import TABLES, write_report
    from ofvl_core.depth_metrics import protocol_named

    chosen = protocol_named(protocol)
    estimator = Estimator(checkpoint, device)
    scenes = [held_out(load_scene(path)) for path in find_scenes(data)]
    for scene in scenes:
        estimator.manifest.scene(scene.name)
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=None)
        evaluations = [run(estimator, scene, chosen, lambda: bar.advance(task)) for scene in scenes]
    summaries = [evaluation.summary() for evaluation in evaluations]
    if json != "-":
        for title, make in TABLES.items():
            headings, rows = make(summaries)
            if rows:
                stdout.print(f"[bold]{title}[/]")
                print_rows(headings, rows)
    if json is not None:
        emit_json({"checkpoint": str(checkpoint), "scenes": summaries}, json)
    if report is not None:
        strangers = []
        for place in [load_scene(path) for path in find_scenes(unseen or [])]:
            frames = [frame for split in place.splits.values() for frame in split]
            strangers += [
                look_at(estimator, place, frame, estimator.scenes[0])
                for frame in frames[:: len(frames) // 3 + 1]
            ]
        page = write_report(report, f"{checkpoint.name} on held-out frames", "", evaluations, strangers)
        stderr.print(f"report: {page}", soft_wrap=True)


@app.command()
def run(
    checkpoint: CheckpointArgument,
    data: Annotated[Path, typer.Argument(help="A scene folder, or a folder of images of one video.")],
    out: Annotated[Path, typer.Option(help="New folder for depth images and trajectories.")],
    scene: Annotated[str | None, typer.Option(help="Scene of the model; else its first.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Write depth, odometry and relocalized poses of a video: of known places and of any other."""
    from ofvl_core.collaborative.replay import replay, shots

    estimator = Estimator(checkpoint, device)
    name = scene or estimator.scenes[0]
    images = shots(data, estimator.manifest.scene(name))
    with progress_bar() as bar:
        task = bar.add_task("estimating", total=len(images))
        replay(estimator, name, images, out, lambda shot, image, estimate: bar.advance(task))
    stderr.print(f"{out}: {len(images)} images", soft_wrap=True)
