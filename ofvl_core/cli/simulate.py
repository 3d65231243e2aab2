"""`ofvl simulate`: synthetic scenes to try everything on."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.cli.console import progress_bar, stdout


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder that receives one sub-folder a scene.")],
    scenes: Annotated[int, typer.Option(min=1, help="Number of rooms.")] = 3,
    frames: Annotated[int, typer.Option(min=2, help="Frames a sequence.")] = 120,
    rate: Annotated[float, typer.Option(help="Frames a second; 10 and more are a video.")] = 3.0,
    train_sequences: Annotated[int, typer.Option(min=1)] = 2,
    test_sequences: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    motion_blur_ms: Annotated[
        float, typer.Option(min=0.0, help="Exposure time that smears the image.")
    ] = 0.0,
    twins: Annotated[
        int,
        typer.Option(
            min=0,
            help="So many of the rooms, the last, are built and painted like the first: only pictures and "
            "free-standing furniture differ.",
        ),
    ] = 0,
) -> None:
    """Make procedural rooms seen by an RGB-D camera on a wheeled robot."""
    from ofvl_core.simulation import simulate as run

    with progress_bar() as bar:
        task = bar.add_task("rendering", total=None)
        made = run(
            out,
            scenes,
            seed=seed,
            train_sequences=train_sequences,
            test_sequences=test_sequences,
            frames=frames,
            rate=rate,
            motion_blur_ms=motion_blur_ms,
            twins=twins,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for scene in made:
        stdout.print(str(scene), soft_wrap=True)
