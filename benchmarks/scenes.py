"""Many scenes in one checkpoint.

Untrained `ofvl_ms_lite` models of 1, 10 and 100 scenes, each loaded by a process of its own and asked for the
pose in 640x480 images of noise, for which the solver tries all it may. About half of an untrained model's
scored layers are shared; how many of a trained one's are, training decides.

Goals: memory grows only by the specific parameters; the first image in another of 100 scenes takes at most
50 ms longer than the next there. In numbers a model grows by exactly a scene's own parameters and statistics
of normalisation: weights of shared layers are there once. The process's resident memory, from 10 to 100
scenes, grows by these, by the objects of a scene's layers and tensors, about half a megabyte however wide
they are, and by what the allocator does not give back.

With `scene:=auto` an image is looked at in every scene that is still possible, by the network and by the
solver: its cost is a line a + b N in the number N of these scenes. Evidence rules scenes out within a few
images, and a scene that is found is tested alone, so that N is the number of all scenes for the first images
only.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import typer
from harness import Table, write
from untrained import CAMERA, untrained

from ofvl_core.checkpoint import save_checkpoint, save_deployment
from ofvl_core.correspondences import Correspondences
from ofvl_core.localizer import Localizer
from ofvl_core.network.parameters import count_parameters
from ofvl_core.pose import estimate_pose

SIZES = (1, 10, 100)
TESTED = (1, 2, 5, 10, 20, 50, 100)
"""How many scenes `scene:=auto` tests on an image."""

GOAL_MS = 50.0
FLOAT_BYTES = 4


class Made(NamedTuple):
    """A model on disk: megabytes of the folder's weights and of `ofvl deploy`'s file, numbers in all."""

    folder_mb: float
    file_mb: float
    half_mb: float
    parameters: int
    scene_parameters: int
    scene_numbers: int
    """All numbers of one scene: its parameters and the buffers beside them."""


class Loaded(NamedTuple):
    """How a process fared that loaded a deployment file."""

    load_s: float
    resident_mb: float
    """More than before it was loaded, after an image in the first two scenes."""
    switches_ms: list[float]
    """By how much the first image in a scene took longer than others there."""
    rest_ms: list[float]
    solver_ms: list[float]
    """Of an image in each number of scenes of TESTED that there are, medians."""


def make(folder: Path, scenes: int) -> Made:
    """An untrained model of so many scenes as `folder`/model and `folder`/model.safetensors."""
    manifest, model = untrained("ofvl_ms_lite", scenes)
    save_checkpoint(folder / "model", manifest, model)
    count = count_parameters(model)
    save_deployment(folder / "half.safetensors", manifest, model, half=True)
    save_deployment(folder / "model.safetensors", manifest, model)
    own = sum(tensor.numel() for tensor in model.scene_tensors(model.scenes[0]).values())
    in_folder = sum(path.stat().st_size for path in (folder / "model").iterdir())
    in_file, in_half = ((folder / f"{name}.safetensors").stat().st_size for name in ("model", "half"))
    return Made(in_folder / 1e6, in_file / 1e6, in_half / 1e6, count.total, count.per_scene, own)


def load(file: Path, rounds: int) -> Loaded:
    """Load a deployment file and measure."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8)
    before, began = _resident_mb(), time.perf_counter()
    localizer = Localizer(file, "cpu")
    localizer.acquire()
    load_s = time.perf_counter() - began

    def milliseconds(scenes: list[str]) -> float:
        start = time.perf_counter()
        localizer.localize_in_each(image, CAMERA, scenes)
        return 1e3 * (time.perf_counter() - start)

    for scene in localizer.scenes[:2]:
        milliseconds([scene])
    resident = _resident_mb() - before
    switches = []
    for scene in localizer.scenes[2:]:
        first = milliseconds([scene])
        switches.append(first - float(np.median([milliseconds([scene]) for _ in range(3)])))
    rest, solver = [], []
    for count in (count for count in TESTED if count <= len(localizer.scenes)):
        scenes = localizer.scenes[:count]
        whole, solving = [], []
        for _ in range(max(3, rounds // count)):
            whole.append(milliseconds(scenes))
            solving.append(_solver_ms(localizer, image, scenes))
        rest.append(float(np.median(whole)) - float(np.median(solving)))
        solver.append(float(np.median(solving)))
    return Loaded(load_s, resident, switches, rest, solver)


def measure(file: Path, rounds: int) -> Loaded:
    """`load` in a process of its own, which holds nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(load, file, rounds).result()


def main(rounds: int = 30) -> None:
    """Measure models of 1, 10 and 100 scenes with about ROUNDS images each; results go to scenes.json."""
    made, loaded = [], []
    for scenes in SIZES:
        with TemporaryDirectory() as folder:
            made.append(make(Path(folder), scenes))
            loaded.append(measure(Path(folder) / "model.safetensors", rounds))
    rows: list[list[str | float | int | None]] = [
        [scenes, one.parameters, one.folder_mb, one.file_mb, one.half_mb, run.load_s, run.resident_mb]
        for scenes, one, run in zip(SIZES, made, loaded, strict=True)
    ]
    grown = (loaded[-1].resident_mb - loaded[-2].resident_mb) / (SIZES[-1] - SIZES[-2])
    own = made[-1].scene_numbers * FLOAT_BYTES / 1e6
    by_growth = (made[-1].parameters - made[-2].parameters) / (SIZES[-1] - SIZES[-2])
    switches, largest = np.array(loaded[-1].switches_ms), loaded[-1]
    switched = [float(np.median(switches)), float(np.percentile(switches, 95)), float(switches.max())]
    sums = np.add(largest.rest_ms, largest.solver_ms)
    lines = {
        name: np.polyfit(TESTED, values, 1, w=1 / np.sqrt(TESTED))
        for name, values in (
            ("all but the solver", largest.rest_ms), ("solver", largest.solver_ms), ("all", sums),
        )
    }  # fmt: skip
    columns = ["scenes", "parameters", "folder MB", "file MB", "half MB", "load s", "resident MB"]
    auto: list[list[str | float | int | None]] = [
        [count, *values]
        for count, *values in zip(TESTED, largest.rest_ms, largest.solver_ms, sums.tolist(), strict=True)
    ]
    auto.append(["a + b N", *(f"{a:.1f} + {b:.1f} N" for b, a in lines.values())])
    verdict = "met" if switched[2] <= GOAL_MS else f"missed by {switched[2] - GOAL_MS:.0f} ms at worst"
    write(
        "scenes",
        " ".join(["benchmarks/scenes.py", *sys.argv[1:]]),
        [
            Table(
                "Size", columns, rows,
                "Folder: what training leaves; file and half: what `ofvl deploy` makes of it, in single and "
                "half precision. Resident: what loading the file in single precision and running it adds.",
            ),
            Table(
                "Memory that a scene adds",
                ["specific parameters", "model grows by", "all its numbers, MB", "resident MB", "ratio"],
                [[str(made[-1].scene_parameters), f"{by_growth:.0f}", own, grown, grown / own]],
            ),
            Table(
                f"Switching among {SIZES[-1]} scenes, ms",
                ["switches", "median", "p95", "max", "goal", ""],
                [[len(switches), *switched, GOAL_MS, verdict]],
            ),
            Table("An image with `scene:=auto`, ms", ["scenes", *lines], auto),
        ],
        {
            "scene_parameters": made[-1].scene_parameters,
            "growth_of_parameters": by_growth,
            "scene_mb": own,
            "scene_resident_mb": grown,
            "switch_median_ms": switched[0],
            "switch_max_ms": switched[2],
            "goal_ms": GOAL_MS,
            "auto_ms": {name: {"a": a, "b": b} for name, (b, a) in lines.items()},
        },
    )  # fmt: skip


def _solver_ms(localizer: Localizer, image: np.ndarray, scenes: list[str]) -> float:
    """Milliseconds of the solver alone, on what the network says of an image in each of the scenes."""
    problems = []
    for found in localizer.localize_in_each(image, CAMERA, scenes):
        cells, focal = found.cells, localizer.manifest.scene(found.scene).input_focal
        rays = CAMERA.rays(cells.pixels)[:, :2]
        problems.append((Correspondences(rays, cells.scene_coordinates, cells.uncertainties), focal))
    start = time.perf_counter()
    for problem in problems:
        estimate_pose(*problem)
    return 1e3 * (time.perf_counter() - start)


def _resident_mb() -> float:
    """Resident memory of this process (Linux), in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


if __name__ == "__main__":
    typer.run(main)
