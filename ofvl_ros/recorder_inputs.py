"""The topics of a recording: heard as their publishers offer them, byte for byte."""

import time
from collections.abc import Callable, Sequence

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from tf2_msgs.msg import TFMessage

from ofvl_core.recording.stream import Stream, header_stamp
from ofvl_core.recording.writer import Topic
from ofvl_ros.recorder_parameters import CAMERA_INFO, DEPTH_CAMERA_INFO, STATIC, Source

Heard = Callable[["Input", bytes], None]


class Input:
    """One topic: subscribed when a publisher appears, with the best QoS that all its publishers offer.

    Every message goes to `on_message` as its serialised bytes, in the executor's thread.
    """

    def __init__(self, node: Node, source: Source, on_message: Heard) -> None:
        self._node, self._on_message = node, on_message
        self.source = source
        self.type = f"{source.type.__module__.partition('.')[0]}/msg/{source.type.__name__}"
        self.topic = Topic(node.resolve_topic_name(source.name), self.type)
        self.stream = Stream()
        self.newest = b""
        self.other_type = ""
        self._subscription: Subscription | None = None
        self._requested = QoSProfile(depth=source.depth)

    @property
    def is_offered(self) -> bool:
        """Whether there has been a publisher of the right type."""
        return self._subscription is not None

    def look(self) -> None:
        """Look who publishes: subscribe when somebody does, anew when someone cannot be heard as it is."""
        publishers = self._node.get_publishers_info_by_topic(self.topic.name)
        offered = [publisher for publisher in publishers if publisher.topic_type == self.type]
        self.other_type = publishers[0].topic_type if publishers and not offered else ""
        if not offered or (self._subscription is not None and _hears(self._requested, offered)):
            return
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._node.get_logger().info(
                f"{self.topic.name}: a publisher offers less than the others, subscribed anew"
            )
        self.topic = Topic(
            self.topic.name, self.type, tuple(stored_qos(publisher.qos_profile) for publisher in offered)
        )
        self._requested = request(offered, self.source.depth)
        self._subscription = self._node.create_subscription(
            self.source.type, self.topic.name, self._on_bytes, self._requested, raw=True
        )

    def _on_bytes(self, message: bytes) -> None:
        stamp = header_stamp(message) if self.source.is_stamped else None
        self.stream.note(time.monotonic(), len(message), stamp)
        self.newest = message
        self._on_message(self, message)


class Prologue:
    """What every bag begins with, so that it is complete in itself: intrinsics and static transforms."""

    def __init__(self) -> None:
        self._infos: dict[str, tuple[Input, bytes]] = {}
        self._static: list[tuple[Input, set[str], bytes]] = []

    def note(self, source: Input, message: bytes) -> None:
        """Keep a message where it is of those."""
        if source.source in (CAMERA_INFO, DEPTH_CAMERA_INFO):
            self._infos[source.topic.name] = (source, message)
        elif source.source is STATIC:
            transforms = deserialize_message(message, TFMessage).transforms
            children = {transform.child_frame_id for transform in transforms}
            self._static = [kept for kept in self._static if not kept[1] <= children]
            self._static.append((source, children, message))

    def messages(self) -> list[tuple[Topic, bytes]]:
        """The newest of each, static transforms first."""
        kept = [(source, message) for source, _, message in self._static]
        return [(source.topic, message) for source, message in [*kept, *self._infos.values()]]


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


def _hears(requested: QoSProfile, offered: Sequence[TopicEndpointInfo]) -> bool:
    """Whether what was requested is not more than what anyone offers."""
    least = request(offered, requested.depth)
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
