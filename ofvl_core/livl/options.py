"""What the user chooses of a build."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ofvl_core.livl.selection import Spacing

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and how much there is of it where that is known."""


@dataclass(frozen=True)
class Options:
    """`ofvl livl build --help` explains each."""

    poses: str = "aloam"
    compare: str = "auto"
    body: str | None = None
    calibration: Path | None = None
    refine_calibration: bool = False
    time_offset: float | None = None
    test: tuple[str, ...] = ()
    topics: dict[str, str] = field(default_factory=dict)
    spacing: Spacing = field(default_factory=Spacing)
