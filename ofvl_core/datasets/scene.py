"""What every data set is read into."""

from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets import images
from ofvl_core.datasets.registration import DepthRegistration
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array

HOLDOUT = "holdout"
"""Name of the split that `SceneData.holding_out` makes."""

GOLDEN = 0.618
"""Golden section: steps of it around a circle never come close to where they were."""

SHORTEST_RUN, LONGEST_RUN = 5, 50
"""Frames that are held out in a row: in fewer each is like a neighbour that is not, and many leave a hole."""


@dataclass(frozen=True)
class Frame:
    """One posed image: `timestamp` in seconds from the start of its sequence.

    `world_from_camera` (4, 4) is the pose of the colour camera's optical frame, whatever the files hold.
    """

    name: str
    sequence: str
    color: Path
    depth: Path | None
    world_from_camera: Array
    timestamp: float


@dataclass(frozen=True)
class DepthFormat:
    """What a data set's depth images hold: metres a grey value and the values that mean "not measured".

    `camera` is that of the images, None when they have the colour image's size; `registration` carries
    them to the colour camera where they were not before.
    """

    unit: float = images.MILLIMETRE
    invalid: tuple[int, ...] = images.INVALID_DEPTHS
    camera: Camera | None = None
    registration: DepthRegistration | None = None


@dataclass(frozen=True)
class SceneData:
    """One scene: its colour camera and, per split, its frames in temporal order."""

    name: str
    root: Path
    camera: Camera
    splits: dict[str, list[Frame]]
    depth_format: DepthFormat = field(default_factory=DepthFormat)
    skipped_poses: int = 0
    """Frames left out because their pose holds NaN or infinity, or because none belongs to them."""

    def frames(self, split: str) -> list[Frame]:
        """Frames of a split. Raises DataError when the scene has no such split or it is empty."""
        frames = self.splits.get(split, [])
        if not frames and split in ("train", "test"):
            raise DataError(
                f"{self.root}: the {split} split is empty; name its sequences where the layout lists them "
                f"({split.capitalize()}Split.txt, dataset.yaml)"
            )
        if split not in self.splits:
            raise DataError(
                f"{self.root}: there is no split '{split}'; choose one of {', '.join(self.splits)}"
            )
        if not frames:
            raise DataError(
                f"{self.root}: no frames are held out for {split}; record longer sequences, or train with a "
                "larger holdout"
            )
        return frames

    def holding_out(self, share: float) -> "SceneData":
        """The scene with about `share` of each training sequence moved to a split of its own, `HOLDOUT`.

        They are runs of neighbours, evenly spread over a sequence, and in each sequence elsewhere. One too
        short to give `SHORTEST_RUN` frames gives none.
        """
        kept: list[Frame] = []
        held: list[Frame] = []
        phase = 0.0
        for _, group in groupby(self.frames("train"), key=lambda frame: frame.sequence):
            sequence = list(group)
            total = round(share * len(sequence))
            runs = -(-total // LONGEST_RUN) if total >= SHORTEST_RUN else 0
            out = np.zeros(len(sequence), bool)
            phase = (phase + GOLDEN) % 1.0
            for run in range(runs):
                length, free = total // runs, len(sequence) // runs
                start = run * free + round(phase * (free - length))
                out[start : start + length] = True
            for frame, is_held in zip(sequence, out, strict=True):
                (held if is_held else kept).append(frame)
        return replace(self, splits={**self.splits, "train": kept, HOLDOUT: held})

    def read_color(self, frame: Frame) -> NDArray[np.uint8]:
        """RGB image (H, W, 3) of `camera`'s size. Raises DataError when unreadable or of another size."""
        return images.read_color(frame.color, self.camera)

    def read_depth(self, frame: Frame) -> NDArray[np.uint16]:
        """Depth (h, w) in millimetres along the colour camera's axis, 0 where unknown.

        It covers the field of view of the colour image, maybe at another resolution:
        `camera.resized(w, h)` is its camera. Raises DataError when the frame has no depth image, or one
        that is unreadable or of the wrong size.
        """
        if frame.depth is None:
            raise DataError(f"{frame.color}: has no depth beside it; restore its depth image")
        form = self.depth_format
        depth = images.read_depth(frame.depth, form.camera or self.camera, form.unit, form.invalid)
        return form.registration(depth) if form.registration else depth
