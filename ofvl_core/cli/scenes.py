"""`ofvl add-scene`, `remove-scene` and `merge`: which scenes a trained model holds."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core import scenes as model_scenes
from ofvl_core.checkpoint import load_manifest
from ofvl_core.cli.console import DeviceOption, stderr
from ofvl_core.cli.settings import ConfigOption, PresetOption, SetOption, layers
from ofvl_core.cli.train import CacheOption, LongerOption, MonitorOption, TrainingProgress, conclude_training
from ofvl_core.datasets import load_scene
from ofvl_core.device import choose_device
from ofvl_core.pretrained import is_pretrained, pretrained
from ofvl_core.training.add_scene import add_scene as run
from ofvl_core.training.config import make_config
from ofvl_core.training.loop import Surroundings

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Folder of a checkpoint, or a deployment file.")
]
NewOption = Annotated[Path, typer.Option(metavar="NEW", help="Folder of the new checkpoint.")]


def add_scene(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder of a checkpoint, a deployment file, or `pretrained` for the model of this package.",
        ),
    ],
    scene: Annotated[Path, typer.Argument(metavar="SCENE", help="Folder of the new scene.")],
    out: NewOption,
    share_with: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use that scene's specific convolutions, without a copy."),
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    iterations: Annotated[int | None, typer.Option(help="Steps.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Finish the schedule by then at the latest.")
    ] = None,
    changes: SetOption = None,
    cache: CacheOption = None,
    monitor: MonitorOption = None,
    device: DeviceOption = "auto",
    resume: LongerOption = False,
) -> None:
    """Add a scene to a trained model, whose other scenes stay as they are, bit by bit.

    The new scene starts like the old one that its images resemble most. Settings are those of the latest
    training, changed by the options. `pretrained`, where no file or folder has that name, is a model of rooms
    that stay out of the new one; its settings are the defaults.
    """
    alone = is_pretrained(checkpoint)
    if alone:
        checkpoint = pretrained()
    base = load_manifest(out if resume else checkpoint)
    before = base.training.config.model_dump()
    if alone and not resume:
        before = {"network": base.architecture.model_dump()}
    given = layers(preset, config, changes, iterations=iterations, max_minutes=max_minutes)
    settings = make_config(before, *given)
    data = load_scene(scene, settings.register_depth)
    chosen = choose_device(device)
    with TrainingProgress([data.name], settings.iterations) as progress:
        surroundings = Surroundings(chosen, cache, monitor, progress.on_load, progress.on_step)
        run(checkpoint, data, settings, out, surroundings, share_with=share_with, alone=alone, resume=resume)
    conclude_training(out)


def remove_scene(
    checkpoint: CheckpointArgument,
    scenes: Annotated[list[str], typer.Argument(metavar="SCENE...", help="Names of the scenes that go.")],
    out: NewOption,
) -> None:
    """Leave scenes out of a trained model; the others stay as they are, bit by bit."""
    model_scenes.remove_scenes(checkpoint, scenes, out)
    _tell(out)


def merge(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT...", help="Folders of checkpoints, or deployment files."),
    ],
    out: NewOption,
) -> None:
    """Make one model of several that grew from the same one, each by scenes of its own."""
    model_scenes.merge(checkpoints, out)
    _tell(out)


def _tell(out: Path) -> None:
    names = ", ".join(scene.name for scene in load_manifest(out).scenes)
    stderr.print(f"{out}: holds {names}", soft_wrap=True)
