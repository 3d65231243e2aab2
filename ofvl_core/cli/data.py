"""`ofvl data`: what data sets hold."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import TaskID

from ofvl_core.cli.console import JsonOption, emit_json, progress_bar, stdout
from ofvl_core.datasets import find_scenes
from ofvl_core.datasets.check import SceneReport, check_scene

app = typer.Typer(help="Look at data sets.", no_args_is_help=True)

STYLES = {"error": "bold red", "warning": "yellow"}


@app.callback()
def _group() -> None:
    """Keeps `check` a sub-command while it is the only one."""


@app.command()
def check(
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    every_image: Annotated[bool, typer.Option("--all", help="Read all images, not a sample.")] = False,
    json: JsonOption = None,
) -> None:
    """Say what is in scenes and what is wrong with them. Exit status 1 when one cannot be used as it is."""
    logging.getLogger("ofvl_core.datasets").setLevel(logging.ERROR)  # the report says what would be logged
    scenes = find_scenes(data)
    reports = []
    with progress_bar() as bar:
        for root in scenes:
            task = bar.add_task(escape(root.name), total=None)

            def on_image(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            report = check_scene(root, every_image, on_image)
            bar.update(task, visible=False)
            reports.append(report)
            if json != "-":
                _print(report)
    usable = all(report.usable for report in reports)
    if json is not None:
        emit_json({"usable": usable, "scenes": [report.as_json() for report in reports]}, json)
    if not usable:
        raise typer.Exit(1)


def _print(report: SceneReport) -> None:
    stdout.print(f"[bold]{escape(str(report.path))}[/]", highlight=False, soft_wrap=True)
    for fact in report.facts:
        stdout.print(f"  {fact.topic:13}{escape(fact.text)}", highlight=False, soft_wrap=True)
    for problem in report.problems:
        style = STYLES[problem.severity]
        stdout.print(
            f"  [{style}]{problem.severity}:[/] {escape(problem.text)}", highlight=False, soft_wrap=True
        )
    if report.usable:
        stdout.print("  usable" + (", with warnings" if report.problems else ""))
