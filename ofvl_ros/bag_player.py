"""Plays a ROS 2 bag over DDS, with its clock."""

import importlib
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosbags.interfaces import Connection, ConnectionExtRosbag2, Qos, QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock

from ofvl_core.errors import ConfigError, DataError
from ofvl_ros import process
from ofvl_ros.parameters import NOT_NEGATIVE, POSITIVE, Rule, Spec, declare, values

NAME = "bag_player"

PARAMETERS = {
    "bag": Spec("", "folder, .mcap or .db3 file of a ROS 2 bag (required)", Rule("a recording", bool)),
    "rate": Spec(1.0, "speed; 2.0 plays twice as fast as recorded", POSITIVE),
    "loop": Spec(False, "start again at the end, for ever"),
    "clock_frequency": Spec(100.0, "Hz, of the wall, at which /clock is published", POSITIVE),
    "wait_for_subscriber": Spec("", "recorded topic that must have a subscriber before playing starts"),
    "start_delay": Spec(1.0, "seconds between announcing the topics and the first message", NOT_NEGATIVE),
}

HISTORY = 100
"""Messages kept for who is late: a reliable subscriber that stalls for a moment, or, of a latched topic, one
that comes later; a recorded /tf_static joins those of many broadcasters."""

ACKNOWLEDGE_TIME = Duration(seconds=1.0)
"""How long a reliable subscriber may take, after the end, to confirm what it got."""


class BagPlayer(Node):
    """Publishes the bytes a bag holds, unchanged, at the times and with the QoS they were recorded.

    Raises OfvlError when the bag cannot be opened. A thread plays, so that the node can be spun meanwhile;
    at the end it shuts the context down, and `exit_code` says how it went.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self.exit_code = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        try:
            declare(self, PARAMETERS, fixed=True)
            self._start(**values(self, PARAMETERS))
        except BaseException:
            super().destroy_node()
            raise

    def destroy_node(self) -> None:
        """Stop playing, then go."""
        self._stop.set()
        self._thread.join()
        super().destroy_node()

    def _start(
        self,
        bag: str,
        rate: float,
        loop: bool,
        clock_frequency: float,
        wait_for_subscriber: str,
        start_delay: float,
    ) -> None:
        self._bag, self._rate, self._loop, self._start_delay = Path(bag), rate, loop, start_delay
        self._clock_period = 1 / clock_frequency
        self._clock_publisher = self.create_publisher(
            Clock, "/clock", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        self._recorded: dict[tuple[str, str], Publisher] = {}
        with _open(self._bag) as reader:
            for connection in reader.connections:
                assert isinstance(connection.ext, ConnectionExtRosbag2)
                self._announce(connection.topic, connection.msgtype, connection.ext.offered_qos_profiles)
        if not self._recorded:
            raise DataError(f"{bag}: nothing in it can be played; source the packages of its message types")
        self._awaited = [
            publisher for (topic, _), publisher in self._recorded.items() if topic == wait_for_subscriber
        ]
        if wait_for_subscriber and not self._awaited:
            topics = ", ".join(topic for topic, _ in self._recorded)
            raise ConfigError(f"wait_for_subscriber is '{wait_for_subscriber}': name one of {topics}")
        self._thread.start()

    def _announce(self, topic: str, message_type: str, profiles: list[Qos]) -> None:
        if topic == "/clock":
            return  # the player's own is the one that fits its rate
        message_class = _message_class(message_type)
        if message_class is None:
            self.get_logger().warning(f"{topic} is not played: its type {message_type} is not installed here")
            return
        publisher = self.create_publisher(message_class, topic, _playback_qos(profiles))
        self._recorded[topic, message_type] = publisher

    def _run(self) -> None:
        try:
            self._wait()
            began, count = time.monotonic(), self._play()
            if not self._stop.is_set():
                self.get_logger().info(f"played {count} messages in {time.monotonic() - began:.1f} s")
                for publisher in self._recorded.values():
                    publisher.wait_for_all_acked(ACKNOWLEDGE_TIME)
        except Exception as error:  # rosbags raises whatever its parsers meet in a damaged file
            if self.context.ok():
                self.get_logger().fatal(f"{self._bag}: playing failed ({error}); the bag may be damaged")
                self.get_logger().debug(traceback.format_exc())
                self.exit_code = 1
        self.context.try_shutdown()

    def _wait(self) -> None:
        while any(publisher.get_subscription_count() == 0 for publisher in self._awaited):
            topic = self._awaited[0].topic_name
            self.get_logger().info(f"waiting for a subscriber of {topic}", throttle_duration_sec=5.0)
            if self._stop.wait(0.05):
                return
        self._stop.wait(self._start_delay)

    def _play(self) -> int:
        count = 0
        with _open(self._bag) as reader:
            connections = [c for c in reader.connections if (c.topic, c.msgtype) in self._recorded]
            while not self._stop.is_set():
                count += self._play_once(reader, connections)
                if not self._loop:
                    break
        return count

    def _play_once(self, reader: Reader, connections: list[Connection]) -> int:
        began, next_tick, count = time.monotonic(), 0.0, 0
        for connection, stamp, data in reader.messages(connections):
            due = (stamp - reader.start_time) * 1e-9 / self._rate
            while next_tick <= due:
                if self._stop.wait(began + next_tick - time.monotonic()):
                    return count
                now = Time(nanoseconds=reader.start_time + round(next_tick * self._rate * 1e9))
                self._clock_publisher.publish(Clock(clock=now.to_msg()))
                next_tick += self._clock_period
            if self._stop.wait(began + due - time.monotonic()):
                return count
            self._recorded[connection.topic, connection.msgtype].publish(bytes(data))
            count += 1
        return count


@contextmanager
def _open(bag: Path) -> Iterator[Reader]:
    if not bag.exists():
        raise DataError(f"{bag}: no such bag; check the path")
    try:
        reader = Reader(bag)
        reader.open()
    except Exception as error:  # as above
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{bag}: not a readable ROS 2 bag ({reason}); record or copy it again") from None
    try:
        if not reader.message_count:
            raise DataError(f"{bag}: holds no messages; record it again")
        yield reader
    finally:
        reader.close()


def _message_class(message_type: str) -> type | None:
    try:
        package, _, name = message_type.split("/")
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ValueError, ImportError, AttributeError):
        return None


def _playback_qos(profiles: list[Qos]) -> QoSProfile:
    qos = QoSProfile(depth=max([HISTORY, *(profile.depth for profile in profiles)]))
    if profiles and all(profile.reliability == QosReliability.BEST_EFFORT for profile in profiles):
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
    if any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in profiles):
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return qos


def main(args: list[str] | None = None) -> int:
    """Run the node as a process; return its exit code."""
    return process.run(NAME, BagPlayer, args)


if __name__ == "__main__":
    sys.exit(main())
