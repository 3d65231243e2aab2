"""The one place that knows in what Humble and Jazzy differ."""

from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

__all__ = ["SubscriptionEventCallbacks", "spin"]


def spin(node: Node) -> None:
    """Spin the node until its context shuts down.

    Humble's executor raises InvalidHandle when a callback destroys a subscription that is ready as well,
    which deactivating does; Jazzy's goes on.
    """
    with suppress(ExternalShutdownException):
        while rclpy.ok(context=node.context):
            with suppress(rclpy_implementation.InvalidHandle):
                rclpy.spin(node)
