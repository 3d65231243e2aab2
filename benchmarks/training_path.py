"""What data costs a training.

Frames of a recorded scene are packed in memory as `ofvl train` does, and steps run on two cores. Goal: a step
takes at most 1.1 times as long with its data as on a batch that is there already. On a CPU a batch is drawn
before its step, since both would want the same cores, so that this is 1 + batch / step; on a GPU it is drawn
while the step before computes, and costs nothing as long as it takes less.

The naive loader does what one writes first, image by image in every step: decode the colour and the depth
image, lift every pixel to scene coordinates, warp image and coordinates, keep the cells. It is given the
paper's augmentation, as ours is beside it; our default's views from where no camera was and its blur come on
top, in the other rows.

torchrun's efficiency is the time of one process that trains two scenes in turn over twice that of two
processes that train one each, all with one thread: they keep both cores busy. The other way to do that is one
process with two threads.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
import typer
from harness import DATA, ROOT, Array, Table, Timing, interleaved, ratio, write
from numpy.random import Generator

from ofvl_core.camera import cell_pixels
from ofvl_core.datasets import Frame, SceneData, load_scene
from ofvl_core.datasets.loading import find_scenes
from ofvl_core.device import place
from ofvl_core.files import write_json
from ofvl_core.geometry import apply
from ofvl_core.network import OFVLMS
from ofvl_core.resize import input_camera, normalise, resize
from ofvl_core.simulation import simulate
from ofvl_core.training.augmentation import Batch, BatchSource, random_warp, scene_frame
from ofvl_core.training.config import TrainConfig, make_config
from ofvl_core.training.gradients import make_combination
from ofvl_core.training.packed import PackedFrames, pack_frames
from ofvl_core.training.presets import PRESETS
from ofvl_core.training.run import scene_record
from ofvl_core.training.trainer import Trainer
from ofvl_core.training.workers import Team
from ofvl_core.warps import unwarped

CPU = torch.device("cpu")
FRAMES = 64
"""Of a scene, which is more than a step sees and little to load."""

PROGRESS = 0.5
"""Of the training: scores and normalisation statistics rest, as in most of it."""

LITE, LARGE = "ofvl_ms_lite", "OFVL-MS18 at 640x480, paper"
CONFIGS: dict[str, dict[str, Any]] = {
    f"{LITE}, its default": {},
    f"{LITE}, robot": {"augmentation": "robot"},
    f"{LITE}, paper": {"augmentation": "paper"},
    LARGE: PRESETS["7scenes_ofvl_ms18"],
}
LARGE_ROUNDS = 1
"""Of the paper's size, a step of which takes many seconds."""

GOAL = 1.1
TEAM_STEPS = 20


class CachedBatch(BatchSource):
    """Gives its first batch for every iteration."""

    _first: Batch | None = None

    def batch(self, iteration: int) -> Batch:
        """The batch that was first asked for."""
        self._first = self._first or super().batch(iteration)
        return self._first


