"""What visual odometry publishes of an image: odometry and tf always, depth only while somebody looks."""

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped, Vector3
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import TransformBroadcaster

from ofvl_core.camera import Camera
from ofvl_core.collaborative.odometry import Reading
from ofvl_ros.messages import pose, pose_with_covariance_stamped, transform_stamped
from ofvl_ros.visual_odometry_pipeline import Outcome


class VisualOdometryOutputs:
    """The publishers of the node; poses are given in `odom_frame`."""

    def __init__(self, node: Node, odom_frame: str) -> None:
        self._odom_frame = odom_frame
        self._odometry = node.create_publisher(Odometry, "odometry", 10)
        self._relocalized = node.create_publisher(PoseWithCovarianceStamped, "relocalized_pose", 10)
        self._depth = node.create_publisher(Image, "depth/image", qos_profile_sensor_data)
        self._depth_info = node.create_publisher(CameraInfo, "depth/camera_info", qos_profile_sensor_data)
        self._broadcaster = TransformBroadcaster(node)

    def publish(self, outcome: Outcome) -> None:
        """Everything that the outcome of an image has to say, to those who listen."""
        stamp = outcome.stamp
        if outcome.reading is not None:
            reading = outcome.reading
            self._odometry.publish(odometry_message(reading, self._odom_frame, outcome.base_frame, stamp))
            if outcome.is_for_tf:
                pose = transform_stamped(reading.odom_from_base, self._odom_frame, outcome.base_frame, stamp)
                self._broadcaster.sendTransform(pose)
        if (found := outcome.relocalized) is not None:
            self._relocalized.publish(
                pose_with_covariance_stamped(found.map_from_base, found.covariance, outcome.map_frame, stamp)
            )
        if (seen := outcome.estimate) is not None:
            if self._depth.get_subscription_count():
                self._depth.publish(depth_message(seen.depth, outcome.camera_frame, stamp))
            if self._depth_info.get_subscription_count():
                self._depth_info.publish(camera_info_message(seen.input_camera, outcome.camera_frame, stamp))


def odometry_message(reading: Reading, odom_frame: str, base_frame: str, stamp: Time) -> Odometry:
    """The pose in `odom_frame`, the velocity along the axes of `base_frame`."""
    message = Odometry(child_frame_id=base_frame)
    message.header.stamp = stamp
    message.header.frame_id = odom_frame
    message.pose.pose = pose(reading.odom_from_base)
    message.pose.covariance = reading.covariance.ravel()
    linear, angular = (
        Vector3(**dict(zip("xyz", part, strict=True))) for part in np.split(reading.velocity, 2)
    )
    message.twist.twist.linear, message.twist.twist.angular = linear, angular
    message.twist.covariance = reading.velocity_covariance.ravel()
    return message


def depth_message(depth: NDArray[np.float32], frame: str, stamp: Time) -> Image:
    """A 32FC1 Image of depth (H, W), metres."""
    height, width = depth.shape
    message = Image(height=height, width=width, encoding="32FC1", step=width * 4)
    message.header.frame_id = frame
    message.header.stamp = stamp
    message.data = array.array("B", depth.astype("<f4").tobytes())  # any other type is looked at bytewise
    return message


def camera_info_message(camera: Camera, frame: str, stamp: Time) -> CameraInfo:
    """The CameraInfo of an image that is not rectified."""
    rational = len(camera.distortion) == 8
    message = CameraInfo(width=camera.width, height=camera.height)
    message.header.frame_id = frame
    message.header.stamp = stamp
    message.distortion_model = "rational_polynomial" if rational else "plumb_bob"
    message.d = list(camera.distortion or (0.0,) * 5)
    message.k = camera.matrix.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel()
    return message
