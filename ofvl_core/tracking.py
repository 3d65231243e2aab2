"""Where the robot is over time: which fixes to believe, when it is lost, and when it was carried away.

No clock is read here: stamps are arguments, in seconds. An update costs the same however long the robot runs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import chdtri

from ofvl_core.fusion import Belief, Fix, FusionOptions, largest_deviations
from ofvl_core.geometry import Array, invert, pose_error

BACKWARDS = 1.0
"""Seconds; a stamp older than the latest by more than this is no straggler: time has started again."""

State = Literal["starting", "tracking", "rejected", "lost"]


@dataclass(frozen=True)
class TrackingOptions(FusionOptions):
    """When a fix is believed. docs/tuning.md has the measurements behind the defaults."""

    gate_probability: float = 0.999
    """Share of right fixes that the test against the track would let pass if covariances were true."""
    start_fixes: int = 2
    """Fixes that must agree with one another before the first pose, and again after being lost."""
    kidnapped_fixes: int = 4
    """Rejected fixes in a row that must agree with one another to give up the track for them."""
    kidnapped_seconds: float = 1.0
    """Seconds that they must span at least: a moment's glare is no kidnapping."""
    lost_deviation: float = 0.5
    """Metres; lost when odometry since the last accepted fix leaves a standard deviation above this."""
    lost_seconds: float = 30.0
    """Lost when no fix was accepted for so long, with odometry."""
    lost_seconds_alone: float = 3.0
    """Lost when no fix was accepted for so long, without odometry."""
    max_speed: float = 1.5
    """Metres a second that the robot may drive, where no odometry tells."""
    max_turn_rate: float = 2.0
    """Radians a second that the robot may turn, where no odometry tells."""


@dataclass(frozen=True)
class Track:
    """What an update says.

    `map_from_base` (4, 4) and its `covariance` (6, 6) are there only when they may be published: the state is
    'tracking' and this update's fix was accepted. `reason` says why they are not. `map_from_odom` (4, 4) is
    there as long as there are a track and odometry, so between fixes too and while fixes are rejected.
    `squared_distance` is the fix's from the track (`Belief.squared_distance`), `rejections` how many were
    rejected in a row. `is_recovery` marks the first pose after having been lost or kidnapped.
    """

    state: State
    reason: str | None
    map_from_base: Array | None = None
    covariance: Array | None = None
    map_from_odom: Array | None = None
    squared_distance: float | None = None
    rejections: int = 0
    is_recovery: bool = False


class _Path:
    """Fixes that agree with one another along odometry, `fixes` in number since `began`."""

    def __init__(self, belief: Belief, stamp: float, odom_from_base: Array | None, options: TrackingOptions):
        self.belief, self.fixes = belief, 1
        self.began = self.stamp = self.last_fix = stamp
        self.odom_from_base = odom_from_base
        self.alone_since: float | None = None  # when odometry ended; None while it tells all motion
        self._options = options

    def advance(self, stamp: float, odom_from_base: Array | None) -> None:
        """Follow odometry to a stamp; without it the path waits for the next fix."""
        if odom_from_base is None or self.odom_from_base is None:
            self.alone_since = self.stamp if self.alone_since is None else self.alone_since
        else:
            motion = invert(self.odom_from_base) @ odom_from_base
            seconds = max(0.0, stamp - self.stamp)  # an image may be older than the prior it comes after
            self.belief = self.belief.moved(motion, seconds, self._options)
        self.stamp, self.odom_from_base = stamp, odom_from_base

    def squared_distance(self, fix: Fix) -> float:
        """How far a fix of now is from here, motion that nobody measured forgiven."""
        unseen = 0.0 if self.alone_since is None else max(0.0, self.stamp - self.alone_since)
        slack = (self._options.max_speed * unseen, self._options.max_turn_rate * unseen)
        return self.belief.squared_distance(fix, slack)

    def take(self, fix: Fix) -> None:
        """Believe a fix: fused with what odometry carried here, or instead of what it did not."""
        if self.alone_since is None:
            self.belief = self.belief.corrected(fix, self._options)
        else:
            self.belief, self.alone_since = Belief.of_fix(fix, self._options), None
        self.last_fix = self.stamp
        self.fixes += 1

    def why_lost(self) -> str | None:
        """Why nothing can be said any more, or None."""
        silence = self.stamp - self.last_fix
        is_alone = self.alone_since is not None and self.fixes > 0  # a prior waits for its first fix
        limit = self._options.lost_seconds_alone if is_alone else self._options.lost_seconds
        if silence > limit:
            where = " and no odometry" if is_alone else ""
            return f"no fix was accepted{where} for {silence:.1f} s, at most {limit:g} s will do"
        deviation, _ = largest_deviations(self.belief.covariance)
        if deviation > self._options.lost_deviation and self.fixes > 0 and silence > 0:
            return f"odometry has drifted to {deviation:.2f} m in {silence:.1f} s without an accepted fix"
        return None

    @property
    def map_from_odom(self) -> Array | None:
        if self.odom_from_base is None:
            return None
        return self.belief.map_from_base @ invert(self.odom_from_base)


