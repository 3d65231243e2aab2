"""Trajectories as text, in the formats in which estimates and ground truth are exchanged.

| format | a row | direction |
|---|---|---|
| TUM | `timestamp tx ty tz qx qy qz qw` | camera to world |
| KITTI | `r11 r12 r13 tx r21 r22 r23 ty r31 r32 r33 tz` | camera to world |
| name | `name qw qx qy qz tx ty tz`, more columns are left alone | WORLD TO CAMERA |

The last is COLMAP's convention, in which pose estimates for 7-Scenes and 12-Scenes are published (DSAC*, ACE,
hloc). Ground truth carries a focal length as ninth column, estimates carry errors and inlier counts. Metres
everywhere; lines that begin with # are comments.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from ofvl_core.errors import DataError
from ofvl_core.files import write_text
from ofvl_core.geometry import Array, invert, quaternion_xyzw

Format = Literal["TUM", "KITTI", "name"]

ROWS: dict[Format, str] = {
    "TUM": "t tx ty tz qx qy qz qw",
    "KITTI": "r11 r12 r13 tx r21 r22 r23 ty r31 r32 r33 tz",
    "name": "name qw qx qy qz tx ty tz",
}

ROTATION_TOLERANCE = 0.05
"""How far a quaternion's length, or a matrix times its transpose, may be from one: text files are rounded."""


@dataclass(frozen=True)
class Trajectory:
    """Poses world_from_camera (N, 4, 4), N > 0, with TUM's `stamps` in seconds or the rows' `names`."""

    source: Path
    poses: Array
    stamps: Array | None = None
    names: list[str] | None = None

    @property
    def format(self) -> Format:
        """KITTI's rows are known by their place alone."""
        if self.names is not None:
            return "name"
        return "KITTI" if self.stamps is None else "TUM"

    @property
    def labels(self) -> list[str]:
        """What people call the poses: name, time stamp or row."""
        if self.names is not None:
            return self.names
        if self.stamps is not None:
            return [f"{stamp:.6f} s" for stamp in self.stamps]
        return [f"row {row}" for row in range(1, len(self.poses) + 1)]


def read_trajectory(path: Path) -> Trajectory:
    """Read a file in one of the formats, recognised by its first row.

    Raises DataError for a file that cannot be read, is empty or of no known format, and for the row that
    breaks it: a missing number, NaN, infinity, a quaternion or matrix that is no rotation.
    """
    rows = _rows(path)
    line, words = rows[0]
    if len(words) >= 8 and not _are_numbers(words[:1]) and _are_numbers(words[1:8]):
        numbers = _numbers(path, "name", [(line, words[1:8]) for line, words in rows])
        camera_from_world = _from_quaternions(path, "name", rows, numbers[:, 4:], numbers[:, [1, 2, 3, 0]])
        return Trajectory(path, invert(camera_from_world), names=[words[0] for _, words in rows])
    if len(words) == 8 and _are_numbers(words):
        numbers = _numbers(path, "TUM", rows)
        poses = _from_quaternions(path, "TUM", rows, numbers[:, 1:4], numbers[:, 4:])
        return Trajectory(path, poses, stamps=numbers[:, 0])
    if len(words) == 12 and _are_numbers(words):
        return Trajectory(path, _from_matrices(path, rows, _numbers(path, "KITTI", rows)))
    known = " or ".join(f"'{row}' ({name})" for name, row in ROWS.items())
    raise DataError(f"{path}: line {line} is of no known trajectory format; write {known}")


def read_tum(path: Path) -> tuple[Array, Array]:
    """Stamps (N,) in seconds and poses (N, 4, 4) of a TUM file. Raises DataError."""
    trajectory = read_trajectory(path)
    if trajectory.stamps is None:
        raise DataError(f"{path}: a {trajectory.format} trajectory, not a TUM one; write '{ROWS['TUM']}'")
    return trajectory.stamps, trajectory.poses


def write_tum(path: Path, stamped_poses: Iterable[tuple[float, Array]]) -> None:
    """Write (timestamp, pose) pairs as a TUM file, atomically."""
    rows = []
    for stamp, pose in stamped_poses:
        numbers = (*pose[:3, 3], *quaternion_xyzw(pose))
        rows.append(" ".join([f"{stamp:.9f}", *(f"{number:.9f}" for number in numbers)]))
    write_text(path, "\n".join(rows) + "\n" if rows else "")


Rows = list[tuple[int, list[str]]]
"""Line number and words of every row."""


def _rows(path: Path) -> Rows:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a trajectory file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file; give a TUM, KITTI or name trajectory") from None
    rows = [(number, line.split()) for number, line in enumerate(lines, 1)]
    rows = [(number, words) for number, words in rows if words and not words[0].startswith("#")]
    if not rows:
        raise DataError(f"{path}: holds no pose; give a TUM, KITTI or name trajectory")
    return rows


def _are_numbers(words: list[str]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return True


def _numbers(path: Path, form: Format, rows: Rows) -> Array:
    """All words as finite numbers, as many in every row as in the first."""
    result = np.empty((len(rows), len(rows[0][1])))
    for place, (line, words) in enumerate(rows):
        if len(words) != result.shape[1] or not _are_numbers(words):
            raise DataError(
                f"{path}: line {line} is not '{ROWS[form]}', as the {form} rows before are; correct it"
            )
        result[place] = [float(word) for word in words]
        if not np.isfinite(result[place]).all():
            raise DataError(
                f"{path}: line {line} holds NaN or infinity, but a {form} row is '{ROWS[form]}' in finite "
                "numbers; leave a frame without a pose out"
            )
    return result


def _from_quaternions(path: Path, form: Format, rows: Rows, positions: Array, quaternions: Array) -> Array:
    lengths = np.linalg.norm(quaternions, axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1) > ROTATION_TOLERANCE)
    if wrong.size:
        first = wrong[0]
        raise DataError(
            f"{path}: the quaternion in line {rows[first][0]} has length {lengths[first]:.3g} instead of 1; "
            f"a {form} row is '{ROWS[form]}'"
        )
    return _poses(positions, Rotation.from_quat(quaternions))


def _from_matrices(path: Path, rows: Rows, numbers: Array) -> Array:
    matrices = numbers.reshape(-1, 3, 4)
    rotations = matrices[:, :, :3]
    off = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = np.flatnonzero((off > ROTATION_TOLERANCE) | (np.linalg.det(rotations) < 0))
    if wrong.size:
        raise DataError(
            f"{path}: the 3x3 part of line {rows[wrong[0]][0]} is no rotation; a KITTI row is "
            f"'{ROWS['KITTI']}'"
        )
    return _poses(matrices[:, :, 3], Rotation.from_matrix(rotations))


def _poses(translations: Array, rotations: Rotation) -> Array:
    poses = np.tile(np.eye(4), (len(translations), 1, 1))
    poses[:, :3, :3] = rotations.as_matrix()
    poses[:, :3, 3] = translations
    return poses
