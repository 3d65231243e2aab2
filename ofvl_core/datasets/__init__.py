"""Data sets: one file a layout, all giving a `SceneData`."""

from ofvl_core.datasets.scene import Frame, SceneData
from ofvl_core.datasets.seven_scenes import find_scenes, load_scene

__all__ = ["Frame", "SceneData", "find_scenes", "load_scene"]