class Tracker:
    """Fuses fixes with odometry, and knows when not to.

    Fixes that agree with the track are accepted and fused; one that does not is rejected. Rejected fixes that
    agree with one another form a path of their own, which takes the track's place once it is long enough:
    the robot was carried away, or its odometry was reset. The first path becomes the track in the same way,
    after `start_fixes`: a single fix may be wrong.
    """

    def __init__(self, options: TrackingOptions = TrackingOptions()):
        self.options = options
        self._gate = float(chdtri(6, 1 - options.gate_probability))
        self.reset()

    def reset(self) -> None:
        """Forget everything: the scene was switched, or time has started again."""
        self._track: _Path | None = None
        self._candidate: _Path | None = None
        self._lost: str | None = None
        self._stamp: float | None = None
        self._rejections = 0

    @property
    def has_track(self) -> bool:
        """Whether images or a prior say where the robot is: not at the start, or when lost."""
        return self._track is not None

    @property
    def is_located(self) -> bool:
        """Whether images do."""
        return self._track is not None and self._track.fixes > 0

    @property
    def is_contradicted(self) -> bool:
        """Whether the latest fix does not agree with the track."""
        return self._rejections > 0

    def prior(self, stamp: float, odom_from_base: Array | None, prior: Fix) -> None:
        """Believe that the base was there at a stamp; any track ends.

        Images to come may be a little older than it. No pose is published before a fix agrees with it. A
        prior that is not finite or whose covariance is not positive definite is ignored.
        """
        if not (prior.is_usable() and np.isfinite(stamp)):
            return
        self.reset()
        self._track = _Path(Belief.of_prior(prior), stamp, _finite(odom_from_base), self.options)
        self._track.fixes = 0

    def update(self, stamp: float, odom_from_base: Array | None, fix: Fix | None) -> Track:
        """What an image says of where the robot is.

        `odom_from_base` (4, 4) is odometry at the image's `stamp`, None where there is none; `fix` is None
        when the image gave none that is trusted. Never raises: what is not finite is as if it were not there,
        a stamp that is not newer than the latest changes nothing, and one far older starts all over.
        """
        if self._stamp is not None and self._stamp - stamp > BACKWARDS:
            self.reset()
        if not np.isfinite(stamp) or (self._stamp is not None and stamp <= self._stamp):
            return self._without_pose(f"the stamp {stamp:.3f} is not newer than the latest")
        self._stamp = stamp
        self._advance(stamp, _finite(odom_from_base))
        if fix is None:
            return self._without_pose("the image gave no fix")
        if not fix.is_usable():
            return self._without_pose("the fix or its covariance is not finite")
        return self._judge(fix)

    def _advance(self, stamp: float, odom_from_base: Array | None) -> None:
        self._odom_from_base = odom_from_base
        for path in (self._track, self._candidate):
            if path is not None:
                path.advance(stamp, odom_from_base)
        if self._candidate is not None and self._candidate.why_lost():
            self._candidate = None
        if self._track is not None and (why := self._track.why_lost()):
            self._track, self._lost, self._rejections = None, why, 0

    def _judge(self, fix: Fix) -> Track:
        distance = None
        if self._track is not None:
            distance = self._track.squared_distance(fix)
            if distance <= self._gate:
                self._track.take(fix)
                return self._accepted(distance, is_recovery=False)
            self._rejections += 1
        candidate = self._agreeing(fix)
        if self._track is None:
            if candidate.fixes >= self.options.start_fixes:
                self._track = candidate
                return self._accepted(None, is_recovery=self._lost is not None)
            return self._without_pose(
                f"{candidate.fixes} fix so far, {self.options.start_fixes} must agree with one another"
            )
        enough = candidate.fixes >= self.options.kidnapped_fixes
        if enough and candidate.stamp - candidate.began >= self.options.kidnapped_seconds:
            self._track = candidate
            return self._accepted(distance, is_recovery=True)
        metres, degrees = pose_error(self._track.belief.map_from_base, fix.map_from_base)
        source = "the track" if self._track.fixes else "the given pose"
        return self._without_pose(
            f"the fix is {metres:.2f} m and {degrees:.1f} degrees from {source}; {self._rejections} "
            f"in a row are rejected, the last {candidate.fixes} agree with one another",
            distance,
        )

    def _agreeing(self, fix: Fix) -> _Path:
        """The path that a fix belongs to outside the track: the one begun, or its own."""
        if self._candidate is not None and self._candidate.squared_distance(fix) <= self._gate:
            self._candidate.take(fix)
        else:
            belief = Belief.of_fix(fix, self.options)
            assert self._stamp is not None
            self._candidate = _Path(belief, self._stamp, self._odom_from_base, self.options)
        return self._candidate

    def _accepted(self, distance: float | None, is_recovery: bool) -> Track:
        track = self._track
        assert track is not None
        self._candidate, self._lost, self._rejections = None, None, 0
        return Track(
            "tracking",
            None,
            track.belief.map_from_base,
            track.belief.covariance,
            track.map_from_odom,
            distance,
            is_recovery=is_recovery,
        )

    def _without_pose(self, reason: str, distance: float | None = None) -> Track:
        state: State = "tracking"
        if self._track is None:
            state = "starting" if self._lost is None else "lost"
            reason = reason if self._lost is None else f"{self._lost}; {reason}"
        elif self._rejections:
            state = "rejected"
        elif not self._track.fixes:
            state = "starting"
        map_from_odom = None if self._track is None else self._track.map_from_odom
        return Track(state, reason, None, None, map_from_odom, distance, self._rejections)


def _finite(transform: Array | None) -> Array | None:
    return transform if transform is not None and np.isfinite(transform).all() else None