class NaiveLoader:
    """Decodes, lifts and warps in every step all that a batch is made of."""

    def __init__(self, scene: SceneData, config: TrainConfig):
        self._scene, self._config = scene, config
        focal = scene_record(scene, config).input_focal
        self._input = input_camera(scene.camera, focal, config.network.stride)

    def batch(self, random: Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, 3, H, W), coordinates (B, 3, h, w) and valid cells (B, 1, h, w)."""
        frames = self._scene.frames("train")
        chosen = random.integers(len(frames), size=self._config.batch_size)
        samples = zip(*(self._sample(frames[number], random) for number in chosen), strict=True)
        images, coordinates, valid = (torch.from_numpy(np.stack(arrays)) for arrays in samples)
        return normalise(images.permute(0, 3, 1, 2)), coordinates.permute(0, 3, 1, 2), valid[:, None]

    def _sample(self, frame: Frame, random: Generator) -> tuple[Array, Array, Array]:
        image = resize(self._scene.read_color(frame), self._input)
        depth = self._scene.read_depth(frame)
        camera = self._scene.camera.resized(depth.shape[1], depth.shape[0])
        rays = camera.rays(cell_pixels(camera.width, camera.height, 1))
        points = apply(frame.world_from_camera, rays * (depth.reshape(-1, 1) / 1000))
        targets = np.dstack([points.reshape(*depth.shape, 3), depth > 0]).astype(np.float32)
        matrix = random_warp(self._input, self._input, self._config.augmentation, random)
        fill = random.integers(256, size=3).tolist()
        size, flags = (self._input.width, self._input.height), cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(image, matrix, size, None, flags | cv2.INTER_LINEAR, 0, fill)
        stored = unwarped(self._input, camera) @ np.vstack([matrix, [0, 0, 1]])
        targets = cv2.warpAffine(targets, stored, size, None, flags | cv2.INTER_NEAREST)
        stride = self._config.network.stride
        cells = targets[stride // 2 :: stride, stride // 2 :: stride]
        light = random.uniform(-self._config.augmentation.brightness, self._config.augmentation.brightness)
        return cv2.convertScaleAbs(image, None, 1.0, light), cells[..., :3], cells[..., 3] > 0


def packed(scene: SceneData, config: TrainConfig) -> PackedFrames:
    """The scene's frames as `ofvl train` packs them."""
    focal = scene_record(scene, config).input_focal
    return pack_frames(scene, input_camera(scene.camera, focal, config.network.stride))


def make_trainer(
    scenes: Sequence[SceneData], config: TrainConfig, team: Team, kind: type[BatchSource] = BatchSource
) -> Trainer:
    """A trainer of an untrained model, with sources of that kind for this worker's scenes."""
    torch.manual_seed(config.seed)
    names = [f"scene_{number}" for number in range(len(scenes))]
    stride = config.network.stride
    model = OFVLMS(config.network, names)
    place(model, team.device)
    sources = {}
    for number in team.scenes:
        frames = packed(scenes[number], config)
        centre, extent = scene_frame(frames, stride)
        model.set_scene_frame(names[number], torch.from_numpy(centre), torch.tensor(extent))
        seed = (config.seed, number, team.replica)
        sources[number] = kind(frames, config.batch_size, stride, config.augmentation, seed, team.device)
    return Trainer(model, names, sources, config, make_combination(config.gradients), team)


def steps(scene: SceneData, config: TrainConfig, rounds: int) -> dict[str, Timing]:
    """A step with its data, one on a cached batch, and the batch alone."""
    fed, cached = (make_trainer([scene], config, Team(1, CPU), kind) for kind in (BatchSource, CachedBatch))
    source = fed.sources[0]
    numbers = count()
    return interleaved(
        {
            "with data": lambda: fed.step(next(numbers), PROGRESS),
            "cached": lambda: cached.step(0, PROGRESS),
            "batch": lambda: source.batch(next(numbers)),
        },
        rounds,
        warm_up=1 if rounds == LARGE_ROUNDS else 3,
    )


def loaders(scene: SceneData, rounds: int) -> dict[str, Timing]:
    """A batch of the small network with the paper's augmentation: ours, and the naive loader's."""
    config = make_config({"augmentation": "paper"})
    stride, random = config.network.stride, np.random.default_rng(0)
    source = BatchSource(packed(scene, config), config.batch_size, stride, config.augmentation, (0,), CPU)
    numbers, naive = count(), NaiveLoader(scene, config)
    return interleaved(
        {"ours": lambda: source.batch(next(numbers)), "naive": partial(naive.batch, random)}, rounds
    )


def recorded_scenes(folder: Path) -> list[SceneData]:
    """Two scenes of few frames each: recorded ones or, where those are absent, simulated in `folder`."""
    there = DATA / "scenes"
    found = find_scenes([there]) if there.is_dir() else simulate(folder, 2, train_sequences=1, frames=FRAMES)
    scenes = [load_scene(path) for path in found[:2]]
    return [replace(scene, splits={"train": scene.frames("train")[:FRAMES]}) for scene in scenes]


