"""How many metres a metre of the network is: its own path held against poses that somebody else tells.

A network that learned motion from images alone knows it up to a factor; one that was also shown poses knows
the factor of the places it was trained in. `ScaleEstimator` begins with that, as a prior on the logarithm of
the factor, and corrects it by fixes: poses in a map that do not come from this odometry. Two fixes say how
far the camera went between them, the network's path says the same in its own unit. Only differences of fixes
count, so the map may lie anywhere.
"""

from bisect import bisect_left
from collections import deque
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from ofvl_core.fusion import FLOOR, Fix
from ofvl_core.geometry import Array
from ofvl_core.stamped_path import StampedPath

SPACING = 0.3
"""Metres between two fixes that are kept: nearer ones err alike (`fusion.FusionOptions`), and add nothing."""

LEAST_FIXES = 4
"""Below this many fixes in a window nobody could tell which of them is wrong."""

MOST_FIXES = 48
"""Fixes that are kept, whatever the window."""

PATH_SECONDS = 5.0
"""Seconds of the network's path that wait for fixes, which come later than the images they were made of."""

LARGEST_GAP = 1.0
"""Seconds between two images up to which the path is known between them."""

LEAST_DEVIATION = 0.03
"""Of the logarithm of the scale, however many fixes agree: it differs from place to place."""

STEPS = 81
"""Scales that are tried before the best is refined: outliers make many valleys."""

REACH = 4.0
"""Deviations of the prior within which they lie."""

_FAR = float(chdtri(3, 0.05))
"""Squared distance, in variances, from which on a pair of fixes loses its say."""


class Waypoint(NamedTuple):
    """The network's own path at a moment: path_from_camera (4, 4) in its unit, and how far it can be off.

    `length` is that of the path so far; `position_variance` and `rotation_variance`, in its unit squared and
    rad^2 along an axis, are those that have come together so far. The estimator looks at differences alone.
    """

    stamp: int
    path_from_camera: Array
    length: float
    position_variance: float
    rotation_variance: float


class _Met(NamedTuple):
    """A fix, and the waypoint of the same moment."""

    fix: Fix
    at: Waypoint
    part: int


