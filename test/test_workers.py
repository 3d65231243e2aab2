"""Training by several processes: who trains what, the same model as by one, what happens when one dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from scenes import write_scene

from ofvl_core.checkpoint import load_manifest, load_model
from ofvl_core.training.workers import assign

SETTINGS = ["--set", "seed=3", "--set", "batch_size=2", "--set", "precision=float32"]


def torchrun(workers, *arguments):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}",
        "-m", "ofvl_core", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def train(data, out, workers, *options):
    process = torchrun(workers, "train", data, "--out", out, *SETTINGS, *options)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def tensors(out):
    manifest = load_manifest(out)
    return load_model(out, manifest, torch.device("cpu")).state_dict()


def same(one, other, atol=1e-5):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    for name in one:
        if name.endswith("num_batches_tracked"):
            continue  # of a shared layer each worker counts its own; nobody reads it
        assert torch.allclose(one[name].float(), other[name].float(), rtol=1e-3, atol=atol), name


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("a", "b", "c"):
        write_scene(folder / name)
    return folder


def test_scenes_are_dealt_out():
    assert assign(5, 2) == [[0, 2, 4], [1, 3]]
    assert assign(2, 2) == [[0], [1]]
    assert assign(2, 5) == [[0], [1], [0], [1], [0]]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        # statistics of shared normalisation and inner products of gradients cross the workers
        ("--set", "network.sharing=all_shared", "--set", "gradients=imtl_g"),
    ],
)
def test_two_workers_train_the_model_that_one_does(data, tmp_path, settings):
    """Worker 1 has one scene of three; it sends its parameters, statistics and losses to worker 0."""
    for workers, out in ((1, "one"), (2, "two")):
        train(data, tmp_path / out, workers, "--iterations", "6", *settings)
    same(tmp_path / "one", tmp_path / "two")
    one, two = load_manifest(tmp_path / "one").training, load_manifest(tmp_path / "two").training
    assert two.finished
    for (_, *losses), (_, *others) in zip(one.history, two.history, strict=True):
        assert losses == pytest.approx(others, rel=1e-3)
    assert one.gradient_state == pytest.approx(two.gradient_state, rel=1e-3)


THREE_WORKERS_OF_TWO_SCENES = """
import torch
from ofvl_core.training.gradients import GradientNormalisation
from ofvl_core.training.workers import Team

team = Team(2, torch.device("cpu"))
assert (team.scenes, team.replica) == (([0], 0), ([1], 0), ([0], 1))[team.rank]
mine = torch.tensor(((6.0, 0.0), (0.0, 1.0), (0.0, 8.0))[team.rank])
combined, = team.combine({team.scenes[0]: [mine.clone()]}, GradientNormalisation())
# scene 0: the mean of its two workers is (3, 4), of norm 5; D = (5 + 1) / 2; Eq. 9 halves the sum
assert torch.allclose(combined, torch.tensor([3 * 3 / 5, 3 * 4 / 5 + 3]) / 2), combined
own = [mine.clone()]
team.mean_of_scene(team.scenes[0], own)
assert own[0].tolist() == ([0, 1] if team.rank == 1 else [3, 4])
gathered = team.gather({team.scenes[0]: {"x": mine}})
assert {scene: tensors["x"].tolist() for scene, tensors in gathered.items()} == (
    {0: [6, 0], 1: [0, 1]} if team.rank == 0 else {}
)
team.close()
"""


def test_two_workers_of_one_scene_count_as_one(tmp_path):
    (tmp_path / "three.py").write_text(THREE_WORKERS_OF_TWO_SCENES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    done = subprocess.run([*torchrun, tmp_path / "three.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_several_workers_of_a_scene_leave_one_model(data, tmp_path):
    train(data / "a", tmp_path / "two", 2, "--iterations", "3")
    assert all(torch.isfinite(tensor).all() for tensor in tensors(tmp_path / "two").values())
    assert load_manifest(tmp_path / "two").training.finished


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def worker(process, rank):
    """Process number of a worker that `process` started."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"no worker {rank}")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_worker_ends_the_run_with_a_sentence_and_a_checkpoint(data, tmp_path, victim):
    out = tmp_path / "model"
    process = torchrun(2, "train", data, "--out", out, *SETTINGS, "--iterations", "100000")
    wait_for((out / "manifest.json").exists)
    time.sleep(1)
    os.kill(worker(process, victim), signal.SIGKILL)
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert f"error: worker {1 - victim}: another worker ended" in errors
    assert "start again with --resume" in errors
    record = load_manifest(out).training
    assert record.iteration == 0  # the checkpoint of the start: the minute's was not due
    assert not record.finished


def test_an_interrupted_run_of_two_resumes_to_what_an_uninterrupted_one_is(data, tmp_path):
    out = tmp_path / "parts"
    process = torchrun(2, "train", data, "--out", out, *SETTINGS, "--iterations", "30")
    wait_for((out / "manifest.json").exists)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    stopped = load_manifest(out).training
    assert 0 < stopped.iteration < 30, errors
    assert "continue with --resume" in errors
    train(data, out, 2, "--resume")
    train(data, tmp_path / "whole", 2, "--iterations", "30")
    same(out, tmp_path / "whole")
