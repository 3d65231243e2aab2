"""Motions between images added up to a path: the robot's pose in its odometry's frame, and how sure it is.

The path starts where the base is in the first image. A motion is measured from the anchor, an image that
stays the same while the camera hardly moves: errors of a camera that stands do not add up, and a slow motion
is measured as soon as it stands out of them. Covariances follow `ofvl_core.covariance`.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ofvl_core.collaborative.scale import ScaleEstimator, Waypoint
from ofvl_core.covariance import carried
from ofvl_core.geometry import Array, invert, transform_from_rotation_vector

ALIKE = 5.0
"""Neighbouring motions err alike: the variance of their sum grows this much faster than if they did not."""

REST_AFTER = 0.5
"""Seconds without a motion that stands out after which the camera is taken to stand."""

COAST = 1.0
"""Seconds for which it is taken to go on as it did where no motion can be measured; then it stays."""

UNSEEN_SPEED, UNSEEN_TURN_RATE = 0.5, 0.5
"""Standard deviation of how fast it moved meanwhile, metres and radians a second."""

MOST_TURNED = np.pi
"""Radians that no rotation is less certain than."""


@dataclass(frozen=True)
class OdometryOptions:
    """How far measured motions are trusted."""

    scale_deviation: float = 0.3
    """Standard deviation of the logarithm of a motion's length."""
    rotation_deviation: float = 0.02
    """Radians; standard deviation of a motion's rotation about each axis."""
    rest_distance: float = 0.01
    """Metres from the anchor that a camera at rest may seem to have moved."""
    rest_angle: float = 0.01
    """Radians that it may seem to have turned."""
    max_gap: float = 0.5
    """Seconds between two images up to which the network measures the motion between them."""


@dataclass(frozen=True)
class Reading:
    """Where the base is at an image's stamp, and how it moves.

    `odom_from_base` (4, 4) with `covariance` (6, 6). `velocity` (6,), along and about the axes of the base,
    m/s and rad/s, with `velocity_covariance` (6, 6). `is_anchor` says from which image the next motion is to
    be measured: from this one, or else from the anchor as before. `unseen` are the seconds before this image
    of which no motion could be measured.
    """

    odom_from_base: Array
    covariance: Array
    velocity: Array
    velocity_covariance: Array
    is_resting: bool
    is_anchor: bool
    unseen: float = 0.0


@dataclass(frozen=True)
class _Place:
    """Where the camera is.

    `drift` (6, 6) is the covariance of `odom_from_camera`, `shared` (6,) its covariance with the error of the
    logarithm of the scale. `network` is the network's own path, which knows no other scale.
    """

    odom_from_camera: Array
    drift: Array
    shared: Array
    network: Waypoint


