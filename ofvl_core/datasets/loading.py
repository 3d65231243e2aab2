"""Scene folders found and read, whatever their layout."""

from pathlib import Path

from ofvl_core.datasets import described, kitti_odometry, livl, posed, seven_scenes, twelve_scenes
from ofvl_core.datasets.layout import Layout
from ofvl_core.datasets.scene import SceneData
from ofvl_core.errors import DataError

LAYOUTS = (
    described.LAYOUT,
    kitti_odometry.LAYOUT,
    posed.LAYOUT,
    seven_scenes.LAYOUT,
    twelve_scenes.LAYOUT,
    livl.LAYOUT,
)
"""The first that recognises a folder reads it: what a user wrote beside the data comes first, and a folder of
intrinsics and a video is more than one with intrinsics."""

DEPTH = 2
"""Levels below a folder at which scenes are looked for: 12-Scenes nests two deep, apt1/kitchen."""


def recognise(root: Path) -> tuple[Layout, str] | None:
    """The layout of a scene folder and what shows it, or None."""
    for layout in LAYOUTS:
        sign = layout.sign(root)
        if sign is not None:
            return layout, sign
    return None


def find_scenes(paths: list[Path]) -> list[Path]:
    """Scene folders among `paths`: each path is one, or a folder that holds some. Raises DataError."""
    scenes: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; give a scene folder or a folder of scenes")
        inside = _scenes_in(path, DEPTH)
        if not inside:
            packed = next(path.glob("*.zip"), None)
            remedy = (
                f"unzip {packed.name} first" if packed else "docs/datasets.md lists what a scene looks like"
            )
            raise DataError(f"{path}: no scene found, neither here nor up to {DEPTH} levels below; {remedy}")
        scenes += inside
    names = [_known_layout(scene).name(scene) for scene in scenes]
    if len(set(names)) < len(names):
        raise DataError(
            f"scene names repeat ({', '.join(sorted(names))}); rename a folder, it names its scene"
        )
    return scenes


def load_scene(root: Path, register_depth: bool = True) -> SceneData:
    """Read a scene's intrinsics, splits and poses in whichever layout it has; images stay on disk.

    Without `register_depth` data sets whose depth is not registered to colour are taken as if it were,
    which is the convention of much published code. Frames whose pose holds NaN or infinity are skipped,
    counted and logged. Raises DataError for everything else that is missing or wrong.
    """
    root = Path(root)
    return _known_layout(root).load(root, register_depth)


def _scenes_in(folder: Path, levels: int) -> list[Path]:
    if recognise(folder):
        return [folder]
    if levels == 0:
        return []
    try:
        children = sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); correct its permissions") from None
    return [scene for child in children for scene in _scenes_in(child, levels - 1)]


def _known_layout(root: Path) -> Layout:
    found = recognise(root)
    if found is None:
        raise DataError(
            f"{root}: not a scene in a known layout; docs/datasets.md lists what a scene looks like"
        )
    return found[0]
