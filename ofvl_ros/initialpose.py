"""The topic `initialpose`: a prior that somebody gives us, or our pose handed over to AMCL."""

from collections.abc import Callable

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node

from ofvl_core.geometry import Array
from ofvl_ros.messages import pose_with_covariance_stamped

USES = ("accept", "publish", "ignore")


class InitialPose:
    """Hands priors to `on_prior` with use 'accept', or publishes with use 'publish'.

    Never both: our own pose would come back as a prior.
    """

    def __init__(self, node: Node, use: str, on_prior: Callable[[PoseWithCovarianceStamped], None]) -> None:
        self._node = node
        self._subscription = self._publisher = None
        if use == "accept":
            self._subscription = node.create_subscription(
                PoseWithCovarianceStamped, "initialpose", on_prior, 1
            )
        elif use == "publish":
            self._publisher = node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)

    def hand_over(self, map_from_base: Array, covariance: Array, map_frame: str, stamp: Time) -> None:
        """Tell AMCL where the robot was at `stamp`, with use 'publish'."""
        if self._publisher is not None:
            self._publisher.publish(pose_with_covariance_stamped(map_from_base, covariance, map_frame, stamp))

    def destroy(self) -> None:
        """Stop listening and publishing."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
