"""Fixtures of the whole suite."""

import os
import random
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: its threads must not spin beside nodes

import hypothesis
import pytest
import torch

from ofvl_core.datasets import load_scene
from ofvl_core.simulation import simulate
from ofvl_core.training.config import Augmentation, TrainConfig
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train

hypothesis.settings.register_profile("no clock", deadline=None)  # a busy machine is no error
hypothesis.settings.load_profile("no clock")

REAL_DATA = Path(os.environ.get("OFVL_DATA", Path(__file__).parents[1] / "../shared/data"))
UNWARPED = Augmentation(
    scale=(1, 1), rotation_deg=0, shear_deg=0, shift=0, brightness=0, contrast=0, blur=0, synthesised=0
)


@pytest.fixture(scope="session", autouse=True)
def own_ros_domain() -> None:
    """Keep the session's DDS traffic to itself; child processes inherit it."""
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory) -> list[Path]:
    """Two small simulated rooms, 'room_1' and 'room_2'."""
    out = tmp_path_factory.mktemp("simulated")
    return simulate(out, 2, seed=0, train_sequences=1, test_sequences=1, frames=8)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_scenes, tmp_path_factory) -> Path:
    """A model that knows the training frames of `tiny_scenes` by heart and little else."""
    out = tmp_path_factory.mktemp("checkpoint") / "model"
    config = TrainConfig(iterations=250, batch_size=8, augmentation=UNWARPED)
    scenes = [load_scene(path) for path in tiny_scenes]
    assert train(scenes, config, out, Surroundings(torch.device("cpu")))
    return out


@pytest.fixture(scope="session")
def real_scenes() -> Path:
    """Folder of the real recordings; the test is skipped where they are absent."""
    folder = REAL_DATA / "scenes"
    if not folder.is_dir():
        pytest.skip(f"real recordings are absent: set OFVL_DATA to their folder (looked in {REAL_DATA})")
    return folder
