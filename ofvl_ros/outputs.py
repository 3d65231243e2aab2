"""What the localizer publishes of an image: poses and tf always, pictures only while somebody looks."""

import math
import time
from collections import deque

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from ofvl_ros import display
from ofvl_ros.messages import pose_stamped, pose_with_covariance_stamped
from ofvl_ros.pipeline import Outcome, Pose

PATH_SPACING = 0.05
"""Metres between two poses of the path."""

PATH_LENGTH = 2000
"""Poses kept of the path."""

PATH_PERIOD = 1.0
"""Seconds between two messages of the path: writing thousands of poses holds up everything else."""


class Outputs:
    """The publishers of an active localizer."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publishers: list[Publisher] = []
        self._pose = self._publisher(PoseStamped, "pose", 10)
        self._pose_with_covariance = self._publisher(PoseWithCovarianceStamped, "pose_with_covariance", 10)
        self._path = self._publisher(Path, "path", 1)
        self._cloud = self._publisher(PointCloud2, "scene_coordinates", qos_profile_sensor_data)
        self._overlay = self._publisher(Image, "overlay", qos_profile_sensor_data)
        self._markers = self._publisher(MarkerArray, "markers", 1)
        self._poses: deque[PoseStamped] = deque(maxlen=PATH_LENGTH)
        self._path_sent = -math.inf
        self._path_scene = ""

    def destroy(self) -> None:
        """Publish no more."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def publish_pose(self, outcome: Outcome, found: Pose) -> None:
        """The pose that an image's outcome has: `best`, and the image's own with its covariance."""
        stamp, frame = outcome.stamp, outcome.map_frame
        pose = pose_stamped(found.best, frame, stamp)
        self._pose.publish(pose)
        measured = pose_with_covariance_stamped(found.single, found.single_covariance, frame, stamp)
        self._pose_with_covariance.publish(measured)
        if outcome.scene != self._path_scene or (self._poses and not _continues(self._poses[-1], pose)):
            self._poses.clear()
            self._path_scene = outcome.scene
        if not self._poses or _distance(self._poses[-1], pose) > PATH_SPACING:
            self._poses.append(pose)

    def publish(self, outcome: Outcome) -> None:
        """All else that the outcome of an image has to say, to those who listen."""
        if outcome.pose is not None:
            self._publish_path(outcome)
        localization, image, stamp = outcome.localization, outcome.image, outcome.stamp
        if _has_listener(self._markers):
            shown = localization if outcome.pose is not None else None
            self._markers.publish(
                display.markers(shown, outcome.camera, outcome.state, outcome.map_frame, stamp)
            )
        if localization is None or image is None:
            return
        if _has_listener(self._cloud):
            self._cloud.publish(
                display.scene_coordinates_cloud(localization, image, outcome.map_frame, stamp)
            )
        if _has_listener(self._overlay):
            self._overlay.publish(
                display.overlay(
                    localization, image, f"{outcome.state}: {outcome.reason}", outcome.camera_frame, stamp
                )
            )

    def _publish_path(self, outcome: Outcome) -> None:
        now = time.monotonic()
        if now - self._path_sent > PATH_PERIOD and _has_listener(self._path):
            self._path_sent = now
            header = Header(stamp=outcome.stamp, frame_id=outcome.map_frame)
            self._path.publish(Path(header=header, poses=list(self._poses)))

    def _publisher(self, kind: type, topic: str, qos: QoSProfile | int) -> Publisher:
        publisher = self._node.create_publisher(kind, topic, qos)
        self._publishers.append(publisher)
        return publisher


def _has_listener(publisher: Publisher) -> bool:
    return publisher.get_subscription_count() > 0


def _continues(last: PoseStamped, pose: PoseStamped) -> bool:
    """Whether a pose belongs to the same map and comes later."""
    stamps = [Time.from_msg(one.header.stamp) for one in (last, pose)]
    return last.header.frame_id == pose.header.frame_id and stamps[0] <= stamps[1]


def _distance(pose: PoseStamped, other: PoseStamped) -> float:
    one, two = pose.pose.position, other.pose.position
    return math.dist((one.x, one.y, one.z), (two.x, two.y, two.z))
