"""`ofvl deploy`: all scenes of a model in one file that holds nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from ofvl_core.checkpoint import (
    load_keyframes,
    load_manifest,
    load_model,
    require_finished,
    save_deployment,
)
from ofvl_core.cli.console import JsonOption, emit_json, stdout
from ofvl_core.cli.scenes import CheckpointArgument
from ofvl_core.deployment import PARTS, WEIGHTS, Share, measure_deployment
from ofvl_core.network.parameters import ParameterCount, count_parameters


def deploy(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file, NAME.safetensors; replaced if there.")],
    half: Annotated[
        bool, typer.Option("--half", help="Store weights in half precision; computing stays in single.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Write all scenes of a model to one file, shared weights once, and say what its parts take.

    Every command that reads a checkpoint reads the file too, and so does the localizer node.
    """
    manifest = load_manifest(checkpoint)
    require_finished(checkpoint, manifest)
    model = load_model(checkpoint, manifest, torch.device("cpu"))
    save_deployment(out, manifest, model, half, load_keyframes(checkpoint, manifest))
    parts = measure_deployment(out, model)
    counts = count_parameters(model)
    if json is not None:
        content = {
            "file": str(out),
            "scenes": model.scenes,
            "parts": {name: share._asdict() for name, share in parts.items()},
            "bytes": out.stat().st_size,
            "single_scene": counts.single_scene,
            "per_scene": counts.per_scene,
            "specific_convolutions": counts.specific_convolutions,
            "borrowers": len(model.owners),
        }
        emit_json(content, json)
    if json != "-":
        stdout.print(_table(parts))
        stdout.print(_rule(counts, len(model.scenes), len(model.owners)), highlight=False, soft_wrap=True)


def _table(parts: dict[str, Share]) -> Table:
    table = Table("part")
    for heading in ("numbers", "bytes"):
        table.add_column(heading, justify="right")

    def add(heading: str, names: Sequence[str], last: bool = False) -> None:
        numbers, size = (sum(column) for column in zip(*(parts[name] for name in names), strict=True))
        table.add_row(heading, f"{numbers:,}", f"{size:,}", end_section=last)

    for name in WEIGHTS:
        add(name, [name], last=name == WEIGHTS[-1])
    add("weights and biases", WEIGHTS, last=True)
    others = [name for name in PARTS if name not in WEIGHTS]
    for name in others:
        add(name, [name], last=name == others[-1])
    add("file", PARTS)
    return table


def _rule(counts: ParameterCount, scenes: int, borrowers: int) -> str:
    """How the weights and biases add up."""
    rule = f"{counts.single_scene:,} of one scene + {scenes - 1} x {counts.per_scene:,} of another"
    if borrowers:
        rule += f" - {borrowers} x {counts.specific_convolutions:,} of convolutions used with another scene"
    return f"{rule} = {counts.total:,} weights and biases"
