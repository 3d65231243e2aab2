"""`ofvl train`: one model for several scenes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ofvl_core.checkpoint import load_manifest
from ofvl_core.cli.console import DeviceOption, progress_bar, stderr
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.device import choose_device
from ofvl_core.errors import ConfigError
from ofvl_core.network import ARCHITECTURES
from ofvl_core.training.config import AUGMENTATIONS, TrainConfig
from ofvl_core.training.trainer import train as run

STOPPED = 130
"""Exit status of a run that was interrupted, as the shell uses for SIGINT."""


def train(
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    model: Annotated[str | None, typer.Option(help=f"One of {', '.join(ARCHITECTURES)}.")] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Steps; each sees a batch of every scene.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Finish the schedule by then at the latest.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a scene in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the cosine schedule.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(metavar="paper|robot", help="robot: a camera that stays level learns faster."),
    ] = None,
    device: DeviceOption = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with its settings.")
    ] = False,
) -> None:
    """Train one OFVL-MS model jointly on all given scenes. Ctrl-C stops it so that --resume continues."""
    given: dict[str, Any] = {
        "model": model,
        "iterations": iterations,
        "max_minutes": max_minutes,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    if augmentation is not None:
        if augmentation not in AUGMENTATIONS:
            raise ConfigError(
                f"unknown augmentation '{augmentation}'; choose one of {', '.join(AUGMENTATIONS)}"
            )
        given["augmentation"] = AUGMENTATIONS[augmentation]
    given = {name: value for name, value in given.items() if value is not None}
    if model is not None and model not in ARCHITECTURES:
        raise ConfigError(f"unknown model '{model}'; choose one of {', '.join(ARCHITECTURES)}")
    before = load_manifest(out).training.config.model_dump() if resume else {}
    try:
        config = TrainConfig(**{**before, **given})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ConfigError(
            f"--{str(wrong['loc'][0]).replace('_', '-')}: {wrong['msg'].lower()}; correct it"
        ) from None
    scenes = [load_scene(path) for path in find_scenes(data)]
    chosen = choose_device(device)

    with progress_bar() as bar:
        loading = bar.add_task("loading frames", total=sum(len(scene.frames("train")) for scene in scenes))
        training = bar.add_task("training", total=config.iterations, visible=False)

        def on_step(iteration: int, losses: list[float]) -> None:
            shown = " ".join(f"{scene.name} {loss:.2f}" for scene, loss in zip(scenes, losses, strict=True))
            bar.update(loading, visible=False)
            bar.update(training, completed=iteration, visible=True, description=f"loss {shown}")

        finished = run(
            scenes,
            config,
            out,
            device=chosen,
            resume=resume,
            on_load=lambda: bar.advance(loading),
            on_step=on_step,
        )
    done = load_manifest(out).training
    if not finished:
        stderr.print(f"stopped at iteration {done.iteration} of {config.iterations}; continue with --resume")
        raise typer.Exit(STOPPED)
    stderr.print(
        f"{out}: {len(scenes)} scenes, {done.iteration} iterations, {done.seconds / 60:.1f} min on {chosen}"
    )
