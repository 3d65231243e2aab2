"""Trajectories as text: the TUM format, `timestamp tx ty tz qx qy qz qw` a row."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ofvl_core.errors import DataError
from ofvl_core.files import write_text
from ofvl_core.geometry import Array, quaternion_xyzw, transform


def read_tum(path: Path) -> tuple[Array, Array]:
    """Stamps (N,) in seconds and poses (N, 4, 4) of a TUM file. Raises DataError."""
    try:
        rows = np.loadtxt(path, ndmin=2)
    except OSError:
        raise DataError(f"{path}: cannot be read; restore the file") from None
    except ValueError as error:
        raise DataError(f"{path}: not a TUM trajectory ({error}); rows are t tx ty tz qx qy qz qw") from None
    if rows.shape[1] != 8 or not np.isfinite(rows).all():
        raise DataError(f"{path}: not a TUM trajectory; rows are 8 finite numbers: t tx ty tz qx qy qz qw")
    poses = np.stack([transform(row[1:4], row[4:]) for row in rows])
    return rows[:, 0], poses


def write_tum(path: Path, stamped_poses: Iterable[tuple[float, Array]]) -> None:
    """Write (timestamp, pose) pairs as a TUM file, atomically."""
    rows = []
    for stamp, pose in stamped_poses:
        numbers = (*pose[:3, 3], *quaternion_xyzw(pose))
        rows.append(" ".join([f"{stamp:.9f}", *(f"{number:.9f}" for number in numbers)]))
    write_text(path, "\n".join(rows) + "\n" if rows else "")
