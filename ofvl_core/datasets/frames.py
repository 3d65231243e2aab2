"""Frames stored as frame-NNNNNN.color.png (or .jpg), .depth.png and .pose.txt in one folder."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofvl_core.datasets.scene import Frame
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, nearest_rigid

logger = logging.getLogger(__name__)

VIDEO_RATE = 30.0
"""Frames a second where a sequence has no time stamps: frame numbers count a 30 Hz video."""


@dataclass(frozen=True)
class NumberedFrame:
    """Files of one frame: its number as written, its colour and depth image and its pose file's path."""

    number: str
    color: Path
    depth: Path | None
    pose: Path

    def posed(self, sequence: str, timestamp: float | None = None) -> Frame | None:
        """The frame with the pose in its file, as it stands there; None when that holds NaN or infinity.

        Raises DataError when the pose is missing or not rigid.
        """
        pose = read_matrix(self.pose, (4, 4))
        if not np.isfinite(pose).all():
            return None
        if timestamp is None:
            timestamp = int(self.number) / VIDEO_RATE
        name = f"{sequence}/frame-{self.number}"
        return Frame(name, sequence, self.color, self.depth, checked_rigid(pose, self.pose), timestamp)


def numbered_frames(folder: Path) -> list[NumberedFrame]:
    """All frames of a folder by rising number. Raises DataError when there is none or a number is none."""
    colors = sorted([*folder.glob("frame-*.color.png"), *folder.glob("frame-*.color.jpg")])
    if not colors:
        raise DataError(f"{folder}: no frame-*.color.png or .jpg; restore the images")
    found = []
    for color in colors:
        number = color.name.split(".")[0].removeprefix("frame-")
        if not number.isdecimal():
            raise DataError(f"{color}: '{number}' is not a frame number; name it like frame-000012.color.png")
        stem = folder / f"frame-{number}"
        depth = Path(f"{stem}.depth.png")
        found.append(
            NumberedFrame(number, color, depth if depth.exists() else None, Path(f"{stem}.pose.txt"))
        )
    return found


def log_skipped(where: Path, skipped: int, total: int) -> None:
    """Say how many frames of a folder have no usable pose, if any."""
    if skipped:
        logger.warning(
            "%s: skipped %d of %d frames whose pose is missing or holds NaN or infinity",
            where,
            skipped,
            total,
        )


def checked_rigid(pose: Array, path: Path) -> Array:
    """The rigid transform (4, 4) that a matrix from `path` is but for rounding. Raises DataError."""
    rotation = pose[:3, :3]
    if abs(np.linalg.det(rotation) - 1.0) > 0.05 or not np.allclose(
        rotation @ rotation.T, np.eye(3), atol=0.05
    ):
        raise DataError(
            f"{path}: not a camera-to-world pose (its 3x3 part is no rotation); write a rigid 4x4"
        )
    return nearest_rigid(pose)


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not blank. Raises DataError."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; restore the file") from None


def read_matrix(path: Path, shape: tuple[int, int]) -> Array:
    """Numbers in a text file, a row a line, perhaps NaN or infinite. Raises DataError."""
    if not path.exists():
        raise DataError(f"{path}: missing; every scene needs its intrinsics and every frame its pose")
    try:
        matrix = np.array([[_number(word) for word in line.split()] for line in read_lines(path)])
    except ValueError:
        matrix = np.empty(0)
    if matrix.shape != shape:
        raise DataError(f"{path}: must hold {shape[0]}x{shape[1]} numbers; correct the file")
    return matrix


def _number(word: str) -> float:
    return math.nan if "#" in word else float(word)  # Windows writes 1.#INF and -1.#IND
