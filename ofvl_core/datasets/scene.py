"""What every data set is read into."""

from dataclasses import dataclass
from pathlib import Path

from ofvl_core.camera import Camera
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array


@dataclass(frozen=True)
class Frame:
    """One posed image: `timestamp` in seconds from the start of its sequence."""

    name: str
    sequence: str
    color: Path
    depth: Path | None
    world_from_camera: Array
    timestamp: float


@dataclass(frozen=True)
class SceneData:
    """One scene: its colour camera and, per split, its frames in temporal order."""

    name: str
    root: Path
    camera: Camera
    splits: dict[str, list[Frame]]

    def frames(self, split: str) -> list[Frame]:
        """Frames of a split. Raises DataError when the scene has no such split or it is empty."""
        frames = self.splits.get(split, [])
        if not frames:
            raise DataError(
                f"{self.root}: the {split} split is empty; list sequences in {split.capitalize()}Split.txt"
            )
        return frames
