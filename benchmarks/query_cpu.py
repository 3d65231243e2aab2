"""The network on a CPU.

Asked is what an image costs without a GPU: from 640x480 pixels to a pose with a trained `ofvl_ms_lite`, in
each engine and precision, and the forward pass of OFVL-MS18 and OFVL-MS34, untrained, against plain PyTorch:
float32, eager, as the network is written. Goals, on two cores: a median of at most 60 ms to the pose, in the
precision of the accuracy table, and a forward pass at least 4 times as fast as plain PyTorch's.

"torch" is PyTorch with each batch normalisation folded into the convolution before it and memory in the order
that is fast there. int8 is run for scenes that `ofvl quantise` prepared, which it does where the median
error of held-out frames grows by at most 5 %; untrained networks are rounded by the ranges of noise, which
takes the same time. "ready in" is the first image, for which OpenVINO compiles the scene's network.

The results are of before there were keyframes, and of the network's own poses; what keyframes add is in the
accuracy table, which is of another machine and of a model trained for half as long.
"""

import argparse
import copy
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from harness import Table, interleaved, pose_errors, ratio, recordings, write
from torch import nn
from untrained import CAMERA

from ofvl_core.datasets import load_scene
from ofvl_core.device import place
from ofvl_core.engines import ENGINES, choose_engine, make_engine
from ofvl_core.engines.int8 import Quantisation, observed_ranges
from ofvl_core.engines.scene_network import SceneNetwork
from ofvl_core.errors import ConfigError
from ofvl_core.localizer import Localizer
from ofvl_core.network import ARCHITECTURES, OFVLMS
from ofvl_core.resize import normalise

CPU = torch.device("cpu")
NAIVE = "plain PyTorch"
CHOSEN = ENGINES[1:]
"""All but auto."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, help="a trained checkpoint; without it only forward passes")
    options.add_argument("--scene", default="redkitchen", help="the recording whose test images are asked")
    options.add_argument("--rounds", type=int, default=100, help="images to poses")
    options.add_argument("--passes", type=int, default=5, help="forward passes of each untrained network")
    given = options.parse_args()
    tables, figures = [], {}
    if given.model is not None:
        table, figures["pose"] = poses(given.model, given.scene, given.rounds)
        tables.append(table)
    for name in ("ofvl_ms18", "ofvl_ms34"):
        table, figures[name] = forward_passes(name, given.passes)
        tables.append(table)
    model = "" if given.model is None else f" --model {given.model} --scene {given.scene}"
    command = f"benchmarks/query_cpu.py{model} --rounds {given.rounds} --passes {given.passes}"
    write("query_cpu", command, tables, figures)


def poses(checkpoint: Path, name: str, rounds: int) -> tuple[Table, dict[str, dict[str, float]]]:
    """From image to pose, all engines on the same images."""
    scene = load_scene(recordings("scenes", name))
    frames = scene.frames("test")
    chosen = [
        frames[number] for number in np.linspace(0, len(frames) - 1, min(rounds, len(frames))).astype(int)
    ]
    images = [scene.read_color(frame) for frame in chosen]
    contestants: dict[str, Callable[[], object]] = {}
    compiled, errors = {}, {}
    for engine in CHOSEN:
        localizer = Localizer(checkpoint, "cpu", engine=engine)
        start = time.perf_counter()
        try:
            localizer.warm_up(scene.camera, name)
        except ConfigError as refused:  # int8 where the scene was not prepared for it
            print(f"{engine}: {refused}")
            continue
        compiled[engine] = time.perf_counter() - start
        found = [localizer.localize(image, scene.camera, name).world_from_camera for image in images]
        errors[engine] = np.median(pose_errors(chosen, found), axis=0)
        queue = cycle(images)
        contestants[engine] = lambda localizer=localizer, queue=queue: localizer.localize(
            next(queue), scene.camera, name
        )
    timings = interleaved(contestants, rounds)
    rows, figures = [], {}
    for engine, timing in timings.items():
        metres, degrees = errors[engine]
        rows.append([engine, timing.median, timing.p95, compiled[engine], 100 * metres, degrees])
        figures[engine] = {"median_ms": timing.median, "p95_ms": timing.p95, "median_m": metres}
    size = f"{scene.camera.width}x{scene.camera.height}"
    record = Localizer(checkpoint, "cpu").manifest.scene(name)
    height = round(scene.camera.height * record.input_focal / scene.camera.fy)
    return (
        Table(
            f"{size} image to pose, {name}, network input {height} rows",
            ["engine", "median, ms", "p95, ms", "ready in, s", "median error, cm", "deg"],
            rows,
            f"Errors are of the {len(images)} test images that were timed.",
        ),
        figures,
    )


def forward_passes(name: str, rounds: int) -> tuple[Table, dict[str, dict[str, float]]]:
    """An untrained network's forward pass at 640x480."""
    torch.manual_seed(0)
    model = OFVLMS(ARCHITECTURES[name], ["scene"]).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):  # some start at zero, which would leave nothing to compute with
            nn.init.ones_(norm.weight)
    model.compact()
    image = np.random.default_rng(0).integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8)
    plain = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()

    @torch.inference_mode()
    def naive() -> object:
        return model(normalise(plain), "scene")

    contestants: dict[str, Callable[[], object]] = {NAIVE: naive}
    ready = {}
    folded = SceneNetwork(model, "scene")
    rounding = Quantisation(
        ranges=observed_ranges(folded, [image]), frames=0, float32=(0.0, 0.0), int8=(0.0, 0.0)
    )
    ours = copy.deepcopy(model)
    place(ours, CPU)
    for engine in CHOSEN:
        made = make_engine(choose_engine(engine, "cpu")[0], ours, CPU, lambda _: rounding)
        start = time.perf_counter()
        made.put(image[None])
        made.predict("scene")
        ready[engine] = time.perf_counter() - start
        contestants[engine] = lambda made=made: made.predict("scene")
    timings = interleaved(contestants, rounds, warm_up=1)
    rows, figures = [], {}
    for engine, timing in timings.items():
        times, low, high = ratio(timings[NAIVE], timing)
        rows.append([engine, timing.median, ready.get(engine), f"{times:.2f} [{low:.2f}, {high:.2f}]"])
        figures[engine] = {"median_ms": timing.median, "times_faster": times}
    return Table(name, ["engine", "median, ms", "ready in, s", "times as fast"], rows), figures


if __name__ == "__main__":
    main()
