"""CameraInfo, transforms and poses of messages as the core's types.

A message is whatever has its type's fields: rclpy's, or one of ROS 1 or 2 read from a bag.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ofvl_core import geometry
from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array

_COEFFICIENTS = {"": (0,), "plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8)}
"""How many distortion coefficients each model has; all are in OpenCV's order."""


def camera_from_info(info: Any) -> Camera:
    """The pinhole camera of an unrectified image, from its CameraInfo.

    Raises ConfigError when K is not set or the distortion is not plumb_bob or rational_polynomial.
    """
    model, distortion = info.distortion_model, _coefficients(info, "d")
    if len(distortion) not in _COEFFICIENTS.get(model, ()):
        raise ConfigError(
            f"camera_info has distortion model '{model}' with {len(distortion)} coefficients; supported are "
            "plumb_bob (4 or 5) and rational_polynomial (8): rectify the images before this node"
        )
    fx, _, cx, _, fy, cy, *_ = _coefficients(info, "k")
    return Camera(info.width, info.height, fx, fy, cx, cy, distortion)


def transform_matrix(message: Any) -> Array:
    """The 4x4 parent_from_child of a Transform. Raises ConfigError when it is none."""
    return rigid("transform", transform_numbers(message))


def transform_numbers(message: Any) -> tuple[float, ...]:
    """A Transform's translation x, y, z, metres, and rotation x, y, z, w."""
    return _numbers(message.translation, message.rotation)


def pose_matrix(message: Any) -> Array:
    """The 4x4 frame_from_body of a Pose that somebody else gives. Raises ConfigError when it is none."""
    return rigid("pose", _numbers(message.position, message.orientation))


def frame_from_body(message: Any) -> Array:
    """The 4x4 of an Odometry, a PoseStamped, a PoseWithCovarianceStamped or a TransformStamped.

    The frame is `message.header.frame_id`. Raises ConfigError when it is no pose.
    """
    if hasattr(message, "transform"):
        return transform_matrix(message.transform)
    with_covariance = hasattr(message.pose, "pose")
    return pose_matrix(message.pose.pose if with_covariance else message.pose)


def stamp_ns(message: Any) -> int:
    """Nanoseconds of a message's header."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def frame_name(frame_id: str) -> str:
    """A frame as ROS 2 names it: without the slash in front that ROS 1 took, as of A-LOAM's /camera_init."""
    return frame_id.lstrip("/")


def _coefficients(info: Any, name: str) -> tuple[float, ...]:
    numbers = getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())  # ROS 1 has K and D
    return tuple(float(number) for number in numbers)


def _numbers(position: Any, orientation: Any) -> tuple[float, ...]:
    return (position.x, position.y, position.z, orientation.x, orientation.y, orientation.z, orientation.w)


def rigid(what: str, numbers: Sequence[float]) -> Array:
    """The 4x4 of a position x, y, z and an orientation x, y, z, w. Raises ConfigError when it is none.

    `what` names it there.
    """
    translation, quaternion = tuple(numbers[:3]), tuple(numbers[3:])
    if not np.isfinite(translation).all():
        raise ConfigError(f"the given {what}'s position is {translation}: give finite metres")
    if not abs(np.linalg.norm(quaternion) - 1) < 0.01:
        raise ConfigError(
            f"the given {what}'s orientation {quaternion} is not a unit quaternion: give x, y, z, w of "
            "length 1"
        )
    return geometry.transform(translation, quaternion)
