"""What a checkpoint of OFVL-MS says beside its tensors, and how the model is made of both.

Where a checkpoint is read, a deployment file may stand for the folder (`checkpoint_folder`).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ofvl_core import checkpoint_folder, deployment
from ofvl_core.calibration import UNCALIBRATED, Calibration
from ofvl_core.checkpoint_folder import (
    FolderManifest,
    Record,
    RunRecord,
    TensorFile,
    find_scene,
    parse_manifest,
    read_manifest,
    read_tensors,
    read_weights,
    readable,
    save_folder,
    save_manifest,
    write_tensors,
)
from ofvl_core.device import place
from ofvl_core.engines.int8 import Quantisation
from ofvl_core.errors import CheckpointError, OfvlError
from ofvl_core.keyframes import Album
from ofvl_core.network import OFVLMS, Architecture
from ofvl_core.training.config import TrainConfig


class KeyframesRecord(Record):
    """How many keyframes a scene has, and the tensor file that holds them.

    They show `focal_scale` times the focal length that the scene's camera is said to have.
    """

    count: int
    file: TensorFile
    focal_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class SceneRecord(checkpoint_folder.SceneRecord):
    """A scene of the model.

    `shares_with` is the scene whose specific convolutions it uses, where it has none of its own;
    `register_depth` how its data were read, which decides whose pose is meant (see the setting);
    `quantisation` how its network computes in int8, None where it has not been prepared for that;
    `calibration` is of its own frames, None where those that no training saw were few; `keyframes` refine its
    poses, None where it has none.
    """

    shares_with: str | None = None
    register_depth: bool = True
    quantisation: Quantisation | None = None
    calibration: Calibration | None = None
    keyframes: KeyframesRecord | None = None

    def unprepared(self) -> "SceneRecord":
        """What training noted of the scene."""
        return self.model_copy(update={"quantisation": None, "calibration": None, "keyframes": None})


class TrainingRecord(RunRecord):
    """One training, of all scenes jointly or of one added later, and how far it went.

    `history` holds [iteration, loss of each of `scenes`], `sharing` [iteration, score of each scored layer
    from input to output]; `gradient_state` is what combining gradients continues from (Eq. 7);
    `calibration` is of frames of all its scenes that it did not see, None when it saw all.
    """

    scenes: list[str]
    config: TrainConfig
    gradient_state: list[float] = Field(default_factory=list)
    sharing: list[list[float]] = Field(default_factory=list)
    calibration: Calibration | None = None

    @property
    def identity(self) -> "TrainingRecord":
        """What tells trainings apart: deployment files keep no histories, and calibrations come later too."""
        return self.model_copy(update={"history": [], "sharing": [], "calibration": None})


class Manifest(FolderManifest):
    """Everything about a checkpoint but its tensors.

    `gates` says of a compact model, which keeps only what is in use, whether each scored layer is shared.
    """

    command = "ofvl train"

    format: Literal["ofvl-checkpoint"] = "ofvl-checkpoint"
    version: Literal[2] = 2
    architecture: Architecture
    scenes: Annotated[list[SceneRecord], Field(min_length=1)]
    trainings: Annotated[list[TrainingRecord], Field(min_length=1)]
    gates: dict[str, bool] | None = None

    @property
    def tensor_files(self) -> set[str]:
        """The tensor files that belong to the checkpoint."""
        albums = {scene.keyframes.file for scene in self.scenes if scene.keyframes is not None}
        return super().tensor_files | albums

    @property
    def training(self) -> TrainingRecord:
        """The latest training: the one that `--resume` continues."""
        return self.trainings[-1]

    def scene(self, name: str) -> SceneRecord:
        """The record of a scene. Raises CheckpointError naming the scenes there are."""
        return find_scene(self.scenes, name)

    def calibration(self, scene: str) -> Calibration:
        """A scene's own, else that of its latest training that has one; `UNCALIBRATED` where none has."""
        own = self.scene(scene).calibration
        if own is not None:
            return own
        for training in reversed(self.trainings):
            if scene in training.scenes and training.calibration is not None:
                return training.calibration
        return UNCALIBRATED


Albums = Mapping[str, Album]
"""The keyframes of scenes, by the scene's name."""


def save_checkpoint(
    folder: Path,
    manifest: Manifest,
    model: OFVLMS,
    optimizer: dict[str, Tensor] | None = None,
    albums: Albums = MappingProxyType({}),
) -> None:
    """Write a checkpoint into `folder`, replacing the one there. `optimizer` is needed only to resume.

    `albums` are the keyframes of scenes whose records are not to name those that are in `folder` already.
    """
    save_folder(folder, _with_albums(folder, manifest, albums), model.state_dict(), optimizer)


def save_keyframes(folder: Path, before: Manifest, albums: Albums) -> Manifest:
    """Give scenes of the checkpoint in `folder` keyframes, in place of those that they have.

    Returns what its manifest, `before`, becomes. Raises CheckpointError when the checkpoint has changed
    meanwhile.
    """
    after = _with_albums(folder, before, albums)
    keep_result(folder, before, after)
    return after


def _with_albums(folder: Path, manifest: Manifest, albums: Albums) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    scenes = list(manifest.scenes)
    for number, scene in enumerate(scenes):
        if scene.name in albums:
            album = albums[scene.name]
            file = write_tensors(folder, "keyframes", album.tensors())
            kept = KeyframesRecord(count=len(album), file=file, focal_scale=album.focal_scale)
            scenes[number] = scene.model_copy(update={"keyframes": kept})
    return manifest.model_copy(update={"scenes": scenes})


