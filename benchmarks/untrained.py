"""Models that were never trained: for questions of time and memory, which learning does not change."""

import torch

from ofvl_core.camera import Camera
from ofvl_core.checkpoint import Manifest, SceneRecord, TrainingRecord
from ofvl_core.network import ARCHITECTURES, OFVLMS
from ofvl_core.training.config import TrainConfig

CAMERA = Camera(640, 480, 600.0, 600.0, 319.5, 239.5)
"""About a D435's."""


def untrained(network: str, scenes: int = 1) -> tuple[Manifest, OFVLMS]:
    """A model of that named size, in evaluation mode, with scenes 'scene_0' and on, seen by CAMERA."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES[network]
    names = [f"scene_{number}" for number in range(scenes)]
    focal = CAMERA.fy * architecture.input_height / CAMERA.height
    manifest = Manifest(
        architecture=architecture,
        scenes=[SceneRecord(name=name, camera=CAMERA, input_focal=focal, frames=1000) for name in names],
        trainings=[TrainingRecord(scenes=names, config=TrainConfig(network=architecture), finished=True)],
    )
    return manifest, OFVLMS(architecture, names).eval()
