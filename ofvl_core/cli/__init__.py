"""The `ofvl` command: one file a command."""

import logging
import sys

import typer
from rich.logging import RichHandler
from rich.markup import escape

from ofvl_core import __version__
from ofvl_core.cli.ablate import ablate
from ofvl_core.cli.bag import app as bag_app
from ofvl_core.cli.calibrate import calibrate
from ofvl_core.cli.collab import app as collab_app
from ofvl_core.cli.console import stderr
from ofvl_core.cli.data import app as data_app
from ofvl_core.cli.deploy import deploy
from ofvl_core.cli.evaluate import evaluate
from ofvl_core.cli.export import export
from ofvl_core.cli.info import info
from ofvl_core.cli.keyframes import keyframes
from ofvl_core.cli.livl import app as livl_app
from ofvl_core.cli.localize import localize
from ofvl_core.cli.quantise import quantise
from ofvl_core.cli.scenes import add_scene, merge, remove_scene
from ofvl_core.cli.score import score
from ofvl_core.cli.settings import config
from ofvl_core.cli.simulate import simulate
from ofvl_core.cli.train import train
from ofvl_core.errors import OfvlError, WorkerError
from ofvl_core.training.workers import local_rank

app = typer.Typer(
    name="ofvl",
    help="Visual relocalization in many scenes with one network (OFVL-MS).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    simulate,
    config,
    train,
    add_scene,
    remove_scene,
    merge,
    evaluate,
    keyframes,
    calibrate,
    quantise,
    score,
    ablate,
    localize,
    info,
    deploy,
    export,
):
    app.command()(command)
app.add_typer(bag_app, name="bag")
app.add_typer(collab_app, name="collab")
app.add_typer(data_app, name="data")
app.add_typer(livl_app, name="livl")


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
        if local_rank() == 0 or isinstance(error, WorkerError):  # else its neighbour says the same
            _complain(str(error))
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _complain(f"{error.filename}: {error.strerror}; check the path, its permissions and the space left")
        sys.exit(1)


def _complain(sentence: str) -> None:
    stderr.print(f"[bold red]error:[/] {escape(sentence)}", highlight=False, soft_wrap=True)
