"""`ofvl train`: one model for several scenes."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.checkpoint import load_manifest
from ofvl_core.checkpoint_folder import RunRecord
from ofvl_core.cli.console import DeviceOption, progress_bar, stderr
from ofvl_core.cli.settings import ConfigOption, PresetOption, SetOption, layers
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.device import choose_device
from ofvl_core.network import ARCHITECTURES
from ofvl_core.training.config import AUGMENTATIONS, make_config
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train as run
from ofvl_core.training.workers import worker_rank

STOPPED = 130
"""Exit status of a run that was interrupted, as the shell uses for SIGINT."""


CacheOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep decoded frames there: less memory, and later runs start at once."),
]
MonitorOption = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write curves and pictures there.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in --out with its settings.")]
LongerOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out with its settings; more --iterations or --max-minutes lengthen it.",
    ),
]


def train(
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    preset: PresetOption = None,
    config: ConfigOption = None,
    model: Annotated[str | None, typer.Option(help=f"One of {', '.join(ARCHITECTURES)}.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps; each sees a batch of every scene.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Finish the schedule by then at the latest.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a scene in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the cosine schedule.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(metavar="|".join(AUGMENTATIONS), help="robot: a camera that stays level learns faster."),
    ] = None,
    changes: SetOption = None,
    cache: CacheOption = None,
    monitor: MonitorOption = None,
    device: DeviceOption = "auto",
    resume: LongerOption = False,
) -> None:
    """Train one OFVL-MS model jointly on all given scenes. Ctrl-C stops it so that --resume continues.

    Settings are taken from the preset, changed by the file, then by single options. Under torchrun
    (torchrun --nproc-per-node 2 -m ofvl_core train ...) the processes share the work.
    """
    given = layers(
        preset,
        config,
        changes,
        network=model,
        iterations=iterations,
        max_minutes=max_minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        augmentation=augmentation,
    )
    before = load_manifest(out).training.config.model_dump() if resume else {}
    settings = make_config(before, *given)
    scenes = [load_scene(path, settings.register_depth) for path in find_scenes(data)]
    chosen = choose_device(device)
    with TrainingProgress([scene.name for scene in scenes], settings.iterations) as progress:
        surroundings = Surroundings(chosen, cache, monitor, progress.on_load, progress.on_step)
        run(scenes, settings, out, surroundings, resume=resume)
    conclude_training(out)


class TrainingProgress:
    """Bars for loading and training, shown by worker 0 only; `losses` are the names of a step's."""

    def __init__(self, losses: list[str], iterations: int):
        self._losses = losses
        self._bar = progress_bar(hidden=worker_rank() > 0)
        self._loading = self._bar.add_task("loading frames", total=None)
        self._training = self._bar.add_task("training", total=iterations, visible=False)

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def on_load(self, done: int, total: int) -> None:
        self._bar.update(self._loading, completed=done, total=total)

    def on_step(self, iteration: int, losses: list[float]) -> None:
        shown = " ".join(f"{name} {loss:.2f}" for name, loss in zip(self._losses, losses, strict=True))
        self._bar.update(self._loading, visible=False)
        self._bar.update(self._training, completed=iteration, visible=True, description=f"loss {shown}")


def conclude(out: Path, record: RunRecord, iterations: int, scenes: list[str]) -> None:
    """Say how a run of so many iterations ended; exit with STOPPED when it was interrupted."""
    if worker_rank() > 0:
        return
    if not record.finished:
        stderr.print(f"stopped at iteration {record.iteration} of {iterations}; continue with --resume")
        raise typer.Exit(STOPPED)
    stderr.print(
        f"{out}: trained {', '.join(scenes)} for {record.iteration} iterations "
        f"in {record.seconds / 60:.1f} min",
        soft_wrap=True,
    )


def conclude_training(out: Path) -> None:
    """`conclude` the latest training of an OFVL-MS checkpoint."""
    record = load_manifest(out).training
    conclude(out, record, record.config.iterations, record.scenes)
