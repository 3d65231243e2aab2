"""A checkpoint as a folder: a readable manifest and safetensors files. Loading runs no code from it.

The manifest names its tensor files by the hash of their content. Tensor files are written first and the
manifest last, in one atomic step, so a folder always holds one whole checkpoint: the new or the old.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ofvl_core import __version__
from ofvl_core.camera import Camera
from ofvl_core.errors import CheckpointError, OfvlError
from ofvl_core.files import atomic_path, write_text

MANIFEST = "manifest.json"

FORMATS = ("ofvl-checkpoint", "ofvl-collaborative")
"""What the manifests of each kind call themselves; any other word is a damaged one."""

TensorFile = Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]{16}\.safetensors$")]
"""Name of a tensor file beside the manifest: its kind and the hash of its content."""


class Record(BaseModel):
    """Part of a manifest."""

    model_config = ConfigDict(extra="forbid")


class RunRecord(Record):
    """How far a training went. `history` holds [iteration, losses...], a row every so many iterations."""

    iteration: int = 0
    finished: bool = False
    seconds: float = 0.0
    history: list[list[float]] = []


class FolderManifest(Record):
    """What every manifest says: who wrote it, and its tensor files; the optimiser's only to resume.

    `command` is what writes manifests of a kind.
    """

    command: ClassVar[str]

    written_by: str = f"ofvl_ros {__version__}, torch {torch.__version__}"
    weights: TensorFile | None = None
    optimizer: TensorFile | None = None

    @property
    def tensor_files(self) -> set[str]:
        """The tensor files that belong to the checkpoint."""
        return {file for file in (self.weights, self.optimizer) if file is not None}


class SceneRecord(Record):
    """A scene of a model: the camera it was trained with and its focal length at the network's input."""

    name: str
    camera: Camera
    input_focal: float
    frames: int


AnyManifest = TypeVar("AnyManifest", bound=FolderManifest)
AnyScene = TypeVar("AnyScene", bound=SceneRecord)


def find_scene(records: Sequence[AnyScene], name: str) -> AnyScene:
    """The record of a scene. Raises CheckpointError naming the scenes there are."""
    for record in records:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in records)
    raise CheckpointError(f"unknown scene '{name}'; the checkpoint has: {known}")


def require_empty(out: Path, remedy: str = "add --resume to continue it, or choose another --out") -> None:
    """Raises CheckpointError when `out` already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not empty; {remedy}")


def save_folder(
    folder: Path,
    manifest: FolderManifest,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint into `folder`, replacing the one there. `optimizer` is needed only to resume."""
    folder.mkdir(parents=True, exist_ok=True)
    written = manifest.model_copy(
        update={
            "weights": write_tensors(folder, "weights", weights),
            "optimizer": None if optimizer is None else write_tensors(folder, "optimizer", optimizer),
        }
    )
    save_manifest(folder, written)


def save_manifest(folder: Path, manifest: FolderManifest) -> None:
    """Replace the manifest of the checkpoint in `folder`. Tensor files there that it does not name go."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    for file in folder.glob("*.safetensors"):
        if file.name not in manifest.tensor_files:
            file.unlink()


def read_manifest(folder: Path, kind: type[AnyManifest]) -> AnyManifest:
    """The manifest in `folder`. Raises CheckpointError when there is none or it makes no sense."""
    file = folder / MANIFEST
    with readable(file):
        if not file.is_file():
            cause = f"is not a checkpoint (no {MANIFEST} inside)" if folder.exists() else "does not exist"
            raise CheckpointError(
                f"checkpoint {folder} {cause}; give the folder that '{kind.command} --out' wrote"
            )
        return parse_manifest(file.read_bytes(), kind, file)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises CheckpointError where the system does not let us read a checkpoint's file."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from None


def parse_manifest(content: bytes | str, kind: type[AnyManifest], source: Path) -> AnyManifest:
    """A manifest from its JSON. Raises CheckpointError naming the `source` when it makes no sense."""
    try:
        return kind.model_validate_json(content)
    except (ValidationError, OfvlError) as error:
        first: Any = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ()}
        if first["loc"] == ("format",) and first["input"] in FORMATS:
            raise CheckpointError(
                f"{source}: a checkpoint of another kind; give one of '{kind.command}'"
            ) from None
        raise CheckpointError(
            f"{source}: damaged or of another version ({_first_line(error)}); train again"
        ) from None


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


def read_weights(folder: Path, manifest: FolderManifest) -> dict[str, Tensor]:
    """The weights that a manifest names. Raises CheckpointError."""
    if manifest.weights is None:
        raise CheckpointError(f"{folder}: the manifest names no weights; train again")
    return read_tensors(folder / manifest.weights)


def write_tensors(folder: Path, kind: str, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a file of `folder` that a manifest may name; returns its name."""
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
