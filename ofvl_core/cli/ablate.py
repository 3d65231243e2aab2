"""`ofvl ablate`: what each part of the method is worth on a data set."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.ablation import VARIANTS, gather, measure, plan_runs
from ofvl_core.ablation_tables import fragment, write_tables
from ofvl_core.cli.console import DeviceOption, progress_bar, stderr, stdout
from ofvl_core.cli.settings import ConfigOption, PresetOption, SetOption, layers
from ofvl_core.cli.train import STOPPED, CacheOption
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.device import choose_device
from ofvl_core.errors import ConfigError
from ofvl_core.training.config import make_config
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.workers import team_size


def ablate(
    data: Annotated[list[Path], typer.Argument(help="Scene folders, or folders of scenes.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all models, numbers and tables.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant: one alone shows no spread.")] = 3,
    variants: Annotated[
        str, typer.Option(metavar="A,B,...", help="Only these of all; the tables hold whatever was run.")
    ] = ",".join(VARIANTS),
    preset: PresetOption = None,
    config: ConfigOption = None,
    iterations: Annotated[int | None, typer.Option(help="Steps of every training.")] = None,
    changes: SetOption = None,
    cache: CacheOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train and measure the variants of the paper's Tables 4 to 7 and some beyond.

    Every training sees as many batches of each of its scenes as any other. The tables (ablation.json,
    ablation.md, report.html) are written anew after each run. Ctrl-C stops it; the same command continues,
    and what is finished is not trained again.
    """
    if team_size() > 1:
        raise ConfigError("an ablation runs in one process; start several with different --variants instead")
    settings = make_config(*layers(preset, config, changes, iterations=iterations))
    scenes = [load_scene(path, settings.register_depth) for path in find_scenes(data)]
    chosen = choose_device(device)
    runs = plan_runs(scenes, settings, variants.split(","), seeds, out)
    left = [run.steps_left() for run in runs]
    try:
        with progress_bar() as bar:
            task = bar.add_task("", total=sum(left))

            def on_step(iteration: int, losses: list[float]) -> None:
                bar.advance(task, len(losses))

            for number, run in enumerate(runs, start=1):
                name = f"{run.variant.name}, seed {run.config.seed} ({number} of {len(runs)})"
                bar.update(task, description=name)
                measure(run, Surroundings(chosen, cache, on_step=on_step))
                write_tables(out, gather(out))
    except KeyboardInterrupt:
        stderr.print("stopped; the same command continues")
        raise typer.Exit(STOPPED) from None
    stdout.print(fragment(gather(out)), end="", highlight=False, soft_wrap=True, markup=False)
    stderr.print(f"tables and report in {out}", highlight=False, soft_wrap=True)
