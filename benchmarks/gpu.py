"""OFVL-MS34 on a GPU.

Image to pose is all that a user waits for: a 640x480 image is resized and copied, the network computes, its
answer is copied back and the pose solved. The image is noise and the network untrained, so that the solver
tries all it may. Goal: at most 15 ms for 95 % of the images.

The network alone, from an image on the device to its answer in memory, is measured against what the card can
do: the operations of its convolutions (a multiplication and an addition are two) over its time, as a fraction
of the rate of a large matrix product in bfloat16 in the same run.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer
from harness import Table, interleaved, write
from torch.utils.flop_counter import FlopCounterMode
from untrained import CAMERA, untrained

from ofvl_core.checkpoint import save_checkpoint
from ofvl_core.engines import make_engine
from ofvl_core.localizer import Localizer
from ofvl_core.network import OFVLMS

SCENE = "scene_0"
GOAL_MS = 15.0

SIDE = 8192
"""Rows and columns of the matrices whose product says what the card can do."""


def load() -> Localizer:
    """An untrained model of one scene on the GPU."""
    with TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "model", *untrained("ofvl_ms34"))
        return Localizer(Path(folder) / "model", "cuda")


def operations(model: OFVLMS) -> int:
    """Of a forward pass of an image."""
    image = torch.zeros(1, 3, CAMERA.height, CAMERA.width, device="cuda")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image, SCENE)
    return counter.get_total_flops()


def main(rounds: int = 300) -> None:
    """Time ROUNDS images; results go to gpu.json."""
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device: run this where there is one, with a CUDA build of torch")
    localizer = load()
    image = np.random.default_rng(0).integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8)
    localizer.warm_up(CAMERA, SCENE)
    engine = make_engine("torch", localizer.model, localizer.device, lambda scene: None)
    engine.put(image[None])
    matrix = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)

    def multiply() -> None:
        matrix @ matrix
        torch.cuda.synchronize()

    timings = interleaved(
        {
            "image to pose": lambda: localizer.localize(image, CAMERA, SCENE),
            "network alone": lambda: engine.predict(SCENE),
            f"product of {SIDE}x{SIDE} matrices, bfloat16": multiply,
        },
        rounds,
        warm_up=10,
    )
    whole, network, product = timings.values()
    work = operations(localizer.model)
    achieved, peak = (
        count / (timing.median * 1e-3) / 1e12 for count, timing in ((work, network), (2 * SIDE**3, product))
    )
    rows: list[list[str | float | int | None]] = [
        [name, timing.median, timing.p95, rate]
        for (name, timing), rate in zip(timings.items(), (None, achieved, peak), strict=True)
    ]
    verdict = "met" if whole.p95 <= GOAL_MS else f"missed by {whole.p95 - GOAL_MS:.1f} ms"
    note = (
        f"Goal, image to pose, p95 at most {GOAL_MS:g} ms: {verdict}. The network runs at "
        f"{100 * achieved / peak:.0f} % of the product's rate."
    )
    write(
        "gpu",
        " ".join(["benchmarks/gpu.py", *sys.argv[1:]]),
        [Table("", ["", "median ms", "p95 ms", "TFLOP/s"], rows, note)],
        {
            "pose_p95_ms": whole.p95,
            "goal_ms": GOAL_MS,
            "network_ms": network.median,
            "fraction_of_peak": achieved / peak,
        },
    )


if __name__ == "__main__":
    typer.run(main)
