"""What a collaborative checkpoint says beside its tensors, and how the model is made of both."""

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from ofvl_core import checkpoint_folder
from ofvl_core.checkpoint_folder import (
    FolderManifest,
    Record,
    RunRecord,
    find_scene,
    read_manifest,
    read_weights,
)
from ofvl_core.collaborative.architecture import Architecture
from ofvl_core.collaborative.config import CollaborativeConfig
from ofvl_core.collaborative.model import CollaborativeModel
from ofvl_core.device import place
from ofvl_core.errors import CheckpointError

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Accuracy(Record):
    """What the model says of one scene, compared with the truth.

    `metres_per_unit` turns the networks' unit of depth and motion to metres, as the training frames have it.
    The deviations are those of held-out frames, None where there are too few: `scale_deviation` of the
    logarithm of a motion's length, `rotation_deviation` of its rotation, `position_deviation` (metres) and
    `orientation_deviation` of a relocalized pose along one axis. Angles are radians.
    """

    metres_per_unit: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    scale_deviation: Finite | None = None
    rotation_deviation: Finite | None = None
    position_deviation: Finite | None = None
    orientation_deviation: Finite | None = None


class SceneRecord(checkpoint_folder.SceneRecord):
    """A scene of the model; `interval` is the median time in seconds between its frames."""

    interval: float
    accuracy: Accuracy | None = None


class TrainingRecord(RunRecord):
    """The training of a model. `history` holds [iteration, and of Eq. 13 the terms that `Losses` names]."""

    config: CollaborativeConfig


class Manifest(FolderManifest):
    """Everything about a checkpoint but its tensors."""

    command = "ofvl collab train"

    format: Literal["ofvl-collaborative"] = "ofvl-collaborative"
    version: Literal[1] = 1
    architecture: Architecture
    scenes: Annotated[list[SceneRecord], Field(min_length=1)]
    training: TrainingRecord

    def scene(self, name: str) -> SceneRecord:
        """The record of a scene. Raises CheckpointError naming the scenes there are."""
        return find_scene(self.scenes, name)


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder`. Raises CheckpointError when there is none or it makes no sense."""
    return read_manifest(folder, Manifest)


def make_model(manifest: Manifest) -> CollaborativeModel:
    """The model that a manifest describes, untrained."""
    return CollaborativeModel(manifest.architecture, [scene.name for scene in manifest.scenes])


def load_model(folder: Path, manifest: Manifest, device: torch.device) -> CollaborativeModel:
    """The model of a checkpoint, in evaluation mode. Raises CheckpointError when its weights are damaged."""
    tensors = read_weights(folder, manifest)
    model = make_model(manifest)
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise CheckpointError(f"{folder}: weights do not fit the manifest; train again") from None
    place(model, device)
    return model.eval()
