"""`ofvl info`: what a checkpoint or a named model is made of."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from ofvl_core.checkpoint import Manifest, load_manifest, load_model
from ofvl_core.cli.console import JsonOption, emit_json, stdout
from ofvl_core.network import ARCHITECTURES, OFVLMS
from ofvl_core.network.parameters import count_parameters


def info(
    what: Annotated[
        str, typer.Argument(metavar="CHECKPOINT|MODEL", help=f"A folder or {', '.join(ARCHITECTURES)}.")
    ],
    json: JsonOption = None,
) -> None:
    """Show scenes, parameters shared and specific by layer, intrinsics and the training record."""
    if what in ARCHITECTURES:
        manifest = None
        model = OFVLMS(ARCHITECTURES[what], ["scene"])
    else:
        manifest = load_manifest(Path(what))
        model = load_model(Path(what), manifest, torch.device("cpu"))
    content = _describe(what, model, manifest)
    if json is not None:
        emit_json(content, json)
    if json != "-":
        _print(content)


def _describe(what: str, model: OFVLMS, manifest: Manifest | None) -> dict[str, Any]:
    counts = count_parameters(model)._asdict()
    if manifest is None:  # sharing is decided in training
        counts = {
            name: counts[name] for name in ("backbone_convolutions", "normalisation", "attention", "head")
        } | {"single_scene": counts["single_scene"]}
    content: dict[str, Any] = {
        "model": what if manifest is None else manifest.model,
        "architecture": model.architecture.model_dump(),
        "parameters": counts,
        "layers": [
            {"name": name, "parameters": layer.shared.numel()}
            | ({} if manifest is None else {"score": layer.score.item(), "shared": layer.is_shared})
            for name, layer in model.scored_layers.items()
        ],
    }
    if manifest is not None:
        content["scenes"] = [scene.model_dump() for scene in manifest.scenes]
        content["training"] = manifest.training.model_dump()
        content["written_by"] = manifest.written_by
    return content


def _print(content: dict[str, Any]) -> None:
    stdout.print(f"[bold]{content['model']}[/]")
    for name, count in content["parameters"].items():
        stdout.print(f"  {name.replace('_', ' '):24}{count:>14,}", highlight=False)
    trained = "scenes" in content
    table = Table("layer", "parameters", *(("score", "state") if trained else ()))
    for layer in content["layers"]:
        state = [f"{layer['score']:.2f}", "shared" if layer["shared"] else "specific"] if trained else []
        table.add_row(layer["name"], f"{layer['parameters']:,}", *state)
    stdout.print(table)
    if not trained:
        return
    for scene in content["scenes"]:
        camera = scene["camera"]
        stdout.print(
            f"scene {scene['name']}: {scene['frames']} frames of {camera['width']}x{camera['height']}, "
            f"fx {camera['fx']:g} fy {camera['fy']:g} cx {camera['cx']:g} cy {camera['cy']:g}",
            highlight=False,
        )
    training = content["training"]
    ending = "finished" if training["finished"] else "not finished: ofvl train --resume continues it"
    stdout.print(f"training: {training['iteration']} iterations in {training['seconds']:.0f} s, {ending}")
