"""`ofvl info`: what a checkpoint or a named model is made of."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from ofvl_core.checkpoint import Manifest, TrainingRecord, load_manifest, load_model
from ofvl_core.cli.console import JsonOption, emit_json, stdout
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.files import atomic_path
from ofvl_core.keyframes import focal_words
from ofvl_core.network import ARCHITECTURES, OFVLMS
from ofvl_core.network.parameters import count_parameters
from ofvl_core.sharing_history import layer_histories, plot_sharing, readable_name

PICTURES = (".png", ".svg")


def info(
    what: Annotated[
        str, typer.Argument(metavar="CHECKPOINT|MODEL", help=f"A folder or {', '.join(ARCHITECTURES)}.")
    ],
    json: JsonOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|.svg", help="Draw what each layer shared over the joint training."),
    ] = None,
) -> None:
    """Show scenes, parameters shared and specific by layer, intrinsics and the training record."""
    if plot is not None and plot.suffix not in PICTURES:
        raise ConfigError(f"--plot {plot} is no picture; give it the suffix {' or '.join(PICTURES)}")
    if what in ARCHITECTURES:
        manifest = None
        model = OFVLMS(ARCHITECTURES[what], ["scene"])
    else:
        manifest = load_manifest(Path(what))
        model = load_model(Path(what), manifest, torch.device("cpu"))
    sharing = None if manifest is None else _sharing_record(manifest)
    if plot is not None:
        if sharing is None:
            raise CheckpointError(
                f"{what}: records no scores over training; plot a checkpoint whose scored layers were trained"
            )
        _plot(model, sharing, plot)
    content = _describe(what, model, manifest, sharing)
    if json is not None:
        emit_json(content, json)
    if json != "-":
        _print(content)


def _sharing_record(manifest: Manifest) -> TrainingRecord | None:
    """The latest training that decided what is shared."""
    return next((record for record in reversed(manifest.trainings) if record.sharing), None)


def _plot(model: OFVLMS, record: TrainingRecord, path: Path) -> None:
    sizes = [layer.size for layer in model.scored_layers.values()]
    figure = plot_sharing(list(model.scored_layers), sizes, record.sharing, record.history, record.scenes)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _describe(
    what: str, model: OFVLMS, manifest: Manifest | None, sharing: TrainingRecord | None
) -> dict[str, Any]:
    counts = count_parameters(model)._asdict()
    if manifest is None:  # sharing is decided in training
        counts = {
            name: counts[name] for name in ("backbone_convolutions", "normalisation", "attention", "head")
        } | {"single_scene": counts["single_scene"]}
    content: dict[str, Any] = {
        "model": what if manifest is None else manifest.architecture.name,
        "architecture": model.architecture.model_dump(),
        "parameters": counts,
        "layers": [
            {"name": name, "parameters": layer.size}
            | ({} if manifest is None else {"score": layer.score.item(), "shared": layer.is_shared})
            for name, layer in model.scored_layers.items()
        ],
    }
    if manifest is not None:
        content["scenes"] = [
            scene.model_dump() | {"calibration": manifest.calibration(scene.name).model_dump()}
            for scene in manifest.scenes
        ]
        content["trainings"] = [record.model_dump() for record in manifest.trainings]
        content["written_by"] = manifest.written_by
    if sharing is not None:
        for layer, history in zip(content["layers"], layer_histories(sharing.sharing), strict=True):
            layer |= history._asdict()
    return content


def _print(content: dict[str, Any]) -> None:
    stdout.print(f"[bold]{content['model']}[/]")
    for name, count in content["parameters"].items():
        stdout.print(f"  {name.replace('_', ' '):24}{count:>14,}", highlight=False)
    if content["layers"]:
        stdout.print(_layer_table(content["layers"]))
    else:
        stdout.print("all scenes share every convolution and normalisation of the backbone")
    if "scenes" not in content:
        return
    for scene in content["scenes"]:
        camera = scene["camera"]
        borrowed = f", convolutions of {scene['shares_with']}" if scene["shares_with"] else ""
        stdout.print(
            f"scene {scene['name']}: {scene['frames']} frames of {camera['width']}x{camera['height']}, "
            f"fx {camera['fx']:g} fy {camera['fy']:g} cx {camera['cx']:g} cy {camera['cy']:g}{borrowed}",
            highlight=False,
        )
        stdout.print(f"  {_calibration(scene['calibration'])}", highlight=False, soft_wrap=True)
        kept = scene["keyframes"]
        words = (
            f"{kept['count']} keyframes refine its poses{focal_words(kept['focal_scale'])}"
            if kept
            else "no keyframes: ofvl keyframes adds some"
        )
        stdout.print(f"  {words}{_refined(scene['calibration'])}", highlight=False, soft_wrap=True)
    for training in content["trainings"]:
        ending = "finished" if training["finished"] else "not finished: --resume continues it"
        stdout.print(
            f"training of {', '.join(training['scenes'])}: {training['iteration']} iterations in "
            f"{training['seconds']:.0f} s, {ending}",
            highlight=False,
        )


def _calibration(calibration: dict[str, Any]) -> str:
    if not calibration["frames"]:
        return "covariances are not calibrated: ofvl calibrate does it"
    return (
        f"covariances times {calibration['inflation']:.2f}: {calibration['within_95']:.0%} of the poses of "
        f"{calibration['frames']} unseen frames are within 95 %"
    )


def _refined(calibration: dict[str, Any]) -> str:
    if not calibration["refined"]:
        return ""
    return ", covariances times {inflation:.2f}: {within_95:.0%} of {poses} are within 95 %".format(
        **calibration["refined"]
    )


def _layer_table(layers: list[dict[str, Any]]) -> Table:
    columns = {
        "score": lambda layer: f"{layer['score']:.2f}",
        "shared": lambda layer: "shared" if layer["shared"] else "specific",
        "flips": lambda layer: str(layer["flips"]),
        "since": lambda layer: str(layer["since"]) if layer["flips"] else "start",
    }
    known = {key: cell for key, cell in columns.items() if key in layers[0]}
    table = Table("layer", "parameters", *("state" if key == "shared" else key for key in known))
    for layer in layers:
        cells = [cell(layer) for cell in known.values()]
        table.add_row(readable_name(layer["name"]), f"{layer['parameters']:,}", *cells)
    return table
