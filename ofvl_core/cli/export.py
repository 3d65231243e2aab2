"""`ofvl export`: scenes' networks as ONNX files, for whoever runs them without this package."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from ofvl_core.checkpoint import load_manifest, load_model, require_finished
from ofvl_core.cli.console import progress_bar, stdout
from ofvl_core.cli.scenes import CheckpointArgument
from ofvl_core.export import export_scene


def export(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="SCENE.onnx is written there.")],
    scene: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Repeat for more; default: every scene.")
    ] = None,
) -> None:
    """Write ONNX files, each a scene's network, checked against PyTorch; their metadata say how to use them.

    They are for other programs; ours run OpenVINO from the checkpoint itself (--engine).
    """
    manifest = load_manifest(checkpoint)
    require_finished(checkpoint, manifest)
    records = [manifest.scene(name) for name in scene] if scene else manifest.scenes
    model = load_model(checkpoint, manifest, torch.device("cpu"))
    with progress_bar() as bar:
        for record in bar.track(records, description="exporting"):
            export_scene(out / f"{record.name}.onnx", model, record)
    for record in records:
        path = out / f"{record.name}.onnx"
        stdout.print(
            f"{path}: {path.stat().st_size:,} bytes, answers as PyTorch does", highlight=False, soft_wrap=True
        )
