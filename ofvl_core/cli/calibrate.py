"""`ofvl calibrate`: how far to trust a checkpoint's covariances, by frames that training has not seen."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ofvl_core.calibration import Calibration, calibrated
from ofvl_core.checkpoint import keep_result, load_folder
from ofvl_core.cli.console import DeviceOption, JsonOption, emit_json, progress_bar, stdout
from ofvl_core.cli.evaluate import as_trained
from ofvl_core.datasets import find_scenes
from ofvl_core.localizer import Localizer


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint, which takes the result.")],
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    split: Annotated[str, typer.Option(metavar="test|train")] = "test",
    json: JsonOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Calibrate the covariances of poses on frames that training has not seen.

    This replaces what training found by the frames it held out. Scenes of which few frames have a pose are
    calibrated together with those that they were trained with.
    """
    manifest = load_folder(checkpoint, "calibrate")
    scenes = [as_trained(path, manifest) for path in find_scenes(data)]
    with progress_bar() as bar:
        task = bar.add_task("localizing", total=sum(len(scene.frames(split)) for scene in scenes))
        found = calibrated(Localizer(checkpoint, device), scenes, split, lambda: bar.advance(task))
    keep_result(checkpoint, manifest, found)
    in_force: dict[Calibration, list[str]] = {}
    for scene in scenes:
        in_force.setdefault(found.calibration(scene.name), []).append(scene.name)
    if json is not None:
        emit_json(
            [{"scenes": names} | calibration.model_dump() for calibration, names in in_force.items()], json
        )
    if json != "-":
        table = Table("scenes", "poses of frames", "inflation", "within 95 %", box=None)
        for calibration, names in in_force.items():
            table.add_row(
                ", ".join(names),
                f"{calibration.poses} of {calibration.frames}",
                f"{calibration.inflation:.2f}",
                f"{calibration.within_95:.1%}",
            )
        stdout.print(table)
