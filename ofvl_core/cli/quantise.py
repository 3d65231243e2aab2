"""`ofvl quantise`: scenes of a checkpoint prepared for OpenVINO in int8, where their poses stay as good."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.checkpoint import keep_result, load_folder
from ofvl_core.cli.console import JsonOption, emit_json, print_rows, progress_bar
from ofvl_core.cli.evaluate import as_trained
from ofvl_core.datasets import find_scenes
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.evaluation import as_held_out
from ofvl_core.quantisation import quantised


def quantise(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint, which takes the result.")],
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    json: JsonOption = None,
) -> None:
    """Prepare scenes for the engine openvino-int8: several times faster on a CPU than torch.

    Ranges are measured on training images. Frames that training held out decide: where the median error of
    their poses grows by more than 5 %, nothing is kept.
    """
    manifest = load_folder(checkpoint, "quantise")
    scenes = [as_held_out(as_trained(path, manifest), manifest) for path in find_scenes(data)]
    with progress_bar() as bar:
        task = bar.add_task("localizing", total=2 * sum(len(scene.splits[HOLDOUT]) for scene in scenes))
        found = quantised(checkpoint, scenes, lambda: bar.advance(task))
    keep_result(checkpoint, manifest, found)
    records = [found.scene(scene.name) for scene in scenes]
    rows = [(record.name, record.quantisation) for record in records if record.quantisation is not None]
    if json is not None:
        emit_json([{"scene": name} | kept.model_dump(exclude={"ranges"}) for name, kept in rows], json)
    if json != "-":
        headings = ["scene", "held-out frames", "float32", "int8"]
        errors = [(kept.float32, kept.int8) for _, kept in rows]
        print_rows(
            headings,
            [
                [
                    name,
                    str(kept.frames),
                    *(f"{100 * metres:.2f} cm, {degrees:.2f} deg" for metres, degrees in pair),
                ]
                for (name, kept), pair in zip(rows, errors, strict=True)
            ],
        )
