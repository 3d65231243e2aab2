"""Edge and planar points of a scan, chosen by their curvature along the ring (LOAM, Sec. V.A).

LOAM: Zhang and Singh, "LOAM: Lidar Odometry and Mapping in Real-time", RSS 2014. A-LOAM is its rewriting by
Qin and Cao, whose counts a sector and whose order of picking are kept. It differs from both where a room's
distances meet a range noise of centimetres: neighbours in a ring are then closer together than the noise is
large, and the curvature of LOAM's Eq. 1 says nothing. Here it compares means instead of single points, its
thresholds are multiples of the noise, which is measured in every scan, and a planar point stands for the mean
of the points around it: on a plane that mean lies on the plane too, with a third of the noise.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import Array, apply
from ofvl_core.lidar.motion import Velocity
from ofvl_core.lidar.scan import Scan

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

NEAREST = 0.4  # metres: nearer returns are the robot's own
INNER, OUTER = 2, 10  # the curvature compares the mean of i +- 2 with that of the others in i +- 10
AVERAGED = 5  # a planar point is the mean of i +- 5
SECTORS = 6
SHARP, LESS_SHARP, FLAT = 2, 20, 4  # a sector, as in A-LOAM
SUPPRESSED = 5  # neighbours of a picked point that are not picked

EDGE, PLANE = 5.0, 2.5  # curvature over its standard deviation on a plane: edges are above, planes below
JUMP = 0.3  # metres between neighbouring ranges at which one surface hides another
EDGE_ERROR, PLANE_ERROR = 0.04, 0.015  # metres to their surface beyond the noise, which is not all that errs
GRAZING = 0.97  # sine of the incidence from which a surface is nearly parallel to the beam


@dataclass(frozen=True, eq=False)
class Samples:
    """Points (N, 3) in metres in the sensor's frame, each seen at its own of `times` (N,), seconds after the
    scan's stamp, by the laser in `rings` (N,)."""

    points: Array
    times: Array
    rings: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.points)

    def carried(self, velocity: Velocity, time: float) -> "Samples":
        """The same as seen at one time, seconds after the stamp, by a sensor of that velocity."""
        return Samples(velocity.carry(self.points, self.times - time), self.times, self.rings)

    def moved(self, frame_from_sensor: Array) -> "Samples":
        """The same in another frame."""
        return Samples(apply(frame_from_sensor, self.points), self.times, self.rings)


@dataclass(frozen=True, eq=False)
class Features:
    """LOAM's four kinds: `sharp` are the sharpest of `edges`, `flat` the flattest of `planes`.

    `noise` is the scan's, the standard deviation of its ranges in metres.
    """

    sharp: Samples
    edges: Samples
    flat: Samples
    planes: Samples
    noise: float

    def __len__(self) -> int:
        return len(self.edges) + len(self.planes)

    def precisions(self, edges: Array, planes: Array) -> Array:
        """1 / m^2 (N + M,) of edge and planar points, given the weights (N,) and (M,) of their surfaces."""
        edge = self.noise**2 / (2 * INNER + 1) + EDGE_ERROR**2
        plane = self.noise**2 / (2 * AVERAGED + 1) + PLANE_ERROR**2
        return np.concatenate([edges / edge, planes / plane])


def features(scan: Scan) -> Features:
    """The features of a scan, without NaN points and the robot's own. A scan of few points has few."""
    order = _ring_order(scan)
    rings = Rings(
        scan.points[order].astype(np.float64), scan.times[order].astype(np.float64), scan.rings[order]
    )
    curvature = rings.curvature()
    usable = rings.complete & ~rings.hidden() & ~rings.grazing()
    sectors = rings.sectors()
    edges, rank = pick(np.where(usable & (curvature > EDGE), curvature, -np.inf), sectors, LESS_SHARP)
    planar = usable & (curvature < PLANE)
    flat, _ = pick(np.where(planar, -curvature, -np.inf), sectors, FLAT)
    every = np.flatnonzero(planar & (rings.place % (2 * AVERAGED + 1) == AVERAGED))
    return Features(
        rings.averaged(edges[rank < SHARP], INNER),
        rings.averaged(edges, INNER),
        rings.averaged(flat, AVERAGED),
        rings.averaged(every, AVERAGED),
        rings.noise(),
    )


def pick(score: Array, sectors: Indices, count: int) -> tuple[Indices, Indices]:
    """Up to `count` of the best in every sector, each with its rank there, the first being 0.

    The best first, and none within SUPPRESSED places of one that was picked before; all sectors pick at once.
    `sectors` (S, L) are places in `score` (N,), padded with N; a score of -inf is never picked.
    """
    remaining = np.append(score, -np.inf)
    reach = np.arange(-SUPPRESSED, SUPPRESSED + 1)
    picked, ranks = [], []
    for rank in range(count):
        best = sectors[np.arange(len(sectors)), remaining[sectors].argmax(axis=1)]
        best = best[remaining[best] > -np.inf]
        if not len(best):
            break
        remaining[(best[:, None] + reach).clip(0, len(score))] = -np.inf
        picked.append(best)
        ranks.append(np.full(len(best), rank))
    empty = np.zeros(0, np.intp)
    return np.concatenate([empty, *picked]), np.concatenate([empty, *ranks])


