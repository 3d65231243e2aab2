"""Where a spinning LiDAR was, by A-LOAM's method: features, scan to scan, scan to map.

LOAM: Zhang and Singh, "LOAM: Lidar Odometry and Mapping in Real-time", RSS 2014. A-LOAM: Qin and Cao's
rewriting of it. After the drive and in a building more can be done than they do on the way:

- Every revolution is refined in the map, and its points' motion compensated by the refined motion.
- A revolution's pose is sought at its middle. The assumed velocity moves what was seen before and after in
  opposite ways, so that its error hardly shows there. At an end, it would come back with the next velocity.
- Poses at the stamps, the revolutions' ends, are interpolated between middles before and after.
- The first revolution is compensated by the velocity that the second one shows.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.lidar.features import Features, Samples, features
from ofvl_core.lidar.motion import STANDSTILL, Velocity
from ofvl_core.lidar.registration import Surfaces, joined, register
from ofvl_core.lidar.scan import Scan
from ofvl_core.lidar.scan_order import rising
from ofvl_core.lidar.scan_to_map import FeatureMap
from ofvl_core.lidar.scan_to_scan import Revolution
from ofvl_core.stamped_path import StampedPath

logger = logging.getLogger(__name__)

ROUNDS = 2  # of finding each point's surface and registering with it
FEWEST = 60  # features: a scan with fewer says too little
SHORTEST = 0.01  # seconds between the middles of two scans: less tells no velocity
# Metres and radians a second by which a prediction may well be wrong. A room may show too little of its floor
# and ceiling to hold the height, but what drives neither rises nor tilts at once, as its sensor sees it.
DEVIATIONS = np.array([0.5, 0.5, 0.03, 0.1, 0.1, 0.5])


class Target(Protocol):
    """Something to register with."""

    def lines(self, points: Array) -> tuple[Surfaces, Array]:
        """The line that each edge point (N, 3) belongs to, and 1 where there is one, 0 else (N,)."""

    def planes(self, points: Array) -> tuple[Surfaces, Array]:
        """The plane that each planar point (N, 3) belongs to, and 1 where there is one, 0 else (N,)."""


def aloam(scans: Iterable[Scan], progress: Callable[[int], None] = lambda done: None) -> StampedPath:
    """Poses first_from_lidar at the scans' stamps; `progress` is told how many scans are done.

    Scans of too few points have no pose. Raises DataError for stamps that do not rise, or if no scan is left.
    """
    method = Aloam()
    for done, scan in enumerate(rising(scans), 1):
        method.add(scan)
        progress(done)
    path = method.path()
    if method.skipped:
        logger.warning("%d of %d scans have too few points for a pose", method.skipped, done)
    if method.untimed:
        logger.warning("%d scans give their points no times: the motion within them stays", method.untimed)
    return path


@dataclass(frozen=True, eq=False)
class Sweep:
    """A revolution's features. Its middle is `middle` seconds after its stamp and at `time`, seconds."""

    seen: Features
    middle: float
    time: float


