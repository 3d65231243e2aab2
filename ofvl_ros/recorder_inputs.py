"""The topics of a recording: heard as their publishers offer them, byte for byte."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from tf2_msgs.msg import TFMessage

from ofvl_core.errors import DataError
from ofvl_core.recording.stream import Stream, header_stamp
from ofvl_core.recording.tf_tree import TfTree
from ofvl_core.recording.writer import Topic
from ofvl_ros.recorder_parameters import CAMERA_INFO, DEPTH_CAMERA_INFO, STATIC, Source

Heard = Callable[["Input", bytes], None]

FRESH = 2.0
"""Seconds after which intrinsics are not repeated: the camera may have others by now."""


class Input:
    """One topic: subscribed when a publisher appears, with the best QoS that all its publishers offer.

    A latched one is always subscribed as such, or what was said before would be lost, and beside it with
    what all offer where some offer less; what is said then may come twice. Every message goes to
    `on_message` as its serialised bytes, in the executor's thread. `frame` is that of the first, None before
    it and where there is no header.
    """

    def __init__(self, node: Node, source: Source, on_message: Heard) -> None:
        self._node, self._on_message = node, on_message
        self.source = source
        self.type = f"{source.type.__module__.partition('.')[0]}/msg/{source.type.__name__}"
        self.topic = Topic(node.resolve_topic_name(source.name), self.type)
        self.stream = Stream()
        self.newest = b""
        self.other_type = ""
        self.frame: str | None = None
        self._subscriptions: list[Subscription] = []
        self._requested = QoSProfile(depth=source.depth)

    @property
    def is_offered(self) -> bool:
        """Whether there has been a publisher of the right type."""
        return bool(self._subscriptions)

    def look(self) -> None:
        """Look who publishes: subscribe when somebody does, anew when someone cannot be heard as it is."""
        publishers = self._node.get_publishers_info_by_topic(self.topic.name)
        offered = [publisher for publisher in publishers if publisher.topic_type == self.type]
        self.other_type = publishers[0].topic_type if publishers and not offered else ""
        if not offered:
            return
        self.topic = Topic(
            self.topic.name, self.type, tuple(stored_qos(publisher.qos_profile) for publisher in offered)
        )
        least = request(offered, self.source.depth)
        if not self._subscriptions:
            held = QoSProfile(depth=self.source.depth, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._subscribe(held if self.source.is_latched else least)
        if not _hears(self._requested, least):
            if len(self._subscriptions) > self.source.is_latched:
                self._node.destroy_subscription(self._subscriptions.pop())
            self._subscribe(least)
            self._node.get_logger().info(
                f"{self.topic.name}: a publisher offers less than the others, subscribed anew"
            )

    def _subscribe(self, requested: QoSProfile) -> None:
        self._requested = requested
        self._subscriptions.append(
            self._node.create_subscription(
                self.source.type, self.topic.name, self._on_bytes, requested, raw=True
            )
        )

    def _on_bytes(self, message: bytes) -> None:
        stamp = None
        if self.source.is_stamped:
            stamp = header_stamp(message)
            if self.frame is None:
                self.frame = deserialize_message(message, self.source.type).header.frame_id
        self.stream.note(time.monotonic(), len(message), stamp)
        self.newest = message
        self._on_message(self, message)


class Prologue:
    """What every bag begins with, so that it is complete in itself: intrinsics and static transforms."""

    def __init__(self) -> None:
        self._infos: dict[str, tuple[Input, bytes]] = {}
        self._static: list[tuple[Input, set[str], bytes]] = []
        self._tree = TfTree()

    def note(self, source: Input, message: bytes) -> None:
        """Keep a message where it is of those."""
        if source.source in (CAMERA_INFO, DEPTH_CAMERA_INFO):
            self._infos[source.topic.name] = (source, message)
        elif source.source is STATIC:
            transforms = deserialize_message(message, TFMessage)
            children = {transform.child_frame_id for transform in transforms.transforms}
            with suppress(DataError):  # one that is no rotation connects nothing; the bag has it all the same
                self._tree.add(transforms, is_static=True)
            self._static = [kept for kept in self._static if not kept[1] <= children]
            self._static.append((source, children, message))

    def messages(self) -> list[tuple[Topic, bytes]]:
        """The newest of each: static transforms, then such intrinsics as came within FRESH seconds."""
        now = time.monotonic()
        kept = [(source, message) for source, _, message in self._static]
        kept += [
            (source, message)
            for source, message in self._infos.values()
            if (silence := source.stream.silence(now)) is not None and silence <= FRESH
        ]
        return [(source.topic, message) for source, message in kept]

    def connects(self, frame: str, other: str) -> bool:
        """Whether static transforms lead from one frame to another."""
        try:
            self._tree.static(frame, other)
        except DataError:
            return False
        return True


def request(offered: Sequence[TopicEndpointInfo], depth: int) -> QoSProfile:
    """Reliable and latched where all publishers are; every one of them is heard."""
    profiles = [publisher.qos_profile for publisher in offered]
    is_reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles)
    is_latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if is_reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE,
    )


def _hears(requested: QoSProfile, least: QoSProfile) -> bool:
    """Whether what was requested is not more than what everyone offers."""
    asks_too_much = (
        requested.reliability == ReliabilityPolicy.RELIABLE != least.reliability,
        requested.durability == DurabilityPolicy.TRANSIENT_LOCAL != least.durability,
    )
    return not any(asks_too_much)


def stored_qos(profile: QoSProfile) -> Qos:
    """A publisher's offer as a bag stores it; the two enumerate alike."""
    return Qos(
        QosHistory(profile.history.value),
        profile.depth,
        QosReliability(profile.reliability.value),
        QosDurability(profile.durability.value),
        _time(profile.deadline),
        _time(profile.lifespan),
        QosLiveliness(profile.liveliness.value),
        _time(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


def _time(duration: Duration) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))
