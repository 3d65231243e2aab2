"""Training end to end on small scenes: learns, stops, resumes, refuses."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scenes import write_scene

from ofvl_core.checkpoint import load_manifest, load_model, save_deployment
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.images import read_color
from ofvl_core.errors import CheckpointError, ConfigError, DataError
from ofvl_core.geometry import pose_error
from ofvl_core.localizer import Localizer
from ofvl_core.training import run
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.optimisation import learning_rate

CPU = torch.device("cpu")
HERE = run.Surroundings(CPU)
SHORT = TrainConfig(iterations=4, batch_size=2, sharing_decided=1, statistics_rest=1, warmup=0)


@pytest.fixture
def scenes(tmp_path):
    return [load_scene(write_scene(tmp_path / name)) for name in ("a", "b")]


def weights(folder):
    return load_model(folder, load_manifest(folder), CPU).state_dict()


def test_a_trained_model_finds_its_training_frames(tiny_scenes, tiny_checkpoint):
    localizer = Localizer(tiny_checkpoint)
    assert localizer.scenes == ["room_1", "room_2"]
    for path in tiny_scenes:
        scene = load_scene(path)
        errors = []
        for frame in scene.frames("train"):
            found = localizer.localize(read_color(frame.color), scene.camera, scene.name)
            assert found.world_from_camera is not None, found.reason
            errors.append(pose_error(found.world_from_camera, frame.world_from_camera))
        metres, degrees = np.median(errors, axis=0)
        assert metres < 0.2
        assert degrees < 5


def test_same_seed_same_model(scenes, tmp_path):
    for name in ("one", "two"):
        run.train(scenes, SHORT, tmp_path / name, HERE)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_resumed_run_equals_an_uninterrupted_one(scenes, tmp_path):
    run.train(scenes, SHORT, tmp_path / "whole", HERE)

    def interrupt(iteration, losses):
        if iteration == 2:
            signal.raise_signal(signal.SIGINT)

    assert not run.train(scenes, SHORT, tmp_path / "parts", run.Surroundings(CPU, on_step=interrupt))
    stopped = load_manifest(tmp_path / "parts")
    assert (stopped.training.iteration, stopped.training.finished) == (2, False)
    assert run.train(scenes, SHORT, tmp_path / "parts", HERE, resume=True)
    assert load_manifest(tmp_path / "parts").optimizer is None
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in whole:
        assert torch.allclose(whole[name].float(), parts[name].float(), atol=1e-6), name


def test_resume_takes_the_same_scenes_and_settings(scenes, tmp_path):
    out = tmp_path / "model"
    stop = lambda iteration, losses: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    run.train(scenes, SHORT, out, run.Surroundings(CPU, on_step=stop))
    with pytest.raises(CheckpointError, match="other data"):
        run.train(scenes[:1], SHORT, out, HERE, resume=True)
    with pytest.raises(CheckpointError, match="other settings"):
        run.train(scenes, SHORT.model_copy(update={"seed": 5}), out, HERE, resume=True)
    with pytest.raises(CheckpointError, match="--resume"):
        run.train(scenes, SHORT, out, HERE)
    assert load_manifest(out).training.iteration == 1


def test_a_finished_run_is_lengthened(scenes, tmp_path):
    out = tmp_path / "model"
    run.train(scenes, SHORT, out, HERE)
    before = weights(out)
    with pytest.raises(CheckpointError, match=r"trained for 4 iterations, .* already"):
        run.train(scenes, SHORT.model_copy(update={"iterations": 3}), out, HERE, resume=True)
    rates = []

    class Watched(run.Trainer):
        def step(self, *given):
            told = super().step(*given)
            rates.append(self.optimizer.param_groups[0]["lr"])
            return told

    longer = SHORT.model_copy(update={"iterations": 6})
    assert run.train(scenes, longer, out, HERE, resume=True, kind=Watched)
    assert rates == [learning_rate(longer, 4 / 6), learning_rate(longer, 5 / 6)]
    training = load_manifest(out).training
    assert (training.iteration, training.finished, training.config) == (6, True, longer)
    after = weights(out)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_is_lengthened_gets_longer(scenes, tmp_path):
    out = tmp_path / "model"
    stop = lambda iteration, losses: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    run.train(scenes, SHORT, out, run.Surroundings(CPU, on_step=stop))
    for iterations in (1, 3):
        with pytest.raises(CheckpointError, match="no longer"):
            run.train(scenes, SHORT.model_copy(update={"iterations": iterations}), out, HERE, resume=True)
    assert run.train(scenes, SHORT.model_copy(update={"iterations": 5}), out, HERE, resume=True)


def test_a_run_that_time_ends_has_a_history(scenes, tmp_path):
    config = SHORT.model_copy(update={"iterations": 100_000, "max_minutes": 0.01})
    assert run.train(scenes[:1], config, tmp_path / "model", HERE)
    training = load_manifest(tmp_path / "model").training
    assert training.iteration < 100_000
    assert min(training.iteration, 20) - 1 <= len(training.history) <= run.HISTORY_LENGTH + 1
    assert len(training.sharing) == len(training.history)


def test_a_deployment_file_is_not_trained(scenes, tmp_path):
    run.train(scenes[:1], SHORT, tmp_path / "model", HERE)
    manifest, file = load_manifest(tmp_path / "model"), tmp_path / "model.safetensors"
    save_deployment(file, manifest, load_model(tmp_path / "model", manifest, CPU))
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"is a file.*resume the folder"):
        run.train(scenes[:1], SHORT.model_copy(update={"iterations": 8}), file, HERE, resume=True)
    assert file.read_bytes() == before


def test_a_scene_without_depth_is_named(scenes, tmp_path):
    (scenes[1].root / "seq-01" / "frame-000003.depth.png").unlink()
    with pytest.raises(DataError, match=r"frame-000003.*no depth"):
        run.train([scenes[0], load_scene(scenes[1].root)], SHORT, tmp_path / "model", HERE)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("sharing", ["conv_scored", "conv_norm_scored", "all_shared"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_strategy_and_precision_trains(scenes, tmp_path, sharing, precision):
    network = SHORT.network.model_copy(update={"sharing": sharing})
    config = SHORT.model_copy(update={"network": network, "precision": precision, "iterations": 2})
    run.train(scenes, config, tmp_path / "model", HERE)
    tensors = weights(tmp_path / "model")
    assert all(tensor.dtype != torch.bfloat16 for tensor in tensors.values())
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_what_is_not_finite_is_not_learned(scenes, tmp_path):
    config = SHORT.model_copy(update={"learning_rate": 1e30, "iterations": 50})
    with pytest.raises(ConfigError, match="lower learning rate"):
        run.train(scenes, config, tmp_path / "model", HERE)
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "model").values())


def test_max_minutes_ends_the_schedule(scenes, tmp_path):
    config = TrainConfig(iterations=10**6, max_minutes=0.05, batch_size=1)
    start = time.monotonic()
    assert run.train(scenes[:1], config, tmp_path / "model", HERE)
    assert time.monotonic() - start < 30
    assert 1 <= load_manifest(tmp_path / "model").training.iteration < 10**6


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(config, progress) for progress in np.linspace(0, 1, 101)]
    assert np.argmax(rates) == 10
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()


def test_a_killed_run_leaves_a_whole_checkpoint_or_none(scenes, tmp_path):
    """kill -9 while checkpoints are written without pause."""
    code = f"""
from pathlib import Path
import torch
from ofvl_core.datasets import load_scene
from ofvl_core.training import loop, run
from ofvl_core.training.config import TrainConfig
loop.SECONDS_BETWEEN_CHECKPOINTS = 0
scene = load_scene(Path({str(scenes[0].root)!r}))
out = Path({str(tmp_path / "model")!r})
run.train([scene], TrainConfig(batch_size=1), out, run.Surroundings(torch.device("cpu")))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    manifest = tmp_path / "model" / "manifest.json"
    deadline = time.monotonic() + 60
    while not (manifest.exists() and load_manifest(tmp_path / "model").training.iteration > 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = load_manifest(tmp_path / "model").training.iteration
    assert before >= 1
    config = load_manifest(tmp_path / "model").training.config
    stop = lambda iteration, losses: signal.raise_signal(signal.SIGINT)  # noqa: E731
    run.train(scenes[:1], config, tmp_path / "model", run.Surroundings(CPU, on_step=stop), resume=True)
    assert load_manifest(tmp_path / "model").training.iteration == before + 1
