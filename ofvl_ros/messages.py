"""CameraInfo, transforms and poses between ROS messages and the core's types."""

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Pose,
    PoseStamped,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Transform,
    TransformStamped,
)
from sensor_msgs.msg import CameraInfo

from ofvl_core import geometry
from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array

_COEFFICIENTS = {"": (0,), "plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8)}
"""How many distortion coefficients each model has; all are in OpenCV's order."""

UNSTATED_VARIANCES = np.square([0.5, 0.5, 0.5, *np.radians([15.0, 15.0, 15.0])])
"""What a prior's variance is taken for where it is zero, m^2 and rad^2: what RViz states of x, y and yaw."""


def camera_from_info(info: CameraInfo) -> Camera:
    """The pinhole camera of an unrectified image.

    Raises ConfigError when K is not set or the distortion is not plumb_bob or rational_polynomial.
    """
    model, count = info.distortion_model, len(info.d)
    if count not in _COEFFICIENTS.get(model, ()):
        raise ConfigError(
            f"camera_info has distortion model '{model}' with {count} coefficients; supported are plumb_bob "
            "(4 or 5) and rational_polynomial (8): rectify the images before this node"
        )
    fx, _, cx, _, fy, cy, *_ = (float(number) for number in info.k)
    return Camera(info.width, info.height, fx, fy, cx, cy, tuple(float(number) for number in info.d))


def matrix(message: Transform) -> Array:
    """The 4x4 of a Transform message."""
    translation, rotation = message.translation, message.rotation
    return geometry.transform(
        (translation.x, translation.y, translation.z), (rotation.x, rotation.y, rotation.z, rotation.w)
    )


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


def pose_matrix(message: Pose) -> Array:
    """The 4x4 frame_from_body of a pose that somebody else gives. Raises ConfigError when it is none."""
    position, orientation = message.position, message.orientation
    translation = (position.x, position.y, position.z)
    quaternion = (orientation.x, orientation.y, orientation.z, orientation.w)
    if not np.isfinite(translation).all():
        raise ConfigError(f"the given pose's position is {translation}: give finite metres")
    if not abs(np.linalg.norm(quaternion) - 1) < 0.01:
        raise ConfigError(
            f"the given pose's orientation {quaternion} is not a unit quaternion: give x, y, z, w of length 1"
        )
    return geometry.transform(translation, quaternion)


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