def save_deployment(
    path: Path,
    manifest: Manifest,
    model: OFVLMS,
    half: bool = False,
    albums: Albums = MappingProxyType({}),
) -> None:
    """Make `model` compact and write it and keyframes of its scenes to one file; see `write_deployment`."""
    model.compact()
    trainings = [record.model_copy(update={"history": [], "sharing": []}) for record in manifest.trainings]
    gates = {name: layer.is_shared for name, layer in model.scored_layers.items()}
    written = manifest.model_copy(
        update={
            "scenes": [
                scene if scene.name in albums else scene.model_copy(update={"keyframes": None})
                for scene in manifest.scenes
            ],
            "trainings": trainings,
            "gates": gates,
            "weights": None,
            "optimizer": None,
        }
    )
    content = {name: album.tensors() for name, album in albums.items()}
    deployment.write_deployment(path, written.model_dump_json(), model, content, half)


def load_manifest(path: Path) -> Manifest:
    """Read the manifest of a checkpoint folder or a deployment file.

    Raises CheckpointError when there is none or it makes no sense.
    """
    with readable(path):
        if path.is_file():
            return parse_manifest(deployment.read_manifest(path), Manifest, path)
    return read_manifest(path, Manifest)


def load_keyframes(path: Path, manifest: Manifest) -> dict[str, Album]:
    """The keyframes of those scenes of a checkpoint folder or a deployment file that have some.

    Raises CheckpointError when they are damaged.
    """
    having = [(scene, scene.keyframes) for scene in manifest.scenes if scene.keyframes is not None]
    if path.is_file():
        tensors = deployment.read_keyframes(path) if having else {}
    else:
        tensors = {scene.name: read_tensors(path / kept.file) for scene, kept in having}
    try:
        return {
            scene.name: Album.from_tensors(tensors[scene.name], scene.camera, kept.focal_scale)
            for scene, kept in having
        }
    except (KeyError, ValueError, TypeError, RuntimeError):
        raise CheckpointError(f"{path}: keyframes do not fit the manifest; train again") from None


def load_model(path: Path, manifest: Manifest, device: torch.device) -> OFVLMS:
    """The model of a checkpoint folder or a deployment file, in evaluation mode.

    Raises CheckpointError when its weights are damaged.
    """
    model = _read_model(path, manifest)  # what it read is gone before the model is laid out anew
    place(model, device)
    return model.eval()


def _read_model(path: Path, manifest: Manifest) -> OFVLMS:
    tensors = deployment.read_tensors(path) if path.is_file() else read_weights(path, manifest)
    try:
        return assemble(manifest, tensors)
    except (RuntimeError, ValueError, ArithmeticError, OfvlError):
        raise CheckpointError(f"{path}: weights do not fit the manifest; train again") from None


def assemble(manifest: Manifest, tensors: Mapping[str, Tensor]) -> OFVLMS:
    """The model that a manifest describes, with `tensors` for its state.

    A compact one allocates nothing else. Raises RuntimeError, ValueError, ArithmeticError or ConfigError when
    the two do not fit, before a manifest from strangers makes it build more than there is.
    """
    owners = {scene.name: scene.shares_with for scene in manifest.scenes if scene.shares_with}
    scenes = [scene.name for scene in manifest.scenes]
    if sum(manifest.architecture.depths) + len(scenes) > len(tensors):
        raise ValueError("more blocks or scenes than tensors")
    if manifest.gates is None:
        model = OFVLMS(manifest.architecture, scenes, owners)
        model.load_state_dict(tensors)
        return model
    with torch.device("meta"):
        model = OFVLMS(manifest.architecture, scenes, owners, manifest.gates)
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    whole = {name: tensor.to(kinds.get(name, tensor.dtype)) for name, tensor in tensors.items()}
    model.load_state_dict(whole, assign=True)
    return model


def load_folder(path: Path, verb: str) -> Manifest:
    """The manifest of a finished checkpoint whose folder is to take a result: what `verb` says is done to it.

    Raises CheckpointError for a deployment file, and when the latest training was interrupted.
    """
    require_folder(path, verb)
    manifest = load_manifest(path)
    require_finished(path, manifest)
    return manifest


def require_folder(path: Path, verb: str) -> None:
    """Raises CheckpointError for a deployment file, of which nothing can be changed: what `verb` says."""
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file, and deployment files stay as they are; {verb} the folder that it was made of "
            "and run ofvl deploy again"
        )


def keep_result(folder: Path, before: Manifest, after: Manifest) -> None:
    """Replace the manifest `before` of the checkpoint in `folder` by the one that a measurement made of it.

    Raises CheckpointError when the checkpoint has changed meanwhile, by training, say.
    """
    if load_manifest(folder) != before:
        raise CheckpointError(f"{folder} was changed meanwhile by another program; run this again")
    save_manifest(folder, after)


def require_finished(path: Path, manifest: Manifest) -> None:
    """Raises CheckpointError when the latest training of the checkpoint was interrupted."""
    if not manifest.training.finished:
        names = ", ".join(manifest.training.scenes)
        raise CheckpointError(f"{path}: the training of {names} is not finished; continue it with --resume")
