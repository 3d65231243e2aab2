"""`ofvl livl`: data sets from a robot's recordings."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.progress import TaskID

from ofvl_core.cli.console import progress_bar, stderr, stdout
from ofvl_core.errors import ConfigError

app = typer.Typer(help="Data sets from drives of a camera and a LiDAR.", no_args_is_help=True)


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder that receives one sub-folder a scene.")],
    scene: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One of the paper's four scenes; may be repeated. Default: all."),
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Drives, and bags, a scene.")] = 4,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of a drive.")] = 20.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same measurements.")] = 0,
    time_offset: Annotated[
        float, typer.Option(metavar="SECONDS", help="What the camera's stamps lack to be the LiDAR's time.")
    ] = -0.03,
    images: Annotated[str, typer.Option(metavar="compressed|raw")] = "compressed",
    storage: Annotated[str, typer.Option(metavar="mcap|sqlite3")] = "mcap",
) -> None:
    """Drive a robot with a D435 and a VLP-16 through rooms of the paper's sizes; write bags and the truth."""
    from ofvl_core.simulation.livl import simulate_livl
    from ofvl_core.simulation.places import BUILDERS

    with progress_bar() as bar:
        task = bar.add_task("rendering", total=None)
        made = simulate_livl(
            out,
            scenes=tuple(scene or BUILDERS),
            sequences=sequences,
            seconds=seconds,
            seed=seed,
            time_offset=time_offset,
            images=images,
            storage=storage,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for bag in made:
        stdout.print(str(bag), soft_wrap=True, highlight=False)


@app.command()
def build(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="BAG... OUT", help="Bags of ROS 1 or 2, then the folder of data sets."),
    ],
    scene: Annotated[str, typer.Option(metavar="NAME", help="The scene's name, and that of its folder.")],
    poses: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="aloam, kiss-icp: computed from the scans. topic: A-LOAM's /aft_mapped_to_init. /NAME: "
            "another topic of Odometry or poses. tf:PARENT,CHILD. A TUM file, or a folder with one a "
            "bag, BAG.txt.",
        ),
    ] = "aloam",
    compare: Annotated[
        str,
        typer.Option(
            metavar="SOURCE", help="A second source to compare with; none; auto takes the other method."
        ),
    ] = "auto",
    body: Annotated[
        str | None,
        typer.Option(metavar="FRAME", help="tf frame of the poses, where they do not say so: the LiDAR's."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BAG",
            help="Bag for testing, by its name; may be repeated. As marked, else the last of several.",
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="A topic that is not to be guessed: color, color_info, depth, depth_info or cloud; may be "
            "repeated.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where sensors sit, in place of /tf_static: see config/camera_lidar.yaml."
        ),
    ] = None,
    refine_calibration: Annotated[
        bool,
        typer.Option(
            "--refine-calibration", help="Turn and shift the LiDAR so that it fits the depth images."
        ),
    ] = False,
    time_offset: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="To be added to the camera's stamps; found by itself without this."
        ),
    ] = None,
    distance: Annotated[
        float,
        typer.Option(min=0.0, metavar="METRES", help="A frame is taken when the camera has moved so far ..."),
    ] = 0.05,
    angle: Annotated[
        float, typer.Option(min=0.0, metavar="DEGREES", help="... or turned so far since the last one.")
    ] = 3.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of that name.")] = False,
) -> None:
    """Build a data set, with poses, of one scene from the bags of its drives.

    Interrupt it as you like: the same command goes on where it was.
    """
    from ofvl_core.livl.build import build as run
    from ofvl_core.livl.options import Options
    from ofvl_core.livl.selection import Spacing

    *bags, out = paths
    if not bags:
        raise ConfigError(f"no bag before {out}; write the bags, then the folder of data sets")
    options = Options(
        poses=poses,
        compare=compare,
        body=body,
        calibration=calibration,
        refine_calibration=refine_calibration,
        time_offset=time_offset,
        test=tuple(test or ()),
        topics=dict(_named(word) for word in topic or []),
        spacing=Spacing(distance, float(np.radians(angle))),
    )
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(doing: str, done: int, total: int | None) -> None:
            if doing not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[doing] = bar.add_task(escape(doing), total=total)
            bar.update(tasks[doing], completed=done, total=total)

        root = run(bags, out, scene, options, overwrite=overwrite, progress=show)
    stdout.print(str(root), soft_wrap=True, highlight=False)
    stderr.print(f"report: {root / 'report.html'}", soft_wrap=True, highlight=False)


def _named(word: str) -> tuple[str, str]:
    role, equals, name = word.partition("=")
    if not (role and equals and name):
        raise ConfigError(f"--topic {word}: not ROLE=NAME; write for example --topic color=/camera/image_raw")
    return role, name