class ScaleEstimator:
    """Metres per unit of the network's path, and how sure that is.

    `prior_deviation` is the standard deviation of the scale's logarithm before there are fixes, around 0.
    `window`, metres of the path: fixes from farther back than that from the newest one are forgotten. While
    none come the last answer stays, and while the camera stands still none is forgotten.
    """

    def __init__(self, prior_deviation: float, window: float) -> None:
        self._prior = max(prior_deviation, LEAST_DEVIATION)
        self._window = window
        self.log_scale = 0.0
        self.deviation = self._prior
        """Standard deviation of `log_scale`."""
        self._path: deque[Waypoint] = deque()
        self._waiting: deque[tuple[int, Fix]] = deque(maxlen=MOST_FIXES)
        self._met: deque[_Met] = deque(maxlen=MOST_FIXES)
        self._part = 0

    @property
    def scale(self) -> float:
        """Metres per unit of the network's path."""
        return float(np.exp(self.log_scale))

    @property
    def fixes(self) -> int:
        """How many fixes the scale rests on."""
        return len(self._met)

    def pass_by(self, waypoint: Waypoint) -> None:
        """The network's path goes on to a later stamp."""
        self._path.append(waypoint)
        while waypoint.stamp - self._path[0].stamp > PATH_SECONDS * 1e9:
            self._path.popleft()
        while self._waiting and self._waiting[0][0] <= waypoint.stamp:
            self._meet(*self._waiting.popleft())

    def break_path(self) -> None:
        """What the path says from here on has nothing to do with what it said before."""
        self._path.clear()
        self._part += 1

    def start_over(self) -> None:
        """Time starts again, or the map is another: only the scale stays, until new fixes say better."""
        self.break_path()
        self._waiting.clear()
        self._met.clear()

    def take(self, stamp: int, fix: Fix) -> None:
        """A pose map_from_camera of a moment, nanoseconds, which may lie behind the path or ahead of it.

        One that is not finite, or whose covariance is not positive definite, is ignored, as is one from a
        moment that the path does not know.
        """
        if not fix.is_usable():
            return
        if self._path and stamp <= self._path[-1].stamp:
            self._meet(stamp, fix)
        else:
            self._waiting.append((stamp, fix))

    def _meet(self, stamp: int, fix: Fix) -> None:
        at = self._waypoint(stamp)
        if at is None:
            return
        met = _Met(fix, at, self._part)
        if self._met and self._met[-1].part == self._part:
            last = self._met[-1]
            moved = at.path_from_camera[:3, 3] - last.at.path_from_camera[:3, 3]
            if np.linalg.norm(moved) * self.scale < SPACING:
                if _uncertainty(fix) >= _uncertainty(last.fix):
                    return
                self._met.pop()
        self._met.append(met)
        while (at.length - self._met[0].at.length) * self.scale > self._window:
            self._met.popleft()
        if len(self._met) >= LEAST_FIXES:
            self._estimate()

    def _waypoint(self, stamp: int) -> Waypoint | None:
        """Where the path was at a moment."""
        after = bisect_left([waypoint.stamp for waypoint in self._path], stamp)
        around = list(islice(self._path, max(after - 1, 0), after + 1))
        stamps, asked = np.array([waypoint.stamp for waypoint in around]), np.array([stamp])
        path = StampedPath(stamps, np.stack([waypoint.path_from_camera for waypoint in around]))
        if not path.covers(asked, LARGEST_GAP)[0]:
            return None
        return around[-1]._replace(stamp=stamp, path_from_camera=path.at(asked)[0])

    def _estimate(self) -> None:
        """Robust maximum a posteriori of the logarithm of the scale, from all pairs of fixes.

        Cauchy's kernel lets a wrong fix lose its say; its cost has many minima, so the best of many scales
        is refined by iterated reweighting. The n (n - 1) / 2 pairs of n fixes hold the information of n:
        with equal weights the sum of |x_i - x_j|^2 over pairs is n times that of |x_i - mean|^2, and a pair
        has twice a fix's variance, hence the factor 2 / n.
        """
        own, seen, both = self._pairs()
        if not len(own):
            return
        share, prior = 2 / len(self._met), 1 / self._prior**2

        def squared(log_scale: Array | float) -> Array:
            scale = np.exp(log_scale)
            return np.asarray(np.maximum(seen - 2 * scale * both + scale**2 * own, 0.0))

        tried = np.linspace(-REACH, REACH, STEPS)[:, None] * self._prior
        cost = share * _FAR * np.log1p(squared(tried) / _FAR).sum(axis=1) + prior * tried[:, 0] ** 2
        log_scale = float(tried[cost.argmin(), 0])
        for _ in range(10):
            scale, weights = np.exp(log_scale), 1 / (1 + squared(log_scale) / _FAR)
            information = share * float(weights @ own) * scale**2
            slope = share * float(weights @ (scale**2 * own - scale * both)) + prior * log_scale
            log_scale -= slope / (information + prior)
        weights = 1 / (1 + squared(log_scale) / _FAR)
        excess = max(1.0, float(weights @ squared(log_scale)) / (3 * float(weights.sum())))
        self.log_scale = log_scale
        self.deviation = max(1 / np.sqrt(prior + information / excess), LEAST_DEVIATION)

    def _pairs(self) -> tuple[Array, Array, Array]:
        """Of each pair of fixes of one part of the path the products (P,) of its two displacements.

        The network's with itself, the fixes' with themselves, and both, in units of the covariance of the
        difference between them. Rotations come from the earlier fix.
        """
        met = list(self._met)
        first, second = np.triu_indices(len(met), 1)
        parts = np.array([one.part for one in met])
        joined = parts[first] == parts[second]
        first, second = first[joined], second[joined]
        fixes = np.stack([one.fix.map_from_base for one in met])
        path = np.stack([one.at.path_from_camera for one in met])
        covariances = np.stack([one.fix.covariance for one in met]) + FLOOR
        drift = np.array([(one.at.position_variance, one.at.rotation_variance) for one in met])
        map_from_path = fixes[first, :3, :3] @ np.swapaxes(path[first, :3, :3], 1, 2)
        own = (map_from_path @ (path[second, :3, 3] - path[first, :3, 3])[:, :, None])[:, :, 0]
        seen = fixes[second, :3, 3] - fixes[first, :3, 3]
        levers = np.concatenate([np.tile(np.eye(3), (len(own), 1, 1)), _cross(own * self.scale)], axis=2)
        spread = levers @ covariances[first] @ np.swapaxes(levers, 1, 2) + covariances[second, :3, :3]
        drifted = np.abs(drift[second] - drift[first])
        anyhow = self.scale**2 * (drifted[:, 0] + drifted[:, 1] * np.square(own).sum(axis=1))
        spread += anyhow[:, None, None] * np.eye(3)
        whitened = np.linalg.solve(spread, np.stack([own, seen], axis=2))
        products = np.stack([own, seen], axis=1) @ whitened
        return products[:, 0, 0], products[:, 1, 1], products[:, 0, 1]


def _uncertainty(fix: Fix) -> float:
    return float(np.trace(fix.covariance[:3, :3]))


def _cross(vectors: Array) -> Array:
    """Matrices (N, 3, 3) that take a rotation about fixed axes to what it adds to vectors (N, 3)."""
    return np.asarray(np.cross(vectors[:, None, :], np.eye(3)))
