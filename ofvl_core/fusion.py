"""Fixes and odometry fused: a Kalman filter on SE(3) that knows that fixes from nearby views err alike.

What a network gets wrong in a view it gets wrong in the next one too: a thousand fixes of a robot that stands
still are hardly more than one. Their error is therefore modelled as

    error = L (sqrt(share) b + sqrt(1 - share) n),    L L^T = covariance of the fix

where n is new in every fix and b, the bias, forgets as the view changes: a first-order Gauss-Markov process
over metres driven and radians turned. The filter estimates the bias beside the pose, which is the textbook's
treatment of coloured measurement noise (Bar-Shalom, Li, Kirubarajan: Estimation with Applications to
Tracking and Navigation, 2001, ch. 8). Covariances follow `ofvl_core.covariance`.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from ofvl_core.covariance import pose_difference
from ofvl_core.geometry import Array, transform_from_rotation_vector

DRIFT_PER_SECOND = 0.002
"""Metres and radians of drift after a second: what odometry does not see, a nudge or a slipping wheel."""

FLOOR = np.diag([0.02**2] * 3 + [0.01**2] * 3)
"""Covariance that no fix goes below, m^2 and rad^2: extrinsics, time stamps and the map are no better."""


@dataclass(frozen=True)
class FusionOptions:
    """How far odometry and fixes are trusted. Drifts grow with the root of the distance or angle."""

    drift_per_metre: float = 0.02
    """Metres; standard deviation of odometry's position after a metre driven."""
    turn_drift_per_metre: float = 0.01
    """Radians; standard deviation of odometry's rotation after a metre driven."""
    turn_drift_per_radian: float = 0.03
    """Radians; standard deviation of odometry's rotation after a radian turned."""
    correlated_share: float = 0.8
    """Share of a fix's variance that fixes from the same view have in common."""
    correlation_distance: float = 0.3
    """Metres after which that share has faded to 1/e."""
    correlation_angle: float = 0.5
    """Radians after which that share has faded to 1/e."""


@dataclass(frozen=True)
class Fix:
    """`map_from_base` (4, 4) as one image tells it, with its covariance (6, 6)."""

    map_from_base: Array
    covariance: Array

    def is_usable(self) -> bool:
        """Finite, with a covariance that is positive definite."""
        if not (np.isfinite(self.map_from_base).all() and np.isfinite(self.covariance).all()):
            return False
        return bool(np.linalg.eigvalsh(self.covariance)[0] > 0)


@dataclass(frozen=True)
class Belief:
    """Where the base is believed to be, and the bias of recent fixes.

    `map_from_base` (4, 4); `bias` (6,), in standard deviations of a fix; `joint` (12, 12), the covariance of
    both, pose first.
    """

    map_from_base: Array
    bias: Array
    joint: Array

    @staticmethod
    def of_fix(fix: Fix, options: FusionOptions) -> "Belief":
        """What is believed when a fix is all there is."""
        covariance = fix.covariance + FLOOR
        scale = _bias_scale(covariance, options)
        return Belief(fix.map_from_base, np.zeros(6), np.block([[covariance, scale], [scale.T, np.eye(6)]]))

    @staticmethod
    def of_prior(prior: Fix) -> "Belief":
        """What is believed when somebody else tells the pose: fixes have nothing in common with it."""
        return Belief(prior.map_from_base, np.zeros(6), block_diag(prior.covariance, np.eye(6)))

    @property
    def covariance(self) -> Array:
        """Covariance (6, 6) of `map_from_base`."""
        return self.joint[:6, :6]

    def moved(self, base_from_next: Array, seconds: float, options: FusionOptions) -> "Belief":
        """The belief after odometry measured a motion (4, 4), which took `seconds`."""
        metres = float(np.linalg.norm(base_from_next[:3, 3]))
        radians = float(Rotation.from_matrix(base_from_next[:3, :3]).magnitude())
        kept = np.exp(-metres / options.correlation_distance - radians / options.correlation_angle)
        arm = self.map_from_base[:3, :3] @ base_from_next[:3, 3]
        lever = np.eye(6)
        lever[:3, 3:] = np.cross(np.eye(3), arm).T  # turning the base moves where it drives to
        carry = block_diag(lever, kept * np.eye(6))
        anyway = DRIFT_PER_SECOND**2 * seconds
        position = options.drift_per_metre**2 * metres + anyway
        rotation = (
            options.turn_drift_per_metre**2 * metres + options.turn_drift_per_radian**2 * radians + anyway
        )
        noise = np.repeat([position, rotation, 1 - kept**2], [3, 3, 6])
        joint = carry @ self.joint @ carry.T + np.diag(noise)
        return Belief(self.map_from_base @ base_from_next, kept * self.bias, joint)

    def corrected(self, fix: Fix, options: FusionOptions) -> "Belief":
        """The belief after a fix of the same moment (Kalman update in Joseph's form)."""
        covariance = fix.covariance + FLOOR
        scale = _bias_scale(covariance, options)
        observed = np.hstack([np.eye(6), -scale])  # of (pose, bias): what a fix differs by from the belief
        noise = (1 - options.correlated_share) * covariance
        innovation = pose_difference(self.map_from_base, fix.map_from_base) + scale @ self.bias
        spread = observed @ self.joint @ observed.T + noise
        gain = np.linalg.solve(spread, observed @ self.joint).T
        step = gain @ innovation
        left = np.eye(12) - gain @ observed
        joint = left @ self.joint @ left.T + gain @ noise @ gain.T
        turned = transform_from_rotation_vector(step[3:6], np.zeros(3)) @ self.map_from_base
        turned[:3, 3] = self.map_from_base[:3, 3] + step[:3]
        return Belief(turned, self.bias + step[6:], joint)

    def squared_distance(self, fix: Fix, slack: tuple[float, float] = (0.0, 0.0)) -> float:
        """Squared Mahalanobis distance of a fix; chi-square with 6 degrees of freedom if it belongs here.

        Errors count as independent, although they are not: that can only let a fix pass. The position may
        differ by slack[0] metres and the rotation by slack[1] radians for nothing.
        """
        difference = pose_difference(self.map_from_base, fix.map_from_base)
        for part, free in ((difference[:3], slack[0]), (difference[3:], slack[1])):
            length = float(np.linalg.norm(part))
            part *= max(0.0, 1 - free / length) if length > 0 else 0.0
        return float(difference @ np.linalg.solve(self.covariance + fix.covariance + FLOOR, difference))


def largest_deviations(covariance: Array) -> tuple[float, float]:
    """Standard deviations of position, metres, and rotation, radians, each along its worst direction.

    Infinite where the covariance is not finite.
    """
    if not np.isfinite(covariance).all():
        return np.inf, np.inf
    position, rotation = (np.linalg.eigvalsh(part)[-1] for part in (covariance[:3, :3], covariance[3:, 3:]))
    return float(np.sqrt(position)), float(np.sqrt(rotation))


def _bias_scale(covariance: Array, options: FusionOptions) -> Array:
    """Turns the bias (6,) into metres and radians of a fix with this covariance."""
    return np.sqrt(options.correlated_share) * np.linalg.cholesky(covariance)