class VisualOdometry:
    """Adds up motions of one camera. Its scale is asked for before every motion, and the path never jumps
    when the scale changes: what was driven stays as it was.
    """

    def __init__(self, options: OdometryOptions, scale: ScaleEstimator) -> None:
        self._options, self._scale = options, scale
        self._floor = np.diag(np.repeat(np.square([options.rest_distance, options.rest_angle]), 3))
        self.start_over()

    def start_over(self) -> None:
        """Forget the path: time starts again."""
        self._anchor: _Place | None = None
        self._stamp = self._anchored = 0
        self._last = np.eye(4)  # anchor_from_camera of the last image
        self._base_from_camera = np.eye(4)
        self._velocity = np.zeros(6)  # of the camera, along and about its own axes
        self._is_resting = False
        self._variance = self._scale.deviation**2
        self._scale.break_path()

    @property
    def is_empty(self) -> bool:
        """Whether no image has come yet."""
        return self._anchor is None

    def follows(self, stamp: int) -> bool:
        """Whether an image of that moment, nanoseconds, comes after all others."""
        return self._anchor is None or stamp > self._stamp

    def is_near(self, stamp: int) -> bool:
        """Whether the motion up to an image of that moment can be measured: it comes soon after the last."""
        return self._anchor is not None and stamp - self._stamp <= self._options.max_gap * 1e9

    def update(self, stamp: int, anchor_from_camera: Array | None, base_from_camera: Array) -> Reading:
        """What an image of a moment, nanoseconds, says, which must follow those before it.

        `anchor_from_camera` (4, 4) is the motion since the anchor in the network's unit; where it is None or
        not finite, or comes after too long a gap, the camera is taken to have gone on as before.
        `base_from_camera` (4, 4) tells where it sits at that moment.
        """
        if self._anchor is None:
            self._anchor = _beginning(stamp, base_from_camera)
            self._stamp = self._anchored = stamp
            self._base_from_camera = base_from_camera
            self._scale.pass_by(self._anchor.network)
            return self._reading(self._anchor, base_from_camera, np.zeros(6), self._floor, True)
        self._follow_scale()
        if anchor_from_camera is None or not self.is_near(stamp) or not np.isfinite(anchor_from_camera).all():
            return self._coast(stamp, base_from_camera)
        motion = anchor_from_camera.copy()
        motion[:3, 3] *= self._scale.scale
        seconds = (stamp - self._stamp) * 1e-9
        step = invert(self._last) @ motion
        velocity, noise = self._base_velocity(step, base_from_camera, seconds)
        place = self._moved(self._anchor, stamp, motion, anchor_from_camera[:3, 3])
        since = (stamp - self._anchored) * 1e-9
        stands_out = self._stands_out(motion)
        is_anchor = stands_out or (not self._is_resting and since >= REST_AFTER)
        if self._is_resting and not stands_out:  # the place is the anchor's until a motion stands out
            place = self._anchor
        self._is_resting = not stands_out and (self._is_resting or is_anchor)
        if self._is_resting:
            velocity, noise = np.zeros(6), self._floor / since**2
            self._velocity = np.zeros(6)
        else:
            self._velocity = _twist(step) / seconds
        self._scale.pass_by(place.network._replace(stamp=stamp))
        self._stamp, self._last = stamp, motion
        self._base_from_camera = base_from_camera
        if is_anchor:
            self._anchor, self._anchored, self._last = place, stamp, np.eye(4)
        return self._reading(place, base_from_camera, velocity, noise, is_anchor)

    def _stands_out(self, motion: Array) -> bool:
        twist = _twist(motion)
        distance, angle = np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])
        return bool(distance > self._options.rest_distance or angle > self._options.rest_angle)

    def _follow_scale(self) -> None:
        """What a better scale says is independent of what was wrong in the path before."""
        assert self._anchor is not None
        variance = self._scale.deviation**2
        left = min(1.0, variance / self._variance)
        place = self._anchor
        self._anchor = _Place(place.odom_from_camera, place.drift, left * place.shared, place.network)
        self._variance = variance

    def _moved(self, place: _Place, stamp: int, motion: Array, in_unit: Array) -> _Place:
        """A place after a `motion` (4, 4) in metres, `in_unit` (3,) in the network's."""
        arm = place.odom_from_camera[:3, :3] @ motion[:3, 3]
        stretched = np.concatenate([arm, np.zeros(3)])  # what the error of the scale's logarithm adds
        lever = np.eye(6)
        lever[:3, 3:] = np.cross(np.eye(3), arm).T
        shared = lever @ place.shared
        both = np.outer(shared, stretched)
        drift = lever @ place.drift @ lever.T + both + both.T
        drift += self._variance * np.outer(stretched, stretched) + ALIKE * np.diag(self._noise(motion))
        length = float(np.linalg.norm(in_unit))
        network = place.network.path_from_camera.copy()
        network[:3, 3] += network[:3, :3] @ in_unit
        network[:3, :3] = network[:3, :3] @ motion[:3, :3]
        waypoint = Waypoint(
            stamp,
            network,
            place.network.length + length,
            place.network.position_variance + ALIKE * (self._options.scale_deviation * length) ** 2,
            place.network.rotation_variance + ALIKE * self._options.rotation_deviation**2,
        )
        return _Place(place.odom_from_camera @ motion, drift, shared + self._variance * stretched, waypoint)

    def _noise(self, motion: Array) -> Array:
        """Variances (6,) of a motion in metres: its direction errs as much as its length."""
        position = self._options.scale_deviation * float(np.linalg.norm(motion[:3, 3]))
        return np.repeat(np.square([position, self._options.rotation_deviation]), 3)

    def _coast(self, stamp: int, base_from_camera: Array) -> Reading:
        """Go on as before for a while, far less certain."""
        assert self._anchor is not None
        unseen = (stamp - self._stamp) * 1e-9
        gone = self._velocity * min(unseen, COAST)
        motion = self._last @ transform_from_rotation_vector(gone[3:], gone[:3])
        place = self._moved(self._anchor, stamp, motion, motion[:3, 3] / self._scale.scale)
        rates = np.square([UNSEEN_SPEED, min(UNSEEN_TURN_RATE, MOST_TURNED / unseen)])
        rates = np.repeat(rates, 3)
        place = _Place(
            place.odom_from_camera, place.drift + np.diag(rates) * unseen**2, place.shared, place.network
        )
        step = transform_from_rotation_vector(gone[3:], gone[:3])
        velocity, _ = self._base_velocity(step, base_from_camera, unseen)
        self._scale.break_path()
        self._scale.pass_by(place.network)
        self._anchor, self._stamp, self._anchored = place, stamp, stamp
        self._last, self._base_from_camera = np.eye(4), base_from_camera
        return self._reading(place, base_from_camera, velocity, np.diag(rates), True, unseen)

    def _base_velocity(self, step: Array, base_from_camera: Array, seconds: float) -> tuple[Array, Array]:
        """How the base moves where the camera makes a `step` (4, 4), with covariance."""
        before, after = self._base_from_camera, base_from_camera
        stretched = np.concatenate([step[:3, 3], np.zeros(3)])
        noise = np.diag(self._noise(step)) + self._variance * np.outer(stretched, stretched)
        axes = np.kron(np.eye(2), before[:3, :3])
        noise = axes @ carried(noise, step, invert(after)) @ axes.T
        return _twist(before @ step @ invert(after)) / seconds, (noise + self._floor) / seconds**2

    def _reading(
        self,
        place: _Place,
        base_from_camera: Array,
        velocity: Array,
        noise: Array,
        is_anchor: bool,
        unseen: float = 0.0,
    ) -> Reading:
        camera_from_base = invert(base_from_camera)
        covariance = carried(place.drift + self._floor, place.odom_from_camera, camera_from_base)
        pose = place.odom_from_camera @ camera_from_base
        return Reading(pose, covariance, velocity, noise, self._is_resting, is_anchor, unseen)


def _beginning(stamp: int, base_from_camera: Array) -> _Place:
    start = Waypoint(stamp, np.eye(4), 0.0, 0.0, 0.0)
    return _Place(base_from_camera, np.zeros((6, 6)), np.zeros(6), start)


def _twist(motion: Array) -> Array:
    """Translation (3,) and rotation vector (3,) of a motion."""
    return np.concatenate([motion[:3, 3], Rotation.from_matrix(motion[:3, :3]).as_rotvec()])
