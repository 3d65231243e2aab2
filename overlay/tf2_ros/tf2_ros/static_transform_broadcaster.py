"""Sends transforms that never change on /tf_static, where late listeners still find them."""

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


class StaticTransformBroadcaster:
    """Publishes on /tf_static, reliable and transient local, depth 1 unless a profile or a depth is given.

    Only the last message is latched, so each message repeats everything sent before. The first transform
    of a child frame stays: tf2 in Jazzy does not let a later one replace it.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(TFMessage, "/tf_static", qos)
        self._transforms: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:  # noqa: N802
        """Adds one transform or several to what is latched."""
        for added in [transform] if isinstance(transform, TransformStamped) else transform:
            self._transforms.setdefault(added.child_frame_id, added)
        self._publisher.publish(TFMessage(transforms=list(self._transforms.values())))
