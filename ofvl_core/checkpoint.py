"""Checkpoints: a folder with a readable manifest and safetensors files. Loading runs no code from it.

The manifest names its tensor files by the hash of their content. Tensor files are written first and the
manifest last, in one atomic step, so a folder always holds one whole checkpoint: the new or the old.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ofvl_core import __version__
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
    """A scene of the model: the camera it was trained with and its focal length at the network's input."""

    name: str
    camera: Camera
    input_focal: float
    frames: int


class TrainingRecord(_Record):
    """How far training went.

    `history` holds [iteration, loss of each scene in the model's order]; `gradient_norms` are those of
    Eq. 7, which a resumed run continues from.
    """

    config: TrainConfig
    iteration: int = 0
    finished: bool = False
    seconds: float = 0.0
    gradient_norms: list[float] = []
    history: list[list[float]] = []


class Manifest(_Record):
    """Everything about a checkpoint but its tensors."""

    format: Literal["ofvl-checkpoint"] = "ofvl-checkpoint"
    version: Literal[1] = 1
    written_by: str = f"ofvl_ros {__version__}, torch {torch.__version__}"
    model: str
    architecture: Architecture
    scenes: list[SceneRecord]
    training: TrainingRecord
    weights: TensorFile | None = None
    optimizer: TensorFile | None = None

    def scene(self, name: str) -> SceneRecord:
        """The record of a scene. Raises CheckpointError naming the scenes there are."""
        for record in self.scenes:
            if record.name == name:
                return record
        known = ", ".join(record.name for record in self.scenes)
        raise CheckpointError(f"unknown scene '{name}'; the checkpoint has: {known}")


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
    write_text(folder / MANIFEST, written.model_dump_json(indent=2) + "\n")
    for file in folder.glob("*.safetensors"):
        if file.name not in (written.weights, written.optimizer):
            file.unlink()


def load_manifest(folder: Path) -> Manifest:
    """Read a checkpoint's manifest. Raises CheckpointError when there is none or it makes no sense."""
    path = folder / MANIFEST
    if not path.is_file():
        cause = "is not a checkpoint (no manifest.json inside)" if folder.exists() else "does not exist"
        raise CheckpointError(f"checkpoint {folder} {cause}; give the folder that 'ofvl train --out' wrote")
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError, OfvlError) as error:
        raise CheckpointError(
            f"{path}: damaged or of another version ({_first_line(error)}); train again"
        ) from None


def load_model(folder: Path, manifest: Manifest, device: torch.device) -> OFVLMS:
    """The model of a checkpoint, in evaluation mode. Raises CheckpointError when its weights are damaged."""
    if manifest.weights is None:
        raise CheckpointError(f"{folder}: the manifest names no weights; train again")
    model = OFVLMS(manifest.architecture, [scene.name for scene in manifest.scenes])
    try:
        model.load_state_dict(read_tensors(folder / manifest.weights))
    except RuntimeError:
        raise CheckpointError(f"{folder}: weights do not fit the manifest; train again") from None
    place(model, device)
    return model.eval()


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
