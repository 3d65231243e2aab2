"""What the commands print: progress and messages to stderr, results to stdout or a file."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ofvl_core.device import DEVICES
from ofvl_core.engines import ENGINES
from ofvl_core.errors import ConfigError
from ofvl_core.evaluation import THRESHOLDS
from ofvl_core.files import write_json
from ofvl_core.report import caption, table_rows, threshold_rows

stderr = Console(stderr=True)
stdout = Console()

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")
]
ThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="M,DEG",
        help="Count frames within these errors, bounds included; repeat for more. 0.05,5 is always counted. "
        "Default: " + " ".join(f"{metres:g},{degrees:g}" for metres, degrees in THRESHOLDS),
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="|".join(DEVICES), help="Where the network runs.")]
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"What runs it: {', '.join(ENGINES)}. auto is torch, but openvino-int8 on a CPU for scenes that "
        "`ofvl quantise` prepared.",
    ),
]


def progress_bar(hidden: bool = False) -> Progress:
    """A progress bar on stderr that disappears when it is done; none where stderr is a file."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, transient=True, disable=hidden or not stderr.is_terminal)


def parse_thresholds(words: list[str] | None) -> list[tuple[float, float]]:
    """Metres and degrees of every --threshold, the field's where there is none. Raises ConfigError."""
    thresholds = []
    for word in words or []:
        try:
            metres, degrees = (float(number) for number in word.split(","))
        except ValueError:
            metres = degrees = math.nan
        if not (0 < metres < math.inf and 0 < degrees <= 180):
            raise ConfigError(
                f"--threshold {word} is not metres,degrees; write 0.05,5 for 5 cm and 5 degrees"
            )
        thresholds.append((metres, degrees))
    return thresholds or list(THRESHOLDS)


def emit_json(content: Any, target: str) -> None:
    """Write `content` as JSON to a file or, for "-", to stdout."""
    if target == "-":
        json.dump(content, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        write_json(Path(target), content)


def print_table(summaries: Sequence[dict[str, Any]]) -> None:
    """Print scene summaries and their shares within thresholds as two tables, with their average."""
    print_rows(*table_rows(summaries))
    stdout.print(f"{caption(summaries)}\n", highlight=False, soft_wrap=True)
    print_rows(*threshold_rows(summaries))


def print_rows(headings: list[str], rows: list[list[str]]) -> None:
    """Print a table whose first column is a heading."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits 80 columns
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    stdout.print(table)
