"""CameraInfo, transforms and poses between ROS messages and the core's types."""

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Transform, TransformStamped
from sensor_msgs.msg import CameraInfo

from ofvl_core import geometry
from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array

_COEFFICIENTS = {"": (0,), "plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8)}
"""How many distortion coefficients each model has; all are in OpenCV's order."""


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


def pose_stamped(frame_from_body: Array, frame: str, stamp: Time) -> PoseStamped:
    """The pose of a body in `frame`."""
    message = PoseStamped()
    message.header.stamp = stamp
    message.header.frame_id = frame
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = frame_from_body[:3, 3].tolist()
    quaternion = geometry.quaternion_xyzw(frame_from_body).tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion
    return message
