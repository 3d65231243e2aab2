"""Data sets: one file a layout, all giving a `SceneData`."""

from ofvl_core.datasets.loading import find_scenes, load_scene
from ofvl_core.datasets.scene import Frame, SceneData

__all__ = ["Frame", "SceneData", "find_scenes", "load_scene"]
