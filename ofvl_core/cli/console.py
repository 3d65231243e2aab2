"""What the commands print: progress and messages to stderr, results to stdout or a file."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ofvl_core.device import DEVICES
from ofvl_core.files import write_json
from ofvl_core.report import CAPTION, table_rows

stderr = Console(stderr=True)
stdout = Console()

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")
]
DeviceOption = Annotated[str, typer.Option(metavar="|".join(DEVICES), help="Where the network runs.")]


def progress_bar() -> Progress:
    """A progress bar on stderr that disappears when it is done; none where stderr is a file."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def emit_json(content: Any, target: str) -> None:
    """Write `content` as JSON to a file or, for "-", to stdout."""
    if target == "-":
        json.dump(content, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        write_json(Path(target), content)


def print_table(summaries: Sequence[dict[str, Any]]) -> None:
    """Print scene summaries as a table."""
    headings, rows = table_rows(summaries)
    table = Table(
        *headings, caption=CAPTION, box=None, padding=(0, 1, 0, 0), pad_edge=False
    )  # fits 80 columns
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(*row)
    stdout.print(table)
