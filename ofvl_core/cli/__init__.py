"""The `ofvl` command: one file a command."""

import logging
import sys

import typer
from rich.logging import RichHandler

from ofvl_core import __version__
from ofvl_core.cli.bag import app as bag_app
from ofvl_core.cli.console import stderr
from ofvl_core.cli.evaluate import evaluate
from ofvl_core.cli.info import info
from ofvl_core.cli.localize import localize
from ofvl_core.cli.simulate import simulate
from ofvl_core.cli.train import train
from ofvl_core.errors import OfvlError

app = typer.Typer(
    name="ofvl",
    help="Visual relocalization in many scenes with one network (OFVL-MS).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (simulate, train, evaluate, localize, info):
    app.command()(command)
app.add_typer(bag_app, name="bag")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ofvl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    handler = RichHandler(console=stderr, show_time=False, show_path=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def main() -> None:
    """Run the command line; bad input ends in one sentence and exit status 1."""
    if sys.argv[-1] == "--json":  # a trailing --json without a file means stdout
        sys.argv.append("-")
    try:
        app()
    except OfvlError as error:
        stderr.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
