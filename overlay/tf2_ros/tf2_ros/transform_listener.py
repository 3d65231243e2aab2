"""Feeds a buffer from /tf and /tf_static."""

import threading

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .buffer import Buffer

_AUTHORITY = "default_authority"


class TransformListener:
    """Puts what arrives on /tf and /tf_static into a buffer, while the node spins.

    With `spin_thread` the node is spun here, in a thread of its own. Both subscriptions are reliable with
    depth 100, /tf_static transient local, unless a profile or a depth is given.
    """

    def __init__(
        self,
        buffer: Buffer,
        node: Node,
        *,
        spin_thread: bool = False,
        qos: QoSProfile | int | None = None,
        static_qos: QoSProfile | int | None = None,
    ) -> None:
        if qos is None:
            qos = QoSProfile(depth=100)
        if static_qos is None:
            static_qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.buffer = buffer
        self.node = node
        # A callback that waits for a transform must not keep the transform from arriving.
        group = ReentrantCallbackGroup()
        self._moving = node.create_subscription(TFMessage, "/tf", self._on_moving, qos, callback_group=group)
        self._static = node.create_subscription(
            TFMessage, "/tf_static", self._on_static, static_qos, callback_group=group
        )
        self._executor: SingleThreadedExecutor | None = None
        if spin_thread:
            self._executor = SingleThreadedExecutor()
            self._executor.add_node(node)
            threading.Thread(target=self._executor.spin, daemon=True).start()

    def unregister(self) -> None:
        """Stops listening."""
        if self._executor is not None:
            self._executor.shutdown()
        self.node.destroy_subscription(self._moving)
        self.node.destroy_subscription(self._static)

    def _on_moving(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self.buffer.set_transform(transform, _AUTHORITY)

    def _on_static(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self.buffer.set_transform_static(transform, _AUTHORITY)
