"""How far the clocks of camera and LiDAR are apart: found where both turned.

A constant error of the stamps shifts the turns that the camera sees against those of the trajectory. The
offset is the one under which they agree best; a robot that never turns tells nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation, RotationSpline

from ofvl_core.geometry import Array
from ofvl_core.livl.visual_rotation import Turns
from ofvl_core.stamped_path import StampedPath

LARGEST = 0.3
"""Seconds: RealSense cameras were reported up to 0.2 s off."""

GRID = 0.01
RATE_NOISE = 0.03
"""Radians a second of disagreement that is ordinary; beyond it a turn counts less (Huber)."""

LEAST_TURNS = 30
LEAST_CHANGE = 0.1
"""Radians a second by which the turning must change (root mean square) for it to tell the time."""

BLOCKS = 20
"""Stretches of a drive that are left out one after another to see how certain the offset is (jackknife)."""


@dataclass(frozen=True)
class TimeOffset:
    """Seconds to add to a camera's stamp to have the trajectory's time, with their standard deviation."""

    seconds: float
    deviation: float
    turns: int

    @property
    def certain(self) -> bool:
        """Whether it may be used: to within 10 ms, and not at the edge of what was tried."""
        return self.deviation < 0.01 and abs(self.seconds) < LARGEST - GRID


UNKNOWN = TimeOffset(0.0, float("inf"), 0)


def estimate_time_offset(turns: Turns, path: StampedPath, body_from_camera: Array) -> TimeOffset:
    """The offset between the `turns` a camera saw and a `path` world_from_body it was carried along.

    `UNKNOWN` where there are too few turns within the path, or the robot always turns alike.
    """
    if len(path) < 4:
        return UNKNOWN
    origin = path.stamps[0]
    spline = RotationSpline((path.stamps - origin) * 1e-9, Rotation.from_matrix(path.poses[:, :3, :3]))
    starts, ends = (turns.starts - origin) * 1e-9, (turns.ends - origin) * 1e-9
    last = (path.stamps[-1] - origin) * 1e-9
    inside = (starts > LARGEST) & (ends < last - LARGEST)
    starts, ends = starts[inside], ends[inside]
    if len(starts) < LEAST_TURNS:
        return UNKNOWN
    span = (ends - starts)[:, None]
    seen = turns.vectors[inside] / span
    camera_from_body = Rotation.from_matrix(body_from_camera[:3, :3].T)
    turning = (spline(starts).inv() * spline(ends)).as_rotvec() / span
    if np.sqrt(turning.var(axis=0).sum()) < LEAST_CHANGE:
        return UNKNOWN

    def misfit(offset: float, share: float = 1.0) -> Array:
        turned = spline(starts + offset).inv() * spline(ends + offset)
        return share * camera_from_body.apply(turned.as_rotvec()) / span - seen

    def best(start: float, kept: Array) -> float:
        # Corners in small or blurred images follow a turn by too little. Unless that is a number of its own,
        # a drive that turns ever faster makes it an offset.
        solution = least_squares(
            lambda x: (misfit(x[0], x[1])[kept]).ravel(),
            [start, 1.0],
            loss="huber",
            f_scale=RATE_NOISE,
            diff_step=1e-3,
            x_scale=(GRID, 0.1),
            bounds=((-LARGEST, 0.5), (LARGEST, 1.5)),
        )
        return float(solution.x[0])

    grid = np.arange(-LARGEST + GRID, LARGEST, GRID)
    costs = [np.minimum(np.linalg.norm(misfit(offset), axis=1), 10 * RATE_NOISE).sum() for offset in grid]
    start = float(grid[int(np.argmin(costs))])
    offset = best(start, np.ones(len(starts), bool))
    blocks = np.arange(len(starts)) * BLOCKS // len(starts)
    others = np.array([best(offset, blocks != block) for block in range(BLOCKS)])
    deviation = float(np.sqrt((BLOCKS - 1) / BLOCKS * np.square(others - others.mean()).sum()))
    return TimeOffset(offset, deviation, len(starts))


def agreed(offsets: list[TimeOffset]) -> list[TimeOffset]:
    """One offset for each of a robot's drives: where the certain ones agree, their weighted mean for all.

    Where they differ, as after a camera was restarted, each drive keeps its own, and one without takes the
    median of the others; `UNKNOWN` where no drive tells.
    """
    certain = [offset for offset in offsets if offset.certain]
    if not certain:
        return [UNKNOWN] * len(offsets)
    seconds = np.array([offset.seconds for offset in certain])
    deviations = np.array([max(offset.deviation, 1e-4) for offset in certain])
    weights = deviations**-2 / np.sum(deviations**-2)
    mean = float(weights @ seconds)
    together = TimeOffset(mean, float(np.sum(deviations**-2) ** -0.5), sum(each.turns for each in certain))
    if (np.abs(seconds - mean) < 3 * deviations + 0.003).all():
        return [together] * len(offsets)
    middle = TimeOffset(float(np.median(seconds)), float(np.ptp(seconds)), 0)
    return [offset if offset.certain else middle for offset in offsets]
