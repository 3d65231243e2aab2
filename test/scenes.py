"""Data sets in the 7-Scenes layout, made by the tests."""

from pathlib import Path

import cv2
import numpy as np

from ofvl_core import geometry

MATRIX = "60 0 39.5\n0 60 29.5\n0 0 1\n"


def write_scene(root: Path, frames: int = 4, sequences: int = 2, color: str = "png") -> Path:
    """A scene of random images, 80x60, sequence 1 for training and the last one for testing."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "camera-intrinsics.txt").write_text(MATRIX)
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text(f"sequence{sequences}\n")
    for sequence in range(1, sequences + 1):
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir()
        for number in range(frames):
            stem = folder / f"frame-{number:06d}"
            cv2.imwrite(f"{stem}.color.{color}", random.integers(0, 255, (60, 80, 3), np.uint8))
            cv2.imwrite(f"{stem}.depth.png", random.integers(500, 4000, (60, 80), np.uint16))
            pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
            np.savetxt(f"{stem}.pose.txt", pose)
    return root