def work(out: Path) -> None:
    """What torchrun has every worker do: train two scenes; worker 0 writes the time of its steps."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    scenes = recorded_scenes(out.parent / os.environ["RANK"])
    team = Team(len(scenes), CPU)
    trainer, numbers = make_trainer(scenes, make_config(), team), count()
    timing = interleaved({"step": lambda: trainer.step(next(numbers), PROGRESS)}, TEAM_STEPS)["step"]
    if team.rank == 0:
        write_json(out, timing.milliseconds.tolist())
    team.close()


def team_step(workers: int, threads: int) -> Timing:
    """A step of two scenes by so many processes that torchrun starts."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "milliseconds.json"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}",
            __file__, str(out),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, env=environment)
        return Timing(np.array(json.loads(out.read_text())))


def step_table(scene: SceneData, rounds: int) -> tuple[Table, dict[str, float]]:
    """Steps with and without data, and the ratio of each configuration."""
    rows: list[list[str | float | int | None]] = []
    ratios = {}
    for name, settings in CONFIGS.items():
        config = make_config(settings)
        timings = steps(scene, config, LARGE_ROUNDS if name == LARGE else rounds)
        fed, cached, batch = (timings[key] for key in ("with data", "cached", "batch"))
        middle, low, high = ratio(fed, cached)
        by_parts = 1 + batch.median / cached.median
        interval: str | None = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        if name == LARGE:  # two steps differ by more than a batch takes
            middle, interval = by_parts, None
        ratios[name] = middle
        verdict = "met" if middle <= GOAL else f"missed by {middle - GOAL:.2f}"
        rows.append(
            [name, config.batch_size, fed.median, cached.median, interval, batch.median, by_parts, verdict]
        )
    columns = [
        "network, augmentation", "batch", "step ms", "cached ms", "ratio", "batch ms", "1 + batch / cached",
        f"goal {GOAL}",
    ]  # fmt: skip
    return Table("A step with its data, and on a cached batch", columns, rows), ratios


def loader_table(scene: SceneData, rounds: int) -> tuple[Table, float]:
    """Images a second of ours and of the naive loader, and how many times faster ours is."""
    timings = loaders(scene, rounds)
    images = make_config().batch_size
    times, low, high = ratio(timings["naive"], timings["ours"])
    rows: list[list[str | float | int | None]] = [
        [name, 1e3 * images / timing.median] for name, timing in timings.items()
    ]
    rows.append(["ratio", f"{times:.1f} ({low:.1f} to {high:.1f})"])
    return Table(f"Views for {LITE}, the paper's augmentation", ["loader", "images a second"], rows), times


def team_table() -> tuple[Table, float]:
    """Steps of teams, and the efficiency of two processes."""
    alone = team_step(1, 1)
    rows: list[list[str | float | int | None]] = []
    for workers, threads, timing in ((1, 1, alone), (1, 2, team_step(1, 2)), (2, 1, team_step(2, 1))):
        efficiency = alone.median / timing.median / (workers * threads)
        rows.append([workers, threads, timing.median, alone.median / timing.median, efficiency])
    columns = ["processes", "threads each", "step ms", "speed-up", "efficiency"]
    return Table(f"torchrun: steps of two scenes, {LITE}", columns, rows), efficiency


def main(rounds: int = 20) -> None:
    """Time ROUNDS steps and batches of each kind; results go to training_path.json."""
    with TemporaryDirectory() as folder:
        scene = recorded_scenes(Path(folder))[0]
        stepping, ratios = step_table(scene, rounds)
        loading, times = loader_table(scene, rounds)
    scaling, efficiency = team_table()
    write(
        "training_path",
        " ".join(["benchmarks/training_path.py", *sys.argv[1:]]),
        [stepping, loading, scaling],
        {"step_ratio": ratios, "goal": GOAL, "times_naive": times, "efficiency": efficiency},
    )


if __name__ == "__main__":
    if "RANK" in os.environ:
        work(Path(sys.argv[1]))
    else:
        typer.run(main)
