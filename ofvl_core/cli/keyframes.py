"""`ofvl keyframes`: gives scenes of a model that has none, or others, the keyframes that refine its poses."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.calibration import calibrated
from ofvl_core.checkpoint import keep_result, load_folder, save_keyframes
from ofvl_core.cli.console import DeviceOption, progress_bar, stderr
from ofvl_core.cli.evaluate import as_trained
from ofvl_core.datasets import find_scenes
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.errors import DataError
from ofvl_core.evaluation import as_held_out
from ofvl_core.keyframes import Album, focal_words, remember
from ofvl_core.keyframes.album import KEPT
from ofvl_core.localizer import Localizer
from ofvl_core.training.config import TrainConfig

USUAL = TrainConfig.model_fields["keyframes"].default


def keyframes(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint, which takes the result.")],
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    most: Annotated[int, typer.Option(min=1, max=KEPT, help="Keyframes a scene, at most.")] = USUAL,
    device: DeviceOption = "auto",
) -> None:
    """Remember training frames of scenes, by which poses are refined, and calibrate the covariances anew.

    `ofvl train` and `ofvl add-scene` do so by themselves; this is for models of before.
    """
    manifest = load_folder(checkpoint, "give keyframes to")
    scenes = [as_held_out(as_trained(path, manifest), manifest) for path in find_scenes(data)]
    with progress_bar() as bar:
        task = bar.add_task("looking at frames", total=None)
        albums: dict[str, Album] = {}
        for scene in scenes:
            album = remember(scene, most, lambda: bar.advance(task))
            if album is None:
                raise DataError(
                    f"{scene.root}: no frame has enough corners of known depth to be a keyframe; record "
                    "depth, and more light"
                )
            albums[scene.name] = album
        manifest = save_keyframes(checkpoint, manifest, albums)
        holding = [scene for scene in scenes if scene.splits[HOLDOUT]]
        task = bar.add_task("calibrating", total=sum(len(scene.splits[HOLDOUT]) for scene in holding))
        try:
            if not holding:
                raise DataError("training held out no frames; `ofvl calibrate` takes others")
            found = calibrated(Localizer(checkpoint, device), holding, HOLDOUT, lambda: bar.advance(task))
        except DataError as error:
            stderr.print(f"covariances are as they were: {error}", soft_wrap=True)
        else:
            keep_result(checkpoint, manifest, found)
    for name, album in albums.items():
        words = f"{name}: {len(album)} keyframes of {album.size / 1e6:.1f} MB{focal_words(album.focal_scale)}"
        stderr.print(words, soft_wrap=True)