class Aloam:
    """The method, scan by scan, in rising order of their stamps.

    `skipped` counts scans that have no pose, for too few points or as they come at once after another;
    `untimed` those whose points' times are all alike: nothing is known of the motion within such a scan, and
    nothing is compensated.
    """

    def __init__(self) -> None:
        self.skipped = self.untimed = 0
        self._stamps: list[int] = []
        self._times: list[float] = []  # of the middles, seconds after the first stamp
        self._poses: list[Array] = []  # in the middles, in the frame of the first
        self._velocity = STANDSTILL  # in the last middle
        self._map = FeatureMap()
        self._first: Sweep
        self._before: Revolution

    @property
    def map_points(self) -> Array:
        """The map's edge and planar points (N, 3), metres, in the frame of `path`; raises as that does."""
        return apply(invert(self._ends()[0]), self._map.points)

    def path(self) -> StampedPath:
        """Poses first_from_lidar at the stamps of all scans but the skipped. DataError if that is none."""
        ends = self._ends()
        return StampedPath(np.array(self._stamps, np.int64), invert(ends[0]) @ ends)

    def add(self, scan: Scan) -> None:
        """Take the next scan in."""
        sweep = self._sweep(scan)
        if sweep is None:
            self.skipped += 1
            return
        self.untimed += bool(np.ptp(scan.times) == 0)
        pose = np.eye(4)
        if not self._poses:
            self._first = sweep
        else:
            pose = self._followed(sweep)
            self._velocity = self._velocity_at(sweep, pose)
            if len(self._poses) == 1:  # the first sweep entered as if the sensor had stood still
                self._map = FeatureMap()
                self._see(self._first, self._poses[0])
                pose = self._followed(sweep)
                self._velocity = self._velocity_at(sweep, pose)
        self._see(sweep, pose)
        self._stamps.append(scan.stamp)
        self._times.append(sweep.time)
        self._poses.append(pose)

    def _sweep(self, scan: Scan) -> Sweep | None:
        """The scan's features; None if they are too few, or it comes at once after the last."""
        seen = features(scan)
        if len(seen) < FEWEST:
            return None
        middle = float(scan.times.min() + scan.times.max()) / 2
        first = self._stamps[0] if self._stamps else scan.stamp
        time = (scan.stamp - first) * 1e-9 + middle
        return None if self._times and time < self._times[-1] + SHORTEST else Sweep(seen, middle, time)

    def _followed(self, sweep: Sweep) -> Array:
        """The sweep's pose: predicted, then by the sweep before, then by the map."""
        seen = sweep.seen
        pose = self._fitted(self._before, sweep, self._expected(sweep), seen.sharp, seen.flat)
        return self._fitted(self._map.around(pose[:3, 3], self._before), sweep, pose, seen.edges, seen.planes)

    def _expected(self, sweep: Sweep) -> Array:
        """The sweep's pose, predicted."""
        return self._poses[-1] @ self._velocity.level().ahead(sweep.time - self._times[-1])

    def _fitted(self, target: Target, sweep: Sweep, pose: Array, edges: Samples, planes: Samples) -> Array:
        """The sweep's pose that brings these features of it onto the target, starting from `pose`."""
        expected, deviations = self._expected(sweep), DEVIATIONS * (sweep.time - self._times[-1])
        for _ in range(ROUNDS):
            velocity = self._velocity_at(sweep, pose)
            edge_points, plane_points = (
                samples.carried(velocity, sweep.middle).points for samples in (edges, planes)
            )
            lines, on_line = target.lines(apply(pose, edge_points))
            surfaces, on_plane = target.planes(apply(pose, plane_points))
            pose = register(
                pose,
                np.concatenate([edge_points, plane_points]),
                joined(lines, surfaces),
                sweep.seen.precisions(on_line, on_plane),
                expected,
                1 / deviations**2,
            )
        return pose

    def _velocity_at(self, sweep: Sweep, pose: Array) -> Velocity:
        """The mean velocity since the middle before, if the sweep has this pose in its own.

        It is half an interval old; extrapolated, its noise would come back through the next pose.
        """
        return Velocity.between(self._poses[-1], pose, sweep.time - self._times[-1])

    def _see(self, sweep: Sweep, pose: Array) -> None:
        """Enter a sweep's features into the map, and keep them for the next sweep."""
        edges, planes = (
            samples.carried(self._velocity, sweep.middle).moved(pose)
            for samples in (sweep.seen.edges, sweep.seen.planes)
        )
        self._map.add(edges.points, planes.points)
        self._before = Revolution(edges, planes)

    def _ends(self) -> Array:
        """Poses (N, 4, 4) at the stamps, in the first middle's frame, on a spline through all middles."""
        if not self._poses:
            raise DataError(
                f"none of {self.skipped} scans has {FEWEST} edge and planar points: check that the topic is "
                "that of a spinning LiDAR and that its clouds tell the rings"
            )
        seconds = (np.array(self._stamps, np.int64) - self._stamps[0]) * 1e-9
        # The last stamp is after the last middle: the velocity leads there, and a little on.
        beyond = max(0.1, seconds[-1] - self._times[-1])
        times = np.append(self._times, self._times[-1] + beyond)
        poses = np.stack([*self._poses, self._poses[-1] @ self._velocity.ahead(beyond)])
        ends = np.tile(np.eye(4), (len(seconds), 1, 1))
        ends[:, :3, :3] = RotationSpline(times, Rotation.from_matrix(poses[:, :3, :3]))(seconds).as_matrix()
        ends[:, :3, 3] = CubicSpline(times, poses[:, :3, 3])(seconds)
        return ends
