"""Checkpoints: a folder with a readable manifest and safetensors files. Loading runs no code from it.

The manifest names its tensor files by the hash of their content. Tensor files are written first and the
manifest last, in one atomic step, so a folder always holds one whole checkpoint: the new or the old.
Where a checkpoint is read, a deployment file may stand for the folder.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ofvl_core import __version__, deployment
from ofvl_core.calibration import UNCALIBRATED, Calibration
from ofvl_core.camera import Camera
from ofvl_core.device import place
from ofvl_core.errors import CheckpointError, OfvlError
from ofvl_core.files import atomic_path, write_text
from ofvl_core.network import OFVLMS, Architecture
from ofvl_core.training.config import TrainConfig

MANIFEST = "manifest.json"

TensorFile = Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]{16}\.safetensors$")]
"""Name of a tensor file beside the manifest: its kind and the hash of its content."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SceneRecord(_Record):
    """A scene of the model: the camera it was trained with and its focal length at the network's input.

    `shares_with` is the scene whose specific convolutions it uses, where it has none of its own;
    `register_depth` how its data were read, which decides whose pose is meant (see the setting).
    """

    name: str
    camera: Camera
    input_focal: float
    frames: int
    shares_with: str | None = None
    register_depth: bool = True


class TrainingRecord(_Record):
    """One training, of all scenes jointly or of one added later, and how far it went.

    `history` holds [iteration, loss of each of `scenes`], `sharing` [iteration, score of each scored layer
    from input to output]; `gradient_state` is what combining gradients continues from (Eq. 7);
    `calibration` is of frames that it did not see, None when it saw all.
    """

    scenes: list[str]
    config: TrainConfig
    iteration: int = 0
    finished: bool = False
    seconds: float = 0.0
    gradient_state: list[float] = []
    history: list[list[float]] = []
    sharing: list[list[float]] = []
    calibration: Calibration | None = None


class Manifest(_Record):
    """Everything about a checkpoint but its tensors.

    `gates` says of a compact model, which keeps only what is in use, whether each scored layer is shared.
    """

    format: Literal["ofvl-checkpoint"] = "ofvl-checkpoint"
    version: Literal[2] = 2
    written_by: str = f"ofvl_ros {__version__}, torch {torch.__version__}"
    architecture: Architecture
    scenes: Annotated[list[SceneRecord], Field(min_length=1)]
    trainings: Annotated[list[TrainingRecord], Field(min_length=1)]
    gates: dict[str, bool] | None = None
    weights: TensorFile | None = None
    optimizer: TensorFile | None = None

    @property
    def training(self) -> TrainingRecord:
        """The latest training: the one that `--resume` continues."""
        return self.trainings[-1]

    def scene(self, name: str) -> SceneRecord:
        """The record of a scene. Raises CheckpointError naming the scenes there are."""
        for record in self.scenes:
            if record.name == name:
                return record
        known = ", ".join(record.name for record in self.scenes)
        raise CheckpointError(f"unknown scene '{name}'; the checkpoint has: {known}")

    def calibration(self, scene: str) -> Calibration:
        """That of the latest training of a scene that has one; `UNCALIBRATED` where none has."""
        for training in reversed(self.trainings):
            if scene in training.scenes and training.calibration is not None:
                return training.calibration
        return UNCALIBRATED


def require_empty(out: Path, remedy: str = "add --resume to continue it, or choose another --out") -> None:
    """Raises CheckpointError when `out` already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not empty; {remedy}")


def save_checkpoint(
    folder: Path, manifest: Manifest, model: OFVLMS, optimizer: dict[str, Tensor] | None = None
) -> None:
    """Write a checkpoint into `folder`, replacing the one there. `optimizer` is needed only to resume."""
    folder.mkdir(parents=True, exist_ok=True)
    written = manifest.model_copy(
        update={
            "weights": _write_tensors(folder, "weights", model.state_dict()),
            "optimizer": None if optimizer is None else _write_tensors(folder, "optimizer", optimizer),
        }
    )
    save_manifest(folder, written)
    for file in folder.glob("*.safetensors"):
        if file.name not in (written.weights, written.optimizer):
            file.unlink()


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of the checkpoint in `folder`, whose tensor files it names."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def save_deployment(path: Path, manifest: Manifest, model: OFVLMS, half: bool = False) -> None:
    """Make `model` compact and write it to one file; see `deployment.write_deployment`."""
    model.compact()
    trainings = [record.model_copy(update={"history": [], "sharing": []}) for record in manifest.trainings]
    gates = {name: layer.is_shared for name, layer in model.scored_layers.items()}
    written = manifest.model_copy(
        update={"trainings": trainings, "gates": gates, "weights": None, "optimizer": None}
    )
    deployment.write_deployment(path, written.model_dump_json(), model, half)


def load_manifest(path: Path) -> Manifest:
    """Read the manifest of a checkpoint folder or a deployment file.

    Raises CheckpointError when there is none or it makes no sense.
    """
    file = path if path.is_file() else path / MANIFEST
    if not file.is_file():
        cause = "is not a checkpoint (no manifest.json inside)" if path.exists() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {cause}; give the folder that 'ofvl train --out' wrote")
    content = deployment.read_manifest(file) if file is path else file.read_bytes()
    try:
        return Manifest.model_validate_json(content)
    except (ValidationError, OfvlError) as error:
        raise CheckpointError(
            f"{file}: damaged or of another version ({_first_line(error)}); train again"
        ) from None


def load_model(path: Path, manifest: Manifest, device: torch.device) -> OFVLMS:
    """The model of a checkpoint folder or a deployment file, in evaluation mode.

    Raises CheckpointError when its weights are damaged.
    """
    if path.is_file():
        tensors = deployment.read_tensors(path)
    elif manifest.weights is None:
        raise CheckpointError(f"{path}: the manifest names no weights; train again")
    else:
        tensors = read_tensors(path / manifest.weights)
    try:
        model = assemble(manifest, tensors)
    except (RuntimeError, ValueError, ArithmeticError, OfvlError):
        raise CheckpointError(f"{path}: weights do not fit the manifest; train again") from None
    place(model, device)
    return model.eval()


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


def require_finished(path: Path, manifest: Manifest) -> None:
    """Raises CheckpointError when the latest training of the checkpoint was interrupted."""
    if not manifest.training.finished:
        names = ", ".join(manifest.training.scenes)
        raise CheckpointError(f"{path}: the training of {names} is not finished; continue it with --resume")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, checked against the hash in its name. Raises CheckpointError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy the whole folder") from None
    if _hash(content) != path.stem.split("-")[-1]:
        raise CheckpointError(f"{path}: truncated or damaged; copy the checkpoint again or train again")
    try:
        return load_tensors(content)
    except SafetensorError:
        raise CheckpointError(f"{path}: not a safetensors file; train again") from None


def _write_tensors(folder: Path, kind: str, tensors: dict[str, Tensor]) -> str:
    content = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    path = folder / f"{kind}-{_hash(content)}.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path.name


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).splitlines()[0]
