"""Do two trajectories of one drive tell the same story?"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ofvl_core.alignment import rigid
from ofvl_core.geometry import Array
from ofvl_core.stamped_path import StampedPath

LEAST_POSES = 10

PARTED = 0.05
"""Metres of difference that is still ordinary ..."""

PARTED_SHARE = 0.01
"""... and share of the way driven that adds to them."""

PARTED_TURN = np.radians(1.5)


@dataclass(frozen=True)
class Comparison:
    """Differences after the best rigid alignment: root mean squares in metres and radians, the largest
    difference and when, seconds after the first common pose; `way` metres were driven."""

    poses: int
    position: float
    rotation: float
    largest: float
    largest_at: float
    way: float

    @property
    def parted(self) -> bool:
        """Whether at least one of the two must be wrong."""
        return self.position > PARTED + PARTED_SHARE * self.way or self.rotation > PARTED_TURN


def compare(path: StampedPath, other: StampedPath) -> Comparison | None:
    """Compare two paths of the same body, each in a frame of its own; None where they hardly overlap."""
    common = path.stamps[other.covers(path.stamps)]
    if len(common) < LEAST_POSES:
        return None
    poses, others = path.at(common), other.at(common)
    moved = aligned(poses, others) @ others
    apart = np.linalg.norm(poses[:, :3, 3] - moved[:, :3, 3], axis=1)
    turned = Rotation.from_matrix(np.swapaxes(poses[:, :3, :3], 1, 2) @ moved[:, :3, :3]).magnitude()
    worst = int(np.argmax(apart))
    return Comparison(
        len(common),
        float(np.sqrt(np.mean(apart**2))),
        float(np.sqrt(np.mean(turned**2))),
        float(apart[worst]),
        float((common[worst] - common[0]) * 1e-9),
        float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum()),
    )


def aligned(poses: Array, others: Array) -> Array:
    """frame_from_other (4, 4) that brings poses (N, 4, 4) in another frame closest to `poses`.

    Closeness is that of each pose's origin and of the points a metre along its axes: so rotations count, and
    a straight drive leaves nothing open.
    """
    corners = np.vstack([np.zeros(3), np.eye(3)])
    mine = (corners @ np.swapaxes(poses[:, :3, :3], 1, 2) + poses[:, None, :3, 3]).reshape(-1, 3)
    theirs = (corners @ np.swapaxes(others[:, :3, :3], 1, 2) + others[:, None, :3, 3]).reshape(-1, 3)
    return rigid(theirs, mine, np.ones(len(mine)))
