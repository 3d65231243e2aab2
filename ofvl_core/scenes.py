"""Scenes leave a trained model, and models that share the same parameters become one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ofvl_core.checkpoint import (
    Manifest,
    assemble,
    load_keyframes,
    load_manifest,
    load_model,
    require_finished,
    save_checkpoint,
)
from ofvl_core.checkpoint_folder import require_empty
from ofvl_core.errors import CheckpointError
from ofvl_core.keyframes import Album
from ofvl_core.network import OFVLMS, Architecture
from ofvl_core.network.sharing import scene_key

_REMEDY = "merge models that grew from the same one"


class _Source(NamedTuple):
    """A checkpoint in memory."""

    path: Path
    manifest: Manifest
    model: OFVLMS
    albums: dict[str, Album]


def remove_scenes(checkpoint: Path, scenes: Sequence[str], out: Path) -> None:
    """Leave the model in `checkpoint`, a folder or a deployment file, without `scenes` in the folder `out`.

    Where other scenes use the convolutions of one that goes, the first of them becomes their owner. The first
    training stays on record, since it made what is shared; a later one goes with the last of its scenes.
    Raises CheckpointError when the checkpoint is unfinished, a scene is not in it or `out` holds something;
    ConfigError when no scene would be left.
    """
    require_empty(out, "choose another --out")
    _, manifest, model, albums = _load(checkpoint)
    for name in dict.fromkeys(scenes):
        manifest.scene(name)
        model.remove_scene(name)
    records = [
        record.model_copy(update={"shares_with": model.owners.get(record.name)})
        for record in manifest.scenes
        if record.name in model.scenes
    ]
    first, *later = manifest.trainings
    trainings = [first, *(record for record in later if not set(record.scenes) <= set(scenes))]
    kept = {record.name: albums[record.name] for record in records if record.name in albums}
    manifest = manifest.model_copy(update={"scenes": records, "trainings": trainings})
    save_checkpoint(out, manifest, model, albums=kept)


def merge(checkpoints: Sequence[Path], out: Path) -> None:
    """Leave one model of all scenes of `checkpoints`, folders or deployment files, in the folder `out`.

    They have to agree bit by bit on what their scenes share, and on the scenes that several of them hold.
    Scenes and trainings come in the order of the checkpoints, each once. The model is compact when one of
    them is. Raises CheckpointError naming the first difference, an unfinished checkpoint, or that `out` holds
    something.
    """
    require_empty(out, "choose another --out")
    sources = [_load(path) for path in checkpoints]
    first = sources[0]
    gates = None
    if any(source.manifest.gates is not None for source in sources):
        gates = _gates(first.model)
        for source in sources:
            source.model.compact()
    manifest = first.manifest.model_copy(update={"scenes": [], "trainings": [], "gates": gates})
    holders: dict[str, _Source] = {}
    tensors: dict[str, Tensor] = {}
    for source in sources:
        _require_same_network(first, source)
        for record in source.manifest.scenes:
            holder = holders.setdefault(record.name, source)
            if holder is source:
                manifest.scenes.append(record)
            elif holder.manifest.scene(record.name).unprepared() != record.unprepared():
                raise _different(record.name, holder, source, "camera, frames or whose convolutions it uses")
            else:
                kept = manifest.scene(record.name)
                kept.calibration = kept.calibration or record.calibration
                kept.quantisation = kept.quantisation or record.quantisation
        for training in source.manifest.trainings:
            known = [one.identity for one in manifest.trainings]
            if training.identity not in known:
                manifest.trainings.append(training)
                continue
            same = manifest.trainings[known.index(training.identity)]
            same.calibration = same.calibration or training.calibration
            same.history, same.sharing = same.history or training.history, same.sharing or training.sharing
        used = source.model.used_tensors()
        for name, tensor in source.model.state_dict().items():
            if not torch.equal(tensors.setdefault(name, tensor), tensor) and name in used:
                scene = next((s for s in holders if scene_key(s) in name.split(".")), None)
                if scene is not None:
                    raise _different(scene, holders[scene], source, f"'{name}'")
                raise CheckpointError(
                    f"{first.path} and {source.path} differ in '{name}', which scenes share; {_REMEDY}"
                )
    albums = {name: album for source in reversed(sources) for name, album in source.albums.items()}
    save_checkpoint(out, manifest, assemble(manifest, tensors), albums=albums)


def _load(path: Path) -> _Source:
    manifest = load_manifest(path)
    require_finished(path, manifest)
    model = load_model(path, manifest, torch.device("cpu"))
    return _Source(path, manifest, model, load_keyframes(path, manifest))


def _require_same_network(one: _Source, other: _Source) -> None:
    mine, theirs = one.manifest.architecture, other.manifest.architecture
    for field in Architecture.model_fields:
        if getattr(mine, field) != getattr(theirs, field):
            raise CheckpointError(
                f"{one.path} and {other.path} are different networks ('{field}' is {getattr(mine, field)} "
                f"and {getattr(theirs, field)}); {_REMEDY}"
            )
    gates = _gates(other.model)
    for name, is_shared in _gates(one.model).items():
        if is_shared != gates[name]:
            raise CheckpointError(
                f"scenes share '{name}' in only one of {one.path} and {other.path}; {_REMEDY}"
            )


def _gates(model: OFVLMS) -> dict[str, bool]:
    return {name: layer.is_shared for name, layer in model.scored_layers.items()}


def _different(scene: str, one: _Source, other: _Source, what: str) -> CheckpointError:
    return CheckpointError(
        f"scene '{scene}' is not the same in {one.path} and {other.path} ({what}); remove it from one of them"
    )
