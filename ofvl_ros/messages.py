"""Transforms, poses and their covariances between ROS messages and the core's types."""

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Pose,
    PoseStamped,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    TransformStamped,
)

from ofvl_core import geometry
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array
from ofvl_core.recording.messages import camera_from_info, pose_matrix
from ofvl_core.recording.messages import transform_matrix as matrix

__all__ = [
    "UNSTATED_VARIANCES",
    "camera_from_info",
    "matrix",
    "pose",
    "pose_matrix",
    "pose_stamped",
    "pose_with_covariance_stamped",
    "prior_covariance",
    "transform_stamped",
]

UNSTATED_VARIANCES = np.square([0.5, 0.5, 0.5, *np.radians([15.0, 15.0, 15.0])])
"""What a prior's variance is taken for where it is zero, m^2 and rad^2: what RViz states of x, y and yaw."""


def transform_stamped(parent_from_child: Array, parent: str, child: str, stamp: Time) -> TransformStamped:
    """A transform for /tf: the pose of `child` in `parent`."""
    message = TransformStamped()
    message.header.stamp = stamp
    message.header.frame_id = parent
    message.child_frame_id = child
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = parent_from_child[:3, 3].tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = geometry.quaternion_xyzw(parent_from_child).tolist()
    return message


def pose(frame_from_body: Array) -> Pose:
    """The pose of a body in a frame that the message does not name."""
    message = Pose()
    position, orientation = message.position, message.orientation
    position.x, position.y, position.z = frame_from_body[:3, 3].tolist()
    quaternion = geometry.quaternion_xyzw(frame_from_body).tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion
    return message


def pose_stamped(frame_from_body: Array, frame: str, stamp: Time) -> PoseStamped:
    """The pose of a body in `frame`."""
    message = PoseStamped(pose=pose(frame_from_body))
    message.header.stamp = stamp
    message.header.frame_id = frame
    return message


def pose_with_covariance_stamped(
    frame_from_body: Array, covariance: Array, frame: str, stamp: Time
) -> PoseWithCovarianceStamped:
    """The pose of a body in `frame` with its covariance (6, 6), in the order of `ofvl_core.covariance`."""
    message = PoseWithCovarianceStamped()
    message.header.stamp = stamp
    message.header.frame_id = frame
    message.pose.pose = pose(frame_from_body)
    message.pose.covariance = covariance.ravel()
    return message


def prior_covariance(message: PoseWithCovariance) -> Array:
    """The covariance (6, 6) of a pose that somebody else gives as a prior.

    A variance of zero means that nothing is stated, as RViz leaves z, roll and pitch, and becomes that of
    UNSTATED_VARIANCES. Raises ConfigError for what is no covariance.
    """
    covariance = np.array(message.covariance, float).reshape(6, 6)
    if not _is_covariance(covariance):
        raise ConfigError(
            "the given pose's covariance is none: give a symmetric 6x6 matrix without negative eigenvalues, "
            "with zeros for what is unknown"
        )
    stated = covariance.any(axis=1)
    symmetric = np.tril(covariance) + np.tril(covariance, -1).T
    return symmetric + np.diag(np.where(stated, 0.0, UNSTATED_VARIANCES))


def _is_covariance(matrix: Array) -> bool:
    deviations = np.sqrt(np.abs(np.diag(matrix)))
    deviations[deviations == 0] = 1.0
    with np.errstate(all="ignore"):
        correlations = matrix / deviations / deviations[:, None]
    if not (np.isfinite(correlations).all() and np.allclose(correlations, correlations.T, atol=1e-6)):
        return False
    return bool(np.linalg.eigvalsh(correlations)[0] > -1e-6)
