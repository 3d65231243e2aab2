"""The whole way on a small scale: simulated drives, recorded through ROS, built, trained on, localized in."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import UNWARPED
from ros_helpers import NodeProcess, ros_node, wait_until
from std_srvs.srv import Trigger

from ofvl_core import realsense
from ofvl_core.datasets import load_scene
from ofvl_core.evaluation import evaluate_scene
from ofvl_core.livl.build import build
from ofvl_core.livl.options import Options
from ofvl_core.localizer import Localizer
from ofvl_core.recording.bags import Recording
from ofvl_core.simulation.livl import simulate_livl
from ofvl_core.simulation.rgbd import D435_COLOUR
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train

SCENE = "Parking_lot1"
RATE = 3.0
EVERY = 5  # frame is looked at of a drive's 480
REMAPPINGS = (
    f"image/compressed:={realsense.COLOR_IMAGE}/compressed",
    f"camera_info:={realsense.COLOR_INFO}",
    f"depth/compressedDepth:={realsense.DEPTH_IMAGE}/compressedDepth",
    f"depth_camera_info:={realsense.DEPTH_INFO}",
)


def call(node, service: str) -> dict:
    """What a Trigger service of the recorder answers."""
    client = node.create_client(Trigger, f"recorder/{service}")
    assert client.wait_for_service(30)
    future = client.call_async(Trigger.Request())
    assert wait_until(future.done, 30)
    answer = future.result()
    assert answer.success, answer.message
    return json.loads(answer.message)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> list[Path]:
    out = tmp_path_factory.mktemp("simulated")
    camera = D435_COLOUR.resized(160, 120)
    return simulate_livl(out, scenes=(SCENE,), sequences=2, seconds=16.0, camera=camera)


@pytest.fixture(scope="module")
def recorded(simulated, tmp_path_factory) -> list[Path]:
    """The drives as the recorder recorded them, the second one marked for testing."""
    output, bags = tmp_path_factory.mktemp("recorded"), []
    parameters = {"autostart": False, "image_transport": "compressed", "depth_transport": "compressed"}
    with NodeProcess("recorder", *REMAPPINGS, output=output, **parameters) as recorder, ros_node() as node:
        for bag, split in zip(simulated, ("train", "test"), strict=True):
            call(node, f"mark_{split}")
            bags.append(Path(call(node, "start")["bag"]))
            waiting = {"wait_for_subscriber": f"{realsense.DEPTH_IMAGE}/compressedDepth"}
            with NodeProcess("bag_player", bag=bag, rate=RATE, **waiting) as player:
                assert player.wait(120) == 0, player.log
            call(node, "stop")
        recorder.interrupt()
        assert recorder.wait() == 0, recorder.log
    return bags


def test_nothing_is_lost_in_recording(simulated, recorded):
    for played, heard in zip(simulated, recorded, strict=True):
        with Recording(played) as before, Recording(heard) as after:
            for name, topic in before.topics.items():
                assert after.topics[name].count >= topic.count, name


@pytest.mark.timeout(600)
def test_who_recorded_trains_and_localizes_a_held_out_drive(recorded, tmp_path):
    root = build(recorded, tmp_path / "data", SCENE, Options(compare="none"))
    scene = load_scene(root)
    config = TrainConfig(iterations=100, batch_size=8, augmentation=UNWARPED)
    assert train([scene], config, tmp_path / "model", Surroundings(torch.device("cpu")))
    localizer = Localizer(tmp_path / "model")
    some = replace(scene, splits={name: frames[::EVERY] for name, frames in scene.splits.items()})
    known, held_out = (evaluate_scene(localizer, some, split) for split in ("train", "test"))
    places = known.training_poses[:, :3, 3]
    guess = float(np.median(np.linalg.norm(places - places.mean(axis=0), axis=1)))
    # A short training knows by heart what it has seen; of another drive it knows more than nothing.
    assert np.median(known.errors[:, 0]) < 0.2 * guess
    assert len(held_out.results) == len(some.frames("test"))
    assert (held_out.errors[:, 0] < 0.5 * guess).mean() > 0.1