class Rings:
    """Points of a scan, ring after ring and in each by time, and means over neighbours in a ring.

    `place` (N,) is a point's number in its ring; `complete` (N,) says where i +- OUTER lie in one ring.
    """

    def __init__(self, points: Array, times: Array, rings: NDArray[np.uint8]) -> None:
        self._samples = Samples(points, times, rings)
        self._ranges = np.linalg.norm(points, axis=1)
        self._starts = np.flatnonzero(np.diff(rings, prepend=-1))
        self._lengths = np.diff(self._starts, append=len(points))
        first = np.repeat(self._starts, self._lengths)
        self.place = np.arange(len(points)) - first
        self.complete = (self.place >= OUTER) & (self.place < np.repeat(self._lengths, self._lengths) - OUTER)
        columns = np.column_stack([points, times, self._ranges])
        self._sums = np.concatenate([np.zeros((1, 5)), np.cumsum(columns, axis=0)])

    def averaged(self, at: Indices, reach: int) -> Samples:
        """The means over i +- `reach` at places of which this lies in one ring."""
        means = (self._sums[at + reach + 1] - self._sums[at - reach]) / (2 * reach + 1)
        return Samples(means[:, :3], means[:, 3], self._samples.rings[at])

    def curvature(self) -> Array:
        """How far the near neighbours' mean is from the farther ones', (N,), in its standard deviations.

        LOAM's Eq. 1 with X_i averaged. On a plane, noise along the beam is all there is to it.
        """
        inner, before, after = self._means
        deviation = self.noise() * np.sqrt(1 / (2 * INNER + 1) + 1 / (2 * (OUTER - INNER)))
        bent = np.linalg.norm(inner[:, :3] - (before + after)[:, :3] / 2, axis=1)
        return bent / max(deviation, 1e-6)

    def noise(self) -> float:
        """Standard deviation of the ranges, metres, from their second differences, which are mostly noise."""
        second = self._ranges[:-2] - 2 * self._ranges[1:-1] + self._ranges[2:]
        return float(np.median(np.abs(second))) / (0.6745 * np.sqrt(6)) if len(second) else 0.0

    def hidden(self) -> Mask:
        """Points next to something nearer, which hides how the surface goes on (LOAM, Fig. 4b)."""
        step = np.diff(self._ranges)
        hides_after, hides_before = step > JUMP, step < -JUMP
        hidden = np.zeros(len(self._ranges) + 2 * OUTER, bool)
        for reach in range(SUPPRESSED + 1):
            hidden[OUTER + 1 + reach :][: len(step)] |= hides_after
            hidden[OUTER - reach :][: len(step)] |= hides_before
        return hidden[OUTER:-OUTER]

    def grazing(self) -> Mask:
        """Points on surfaces nearly parallel to the beam (LOAM, Fig. 4a)."""
        _, before, after = self._means
        chord = np.linalg.norm((after - before)[:, :3], axis=1)
        return np.abs(after[:, 4] - before[:, 4]) > GRAZING * chord

    def sectors(self) -> Indices:
        """Places (rings * SECTORS, L) of the points of every sector, padded with N."""
        bounds = self._starts[:, None] + self._lengths[:, None] * np.arange(SECTORS + 1) // SECTORS
        starts, ends = bounds[:, :-1].ravel(), bounds[:, 1:].ravel()
        longest = int((ends - starts).max(initial=1))
        places = starts[:, None] + np.arange(longest)
        return np.where(places < ends[:, None], places, len(self.place))

    @cached_property
    def _means(self) -> tuple[Array, Array, Array]:
        """Means of i +- INNER and of what lies before and after it in i +- OUTER, held at the ends."""
        at = np.arange(len(self.place)).clip(OUTER, max(len(self.place) - OUTER - 1, OUTER))
        if len(self.place) <= 2 * OUTER:
            nothing = np.zeros((len(self.place), 5))
            return nothing, nothing, nothing
        sums, beside = self._sums, OUTER - INNER
        inner = (sums[at + INNER + 1] - sums[at - INNER]) / (2 * INNER + 1)
        before = (sums[at - INNER] - sums[at - OUTER]) / beside
        after = (sums[at + OUTER + 1] - sums[at + INNER + 1]) / beside
        return inner, before, after


def _ring_order(scan: Scan) -> Indices:
    """The places of the usable points, ring after ring and in each by time; equal times stay in order."""
    away = np.linalg.norm(scan.points, axis=1) > NEAREST
    usable = np.flatnonzero(np.isfinite(scan.points).all(axis=1) & away)
    order: Indices = usable[np.lexsort((scan.times[usable], scan.rings[usable]))]
    return order
