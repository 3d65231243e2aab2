"""Training by several processes: who trains what, the same model as by one, what happens when one dies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from processes import Forked, catches, wait_until
from scenes import write_scene

from ofvl_core.checkpoint import load_manifest, load_model
from ofvl_core.cli import main
from ofvl_core.training.gradients import GradientNormalisation
from ofvl_core.training.workers import Team, assign

MOVING = ("sharing_decided=1", "statistics_rest=1", "warmup=0")  # scores and statistics, in every step
SETTINGS = [
    word
    for setting in ("seed=3", "batch_size=2", "precision=float32", *MOVING)
    for word in ("--set", setting)
]


def torchrun(workers, *arguments):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}",
        "-m", "ofvl_core", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def work():
    """What torchrun has each worker do."""
    torch.set_num_threads(1)
    main()


@contextmanager
def team(workers, *arguments, function=work):
    """Workers as torchrun starts them, but sooner."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Forked(
                    function, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers),
                    MASTER_ADDR="localhost", MASTER_PORT=str(port),
                )
            )
            for rank in range(workers)
        ]  # fmt: skip


def train(data, out, workers, *options, changes=SETTINGS):
    with team(workers, "train", data, "--out", out, *changes, *options) as started:
        for worker in started:
            assert worker.wait(120) == 0, worker.errors


def tensors(out):
    manifest = load_manifest(out)
    return load_model(out, manifest, torch.device("cpu")).state_dict()


def same(one, other):
    """Up to rounding.

    AdamW turns it into a step of the learning rate, 4e-3, where a gradient is next to none, so tensors are
    compared as a whole. A gradient that did not arrive moves them ten times further.
    """
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    for name in one:
        if name.endswith("num_batches_tracked"):
            continue  # of a shared layer each worker counts its own; nobody reads it
        difference = (one[name] - other[name]).norm()
        assert difference <= (1e-4 if name.endswith("score") else 5e-3 + 1e-2 * one[name].norm()), name


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
    ("teams", "settings"),
    [
        ((2, 3), ()),
        # statistics of shared normalisation and inner products of gradients cross the workers
        ((2,), ("--set", "network.sharing=conv_norm_scored", "--set", "gradients=imtl_g")),
    ],
)
def test_several_workers_train_the_model_that_one_does(data, tmp_path, teams, settings):
    """Workers send parameters, statistics, scores' gradients and losses of their scenes."""
    train(data, tmp_path / "one", 1, "--iterations", "3", *settings)
    one = load_manifest(tmp_path / "one").training
    assert max(abs(a - b) for a, b in zip(one.sharing[0], one.sharing[-1], strict=True)) > 1e-3
    for workers in teams:
        out = tmp_path / str(workers)
        train(data, out, workers, "--iterations", "3", *settings)
        same(tmp_path / "one", out)
        other = load_manifest(out).training
        assert other.finished
        for (_, *losses), (_, *others) in zip(one.history, other.history, strict=True):
            assert losses == pytest.approx(others, rel=1e-3)
        for (_, *scores), (_, *others) in zip(one.sharing, other.sharing, strict=True):
            assert scores == pytest.approx(others, abs=1e-4)
        assert one.gradient_state == pytest.approx(other.gradient_state, rel=2e-2)


def three_workers_of_two_scenes():
    team = Team(2, torch.device("cpu"))
    assert (team.scenes, team.replica) == (([0], 0), ([1], 0), ([0], 1))[team.rank]
    mine = torch.tensor(((6.0, 0.0), (0.0, 1.0), (0.0, 8.0))[team.rank])
    (combined,) = team.combine({team.scenes[0]: [mine.clone()]}, GradientNormalisation())
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


def test_two_workers_of_one_scene_count_as_one():
    with team(3, function=three_workers_of_two_scenes) as workers:
        for worker in workers:
            assert worker.wait(120) == 0, worker.errors


def test_several_workers_of_a_scene_leave_one_model(data, tmp_path):
    train(data / "a", tmp_path / "two", 2, "--iterations", "3")
    assert all(torch.isfinite(tensor).all() for tensor in tensors(tmp_path / "two").values())
    assert load_manifest(tmp_path / "two").training.finished


def worker(process, rank):
    """Process number of a worker that `process` started."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"no worker {rank}")


def test_after_a_worker_died_the_run_is_resumed(data, tmp_path):
    out = tmp_path / "model"
    arguments = (2, "train", data, "--out", out)
    process = torchrun(*arguments, *SETTINGS, "--iterations", "100000")
    assert wait_until((out / "manifest.json").exists)
    os.kill(worker(process, 1), signal.SIGKILL)
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "error: worker 0: another worker ended" in errors
    assert f"{out} holds iteration 0: start again with --resume" in errors  # the next was not due yet
    with team(*arguments, "--resume") as workers:
        for each in workers:
            assert wait_until(lambda each=each: catches(each.pid, signal.SIGTERM)), each.errors
        for each in workers:
            each.send_signal(signal.SIGINT)
        assert [each.wait() for each in workers] == [130, 0]
    assert "continue with --resume" in workers[0].errors
    assert load_manifest(out).training.iteration > 0


def test_the_first_worker_may_die_as_well(data, tmp_path):
    out = tmp_path / "model"
    with team(2, "train", data, "--out", out, *SETTINGS, "--iterations", "100000") as (first, second):
        assert wait_until((out / "manifest.json").exists)
        first.send_signal(signal.SIGKILL)
        assert second.wait(90) != 0
    assert "error: worker 1: another worker ended" in second.errors
    assert f"{out} holds iteration 0: start again with --resume" in second.errors


def test_a_worker_says_what_is_wrong_with_its_scene(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "b" / "seq-01" / "frame-000002.depth.png").unlink()
    out = tmp_path / "model"
    with team(2, "train", tmp_path / "data", "--out", out, *SETTINGS) as workers:
        assert all(each.wait(90) != 0 for each in workers)
    assert "error: worker 1: " in workers[1].errors
    assert "frame-000002.color.png: has no depth" in workers[1].errors
    assert not out.exists()


def test_an_interrupted_run_of_two_resumes_to_what_an_uninterrupted_one_is(data, tmp_path):
    out = tmp_path / "parts"
    with team(2, "train", data, "--out", out, *SETTINGS, "--iterations", "20") as workers:
        assert wait_until((out / "manifest.json").exists)
        workers[0].send_signal(signal.SIGINT)
        assert [each.wait(90) for each in workers] == [130, 0]
    stopped = load_manifest(out).training
    assert 0 < stopped.iteration < 20, workers[0].errors
    assert "continue with --resume" in workers[0].errors
    train(data, out, 2, "--resume", changes=())
    train(data, tmp_path / "whole", 2, "--iterations", "20")
    same(out, tmp_path / "whole")
