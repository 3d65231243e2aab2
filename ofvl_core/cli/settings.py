"""Training settings on the command line: a preset, a file, single settings; and `ofvl config`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ofvl_core.cli.console import stdout
from ofvl_core.errors import ConfigError
from ofvl_core.training.config import Optimisation, make_config, read_settings, write_settings
from ofvl_core.training.presets import PRESETS

PresetOption = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"A run of the paper: {', '.join(PRESETS)}.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings as YAML, as `ofvl config` prints them."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting, as network.sharing=all_shared; may be repeated."
    ),
]


def config(
    preset: PresetOption = None,
    file: ConfigOption = None,
    changes: SetOption = None,
) -> None:
    """Print all training settings with their meaning, for `ofvl train --config`."""
    print_settings(make_config(*layers(preset, file, changes)))


def print_settings(settings: Optimisation) -> None:
    """Settings of any kind of training as YAML."""
    stdout.print(write_settings(settings), end="", highlight=False, soft_wrap=True, markup=False)


def layers(
    preset: str | None,
    file: Path | None,
    changes: Sequence[str] | None,
    presets: Mapping[str, dict[str, Any]] = PRESETS,
    **single: Any,
) -> list[dict[str, Any]]:
    """Settings in the order in which they take precedence, the last one most; `single` that are not None.

    What is said of one key comes last: `--model ofvl_ms_lite --set network.looks=5` means both.
    """
    given = []
    if preset is not None:
        if preset not in presets:
            raise ConfigError(f"unknown preset '{preset}'; choose one of {', '.join(presets)}")
        given.append(presets[preset])
    if file is not None:
        given.append(read_settings(file))
    given.append({name: value for name, value in single.items() if value is not None})
    return given + [_setting(change) for change in changes or []]


def _setting(change: str) -> dict[str, Any]:
    key, equals, text = change.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        equals = ""
    if not equals or not key:
        raise ConfigError(f"--set {change}: not KEY=VALUE; write for example --set seed=1")
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
