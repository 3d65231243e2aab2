"""`ofvl bag`: data sets to rosbags."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.cli.console import progress_bar, stderr

app = typer.Typer(help="Make rosbags.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `from-dataset` a sub-command while it is the only one."""


@app.command("from-dataset")
def from_dataset(
    scene: Annotated[Path, typer.Argument(help="Scene folder in any known layout.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bag.")],
    split: Annotated[str, typer.Option(metavar="train|test")] = "test",
    storage: Annotated[str, typer.Option(metavar="mcap|sqlite3")] = "mcap",
) -> None:
    """Write a scene's frames as a ROS 2 bag with RealSense topic names, camera_info and tf."""
    from ofvl_core.bag import bag_from_dataset

    with progress_bar() as bar:
        task = bar.add_task("writing", total=None)
        messages = bag_from_dataset(
            scene,
            out,
            split=split,
            storage=storage,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    stderr.print(f"{out}: {messages} messages", soft_wrap=True)
