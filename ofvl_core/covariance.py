"""How uncertain a pose is: 6x6 covariances, in ROS's convention.

Order x, y, z, then rotation about the FIXED axes of the frame the pose is given in, as in PoseWithCovariance:
the true pose is [Exp(dtheta) R | p + dp], with (dp, dtheta) drawn from N(0, Sigma), metres and radians, both
along the world's axes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import chdtri

from ofvl_core.correspondences import Correspondences
from ofvl_core.geometry import Array, invert

VAGUE = np.array([100.0] * 3 + [np.pi] * 3)
"""Metres and radians of a deviation in a direction of which the cells say nothing."""

LEAST_VARIANCE = 0.1
"""Cells may fit better than their uncertainties say, but not by more than this is believed; the best of 600
held-out images had 0.18."""

FAR = 1000.0
"""Standard deviations that a cell behind the camera is taken to be off."""

WITHIN_95 = 12.59
"""95 % of honest normalised errors squared (NEES) are at most this: chi-square, 6 degrees of freedom."""

_MEDIANS = chdtri([1, 2, 3], 0.5)
"""Of chi-square with 1, 2 and 3 degrees of freedom."""


def pose_covariance(world_from_camera: Array, cells: Correspondences, inliers: NDArray[np.bool_]) -> Array:
    """Covariance (6, 6) of `world_from_camera`, which `inliers` (N,) of the `cells` agree with; uncalibrated.

    It is the inverse of the agreeing cells' Gauss-Newton information, as predicted uncertainties and depth
    noise weigh them, times two factors that tell how far all cells bear the pose out:

    - the variance of whitened errors over ALL cells, from their median: among those chosen because they agree
      it always looks good;
    - one over the share of the cells that agree.

    Both are what a changed light or a person in the way disturbs first. Cells are taken for independent,
    which they are not: a calibration's inflation has still to be applied.
    """
    camera_from_world = invert(world_from_camera)
    agreeing = cells.chosen(inliers)
    jacobian = agreeing.jacobian(agreeing.seen(camera_from_world)).reshape(-1, 6)
    information = (jacobian.T * agreeing.precisions().ravel()) @ jacobian + np.diag(1 / VAGUE**2)
    usable = cells.chosen(
        np.flatnonzero(np.isfinite(np.column_stack([cells.points, cells.rays])).all(axis=1))
    )
    share = inliers.sum() / len(usable.points)
    in_camera = np.linalg.inv(information) * _variance(camera_from_world, usable) / share
    axes = np.kron(np.eye(2), world_from_camera[:3, :3])
    return _symmetric(axes @ in_camera @ axes.T)


def carried(covariance: Array, world_from_camera: Array, camera_from_base: Array) -> Array:
    """Covariance (6, 6) of world_from_base = world_from_camera @ camera_from_base, the latter exact.

    The adjoint for a rotation about fixed axes: turning the camera by dtheta moves the base by dtheta x arm.
    """
    x, y, z = world_from_camera[:3, :3] @ camera_from_base[:3, 3]
    lever = np.eye(6)
    lever[:3, 3:] = [[0, z, -y], [-z, 0, x], [y, -x, 0]]
    return _symmetric(lever @ covariance @ lever.T)


def pose_difference(estimated: Array, true: Array) -> Array:
    """(dp, dtheta) (6,) that leads from the `estimated` pose to the `true` one, metres and radians."""
    turned = Rotation.from_matrix(true[:3, :3] @ estimated[:3, :3].T).as_rotvec()
    return np.concatenate([true[:3, 3] - estimated[:3, 3], turned])


def normalised_error_squared(estimated: Array, covariance: Array, true: Array) -> float:
    """NEES, the squared error of a pose in units of its covariance.

    Where that is honest, it is distributed as chi-square with 6 degrees of freedom: 95 % are at most 12.59.
    """
    difference = pose_difference(estimated, true)
    return float(difference @ np.linalg.solve(covariance, difference))


def _variance(camera_from_world: Array, cells: Correspondences) -> float:
    """Of the cells' errors in units of their standard deviations: 1 where these are right."""
    seen = cells.seen(camera_from_world)
    precisions = cells.precisions()
    squared = (precisions * cells.errors(seen) ** 2).sum(axis=0)
    squared[seen[:, 2] <= 0] = FAR**2
    known = (precisions > 0).sum(axis=0)
    return max(float(np.median(squared / _MEDIANS[known - 1])), LEAST_VARIANCE)


def _symmetric(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2
