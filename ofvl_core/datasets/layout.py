"""What a layout of files must offer to be recognised and read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ofvl_core.datasets.scene import SceneData


def scene_name(*parts: str) -> str:
    """A scene's name from folder names: whatever is not a letter, digit or - becomes _ ("Parking_lot1")."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", "_".join(parts)).lstrip("_-") or "scene"


def folder_name(root: Path) -> str:
    """The name of a scene whose folder names it."""
    return scene_name(root.resolve().name)


@dataclass(frozen=True)
class Layout:
    """A layout of files: `title` for people, and how its scene folders are recognised, named and read."""

    title: str
    sign: Callable[[Path], str | None]
    """What shows that a folder is a scene in this layout, in words; None when it is not one."""
    load: Callable[[Path, bool], SceneData]
    """Read a scene folder; the flag asks for depth registered to colour. Raises DataError."""
    name: Callable[[Path], str] = folder_name
