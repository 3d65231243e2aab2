"""What all benchmarks share: calls timed in turn, bootstrap intervals, tables, and results as JSON.

A benchmark is a script, `.venv/bin/python benchmarks/NAME.py`, whose docstring is what `document` says of it
in docs/benchmarks.md: the question, the goal, and where it is missed why. It calls `write` once for each file
of results.
"""

import importlib.metadata
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ofvl_core.checkpoint import load_manifest
from ofvl_core.datasets import Frame
from ofvl_core.files import write_json
from ofvl_core.geometry import pose_error
from ofvl_core.provenance import provenance

Array = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

DATA = Path(os.environ.get("OFVL_DATA", ROOT / "../shared/data")).resolve()
"""The folder of recordings, which may be absent: `recordings` asks for it."""

RESAMPLES = 2000
"""Bootstrap samples of an interval: its ends then move by a few hundredths of its width between seeds."""


@dataclass(frozen=True)
class Timing:
    """How long each call took: `milliseconds` (rounds,), in the order of the rounds."""

    milliseconds: Array

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.milliseconds))

    @property
    def p95(self) -> float:
        """Milliseconds that 95 % of the calls took at most."""
        return float(np.percentile(self.milliseconds, 95))


@dataclass(frozen=True)
class Table:
    """A table of results; a cell that is None has no value, and a `note` stands below."""

    title: str
    columns: list[str]
    rows: list[list[str | float | int | None]]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown below its title, with a line's end after each line."""
        lines = [
            self.columns,
            ["---"] * len(self.columns),
            *([_cell(cell) for cell in row] for row in self.rows),
        ]
        table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
        title = f"**{self.title}**\n\n" if self.title else ""
        return title + table + (f"\n{self.note}\n" if self.note else "")


def interleaved(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, Timing]:
    """Time `contestants` in turn, all of them in every round, after `warm_up` rounds that do not count.

    The order rotates by one each round: what the machine does meanwhile, and what a call leaves in its caches
    for the next, meets all alike. A call that only hands work to a GPU must wait for it itself.
    """
    names = list(contestants)
    nanoseconds: dict[str, list[int]] = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = perf_counter_ns()
            contestants[name]()
            taken = perf_counter_ns() - start
            if turn >= warm_up:
                nanoseconds[name].append(taken)
    return {name: Timing(np.array(taken) / 1e6) for name, taken in nanoseconds.items()}


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times longer `slow` took than `fast`: the median over rounds, with its 95 % interval.

    Both are of one `interleaved`, so that a round's two calls met the same machine.
    """
    ratios = slow.milliseconds / fast.milliseconds
    return float(np.median(ratios)), *bootstrap(ratios, np.median)


def bootstrap(
    values: NDArray[Any], statistic: Callable[[NDArray[Any]], Any], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a `statistic` of `values` (N, ...), which are resampled by their first axis.

    Rows stay whole: what is paired in them stays paired. The ends are values that a resample gave, so that
    infinite ones, as of a frame without a pose, do no harm; those that are NaN are left out, and where all
    are, so is the interval. (B. Efron, R. Tibshirani: An Introduction to the Bootstrap, 1993, ch. 13.)
    """
    values = np.asarray(values)
    random = np.random.default_rng(seed)
    samples = np.array(
        [statistic(values[random.integers(len(values), size=len(values))]) for _ in range(RESAMPLES)], float
    )
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return np.nan, np.nan
    low, high = np.percentile(samples, (2.5, 97.5), method="nearest")
    return float(low), float(high)


def pose_errors(frames: Sequence[Frame], poses: Sequence[Array | None]) -> Array:
    """Errors (N, 2), metres and degrees, of world_from_camera in `frames`; infinite where there is none."""
    errors = [
        (np.inf, np.inf) if pose is None else pose_error(pose, frame.world_from_camera)
        for frame, pose in zip(frames, poses, strict=True)
    ]
    return np.array(errors).reshape(-1, 2)


def recordings(*names: str) -> Path:
    """`DATA`, or the folder of that name in it. Ends the program, saying what to do, where it is absent."""
    folder = DATA.joinpath(*names)
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there: set OFVL_DATA to the folder that holds the recordings")
    return folder


def is_finished(model: Path) -> bool:
    """Whether a training that ran to its end is there."""
    return model.exists() and load_manifest(model).training.finished


def require_end(finished: bool) -> None:
    """Ends the script when a training was stopped: nothing is to be measured of what is half trained."""
    if not finished:
        raise SystemExit("stopped; the same command continues")


def write(name: str, command: str, tables: list[Table], figures: Mapping[str, Any]) -> None:
    """Write benchmarks/results/NAME.json and print the tables.

    `command` is what a user types to get them again, 'benchmarks/NAME.py --rounds 20': it names the script
    whose docstring explains them. `figures` are plain numbers, for tests and prose; NaN and infinity, which
    JSON lacks, become None.
    """
    write_json(
        RESULTS / f"{name}.json",
        {
            "command": command,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "computed_by": provenance(torch.device("cpu")),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "openvino": _version("openvino"),
            "tables": [asdict(table) for table in tables],
            "figures": _plain(figures),
        },
    )
    for table in tables:
        print(table.markdown())


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _plain(value: Any) -> Any:
    """What JSON has of a number, text, None, or of a mapping or sequence of them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
