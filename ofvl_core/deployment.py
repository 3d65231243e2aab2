"""The deployment file: one safetensors file that holds a model of all its scenes and nothing else.

Its tensors are what `OFVLMS.compact` leaves: shared weights once, specific ones where their gate is open to
them, normalisation, attention and head of each scene, buffers and scores. The one entry of its metadata,
"ofvl", is JSON: the manifest of the checkpoint without histories, and the SHA-256 of the whole file, computed
with zeros in its own place. Loading runs no code from the file.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.files import atomic_path
from ofvl_core.network import OFVLMS

SUFFIX = ".safetensors"
ENTRY = "ofvl"
UNSIGNED = "0" * 64
"""Stands in the place of the digest while it is computed."""

LARGEST_HEADER = 100_000_000
"""Bytes; safetensors reads no more either."""


WEIGHTS = ("shared convolutions", "specific convolutions", "normalisation", "attention", "head")
"""The parts of a file that are weights and biases, as the paper counts them."""

PARTS = (*WEIGHTS, "buffers", "scores", "keyframes", "header")
"""All parts. Buffers are normalisation statistics and the frames that scenes are regressed in."""

KEYFRAMES = "keyframes/"
"""Begins the names of tensors that are no part of the network; the scene's follows."""


class Share(NamedTuple):
    """What a part of the file takes: how many numbers, and bytes."""

    numbers: int
    bytes: int


def write_deployment(
    path: Path, manifest: str, model: OFVLMS, keyframes: Mapping[str, Mapping[str, Tensor]], half: bool
) -> None:
    """Write the compact `model`, scenes' `keyframes` and the JSON of its `manifest` to `path`, atomically.

    With `half`, tensors of two dimensions or more are stored in half precision, but not the last layers of
    the heads: metres need their digits. Biases, normalisation, its statistics, scene frames and scores are
    small and keep single precision; a variance may also exceed half precision's range.

    Raises ConfigError when `path` has another suffix, is a folder, or when a weight is too large for half
    precision.
    """
    if path.suffix != SUFFIX or path.is_dir():
        raise ConfigError(f"{path} is no name for a deployment file; choose one that ends in {SUFFIX}")
    fine = _regression_layers(model)
    tensors = {}
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().cpu().contiguous()
        if half and stored.ndim > 1 and name not in fine:
            stored = stored.half()
            if not stored.isfinite().all():
                raise ConfigError(f"'{name}' exceeds the range of half precision; deploy without --half")
        tensors[name] = stored
    for scene, album in keyframes.items():
        tensors |= {f"{KEYFRAMES}{scene}/{name}": tensor for name, tensor in album.items()}
    entry = json.dumps({"sha256": UNSIGNED, "manifest": json.loads(manifest)})
    content = save_tensors(tensors, {ENTRY: entry})
    end = _header_end(content)
    header = content[:end].replace(UNSIGNED.encode(), _digest(content, UNSIGNED).encode(), 1)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header)
        file.write(memoryview(content)[end:])


def read_manifest(path: Path) -> str:
    """The JSON of the manifest in a deployment file. Raises CheckpointError when it is none."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LARGEST_HEADER, path.stat().st_size):
                _refuse(path)
            return json.dumps(_entry(path, file.read(length))["manifest"])
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy the file again") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The network's tensors of a deployment file as they are stored.

    Raises CheckpointError when a bit is wrong.
    """
    return {name: tensor for name, tensor in _read(path).items() if not name.startswith(KEYFRAMES)}


def read_keyframes(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of scenes' keyframes, by the scene's name. Raises CheckpointError when a bit is wrong."""
    albums: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _read(path).items():
        if name.startswith(KEYFRAMES):
            scene, _, part = name.removeprefix(KEYFRAMES).rpartition("/")
            albums.setdefault(scene, {})[part] = tensor
    return albums


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy the file again") from None
    except SafetensorError:
        _refuse(path)
    digest = _entry(path, content[8 : _header_end(content)])["sha256"]
    if not isinstance(digest, str) or digest != _digest(content, digest):
        _refuse(path)
    return tensors


def measure_deployment(path: Path, model: OFVLMS) -> dict[str, Share]:
    """What each of `PARTS` takes of a deployment file, by its own header; the bytes add up to the file's.

    `model` is what was written or read, or one built alike.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    del header["__metadata__"]
    parameters = {name for name, _ in model.named_parameters()}
    parts = dict.fromkeys(PARTS, Share(0, 0)) | {"header": Share(0, 8 + length)}
    for name, entry in header.items():
        part = _part(name) if name in parameters else "buffers"
        if name.startswith(KEYFRAMES):
            part = "keyframes"
        start, end = entry["data_offsets"]
        numbers, size = parts[part]
        parts[part] = Share(numbers + math.prod(entry["shape"]), size + end - start)
    return parts


def _part(parameter: str) -> str:
    words = parameter.split(".")
    if words[-1] == "score":
        return "scores"
    kind = next(kind for kind in ("head", "attention", "norm", "conv") if kind in words)
    if kind == "conv":
        return "specific convolutions" if "specific" in words else "shared convolutions"
    return {"norm": "normalisation"}.get(kind, kind)


def _regression_layers(model: OFVLMS) -> set[str]:
    return {
        f"{name}.weight"
        for name, module in model.head.named_modules(prefix="head")
        if isinstance(module, nn.Conv2d) and module.bias is not None
    }


def _header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _digest(content: bytes, written: str) -> str:
    end = _header_end(content)
    digest = hashlib.sha256(content[:end].replace(written.encode(), UNSIGNED.encode(), 1))
    digest.update(memoryview(content)[end:])
    return digest.hexdigest()


def _entry(path: Path, header: bytes) -> Mapping[str, object]:
    try:
        entry = json.loads(json.loads(header)["__metadata__"][ENTRY])
        return {key: entry[key] for key in ("sha256", "manifest")}
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse(path)


def _refuse(path: Path) -> NoReturn:
    raise CheckpointError(
        f"{path} is not a checkpoint (no deployment file, or a truncated or damaged one); copy it again"
    )
