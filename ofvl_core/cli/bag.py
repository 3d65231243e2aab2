"""`ofvl bag`: data sets to rosbags, and rosbags made whole."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.cli.console import progress_bar, stderr

app = typer.Typer(help="Make and repair rosbags.", no_args_is_help=True)


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


@app.command()
def repair(
    bag: Annotated[Path, typer.Argument(help="Bag that was not closed: a folder, or one of its files.")],
    out: Annotated[Path | None, typer.Argument(help="Folder of the whole bag; else BAG_repaired.")] = None,
) -> None:
    """Recover what a killed recorder has left as a whole bag; the damaged one stays as it is."""
    from ofvl_core.recording.repair import repair as make_whole

    with progress_bar() as bar:
        task = bar.add_task("recovering", total=None)
        result = make_whole(
            bag, out, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if result is None:
        stderr.print(f"{bag}: nothing to repair", soft_wrap=True)
        return
    recovered = f"{result.messages} messages of {result.seconds:.1f} s recovered"
    lost = "; ".join(result.lost) or "what had not reached the disc, a second at most"
    stderr.print(f"{result.out}: {recovered}; lost: {lost}", soft_wrap=True)
