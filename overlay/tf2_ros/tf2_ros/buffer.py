"""The tree of frames over time, and the way from one frame to another."""

import math
import threading
import time as wall_clock
from collections.abc import Iterator

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time

from ofvl_core.geometry import Array, invert, quaternion_xyzw, transform

from .exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from .links import Link, MovingLink, StaticLink, seconds


class Buffer:
    """Holds transforms and answers for any pair of connected frames. Safe to use from several threads.

    `cache_time` says how far back moving frames are remembered. With a `node`, the buffer is cleared
    when that node's clock jumps back, as when a bag starts over.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        self._cache_time = (cache_time or Duration(seconds=10)).nanoseconds
        self._links: dict[str, StaticLink | MovingLink] = {}
        self._authorities: dict[str, str] = {}
        self._known_frames: set[str] = set()
        self._changed = threading.Condition(threading.RLock())
        if node is not None:
            threshold = JumpThreshold(
                min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
            )
            self._jump_handle = node.get_clock().create_jump_callback(
                threshold, post_callback=self._on_time_jump
            )

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Adds a moving transform; one that makes no sense is logged and ignored."""
        self._set(transform, authority, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform that holds at every time; one that makes no sense is logged and ignored."""
        self._set(transform, authority, static=True)

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time | TimeMessage,
        timeout: Duration | None = None,
    ) -> TransformStamped:
        """The transform that takes points from the source frame to the target frame.

        Time zero means the latest time at which the whole chain is known. Waits up to `timeout` of wall
        time; another thread must feed the buffer meanwhile.
        Raises LookupException, ConnectivityException, ExtrapolationException or InvalidArgumentException.
        """
        self.can_transform(target_frame, source_frame, time, timeout)
        with self._changed:
            stamp, target_from_source = self._lookup(target_frame, source_frame, _nanoseconds(time))
        return _message(target_frame, source_frame, stamp, target_from_source)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time | TimeMessage,
        timeout: Duration | None = None,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Whether lookup_transform would succeed within `timeout`; with the reason if asked for."""
        stamp = _nanoseconds(time)
        deadline = wall_clock.monotonic() + (timeout.nanoseconds / 1e9 if timeout else 0.0)
        with self._changed:
            while True:
                reason = self._obstacle(target_frame, source_frame, stamp)
                remaining = deadline - wall_clock.monotonic()
                if not reason or remaining <= 0:
                    break
                self._changed.wait(remaining)
        return (not reason, reason) if return_debug_tuple else not reason

    def clear(self) -> None:
        """Forgets everything that moves; static transforms stay."""
        with self._changed:
            for link in self._links.values():
                link.clear()

    def all_frames_as_yaml(self) -> str:
        """Every frame that has a parent, with its parent, in tf2's YAML."""
        with self._changed:
            if not self._known_frames:
                return "[]"
            return "".join(self._frame_as_yaml(frame) for frame in self._links)

    def _frame_as_yaml(self, frame: str) -> str:
        latest = self._links[frame].latest()
        if latest is None:
            return ""
        stamps = self._links[frame].stamps()
        length = (stamps[-1] - stamps[0]) / 1e9
        return (
            f"{frame}: \n"
            f"  parent: '{latest.parent}'\n"
            f"  broadcaster: '{self._authorities[frame]}'\n"
            f"  rate: {len(stamps) / max(length, 1e-4):.3f}\n"
            f"  most_recent_transform: {seconds(stamps[-1])}\n"
            f"  oldest_transform: {seconds(stamps[0])}\n"
            f"  buffer_length: {length:.3f}\n"
        )

    def _on_time_jump(self, jump: TimeJump) -> None:
        get_logger("tf2_buffer").warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def _set(self, message: TransformStamped, authority: str, static: bool) -> None:
        parent = message.header.frame_id.removeprefix("/")
        child = message.child_frame_id.removeprefix("/")
        position, rotation = message.transform.translation, message.transform.rotation
        numbers = [position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w]
        fault = _fault(parent, child, numbers)
        if fault:
            get_logger("tf2_buffer").error(
                f'Ignoring transform from "{parent}" to "{child}" by authority "{authority}": {fault}'
            )
            return
        link = Link(_nanoseconds(message.header.stamp), parent, transform(numbers[:3], numbers[3:]))
        with self._changed:
            history = self._links.get(child)
            if history is None or isinstance(history, StaticLink) != static:
                history = StaticLink() if static else MovingLink(self._cache_time)
                self._links[child] = history
            if not history.insert(link):
                get_logger("tf2_buffer").warning(
                    f"TF_OLD_DATA ignoring data from the past for frame {child} at time "
                    f"{seconds(link.stamp)} according to authority {authority}"
                )
                return
            self._authorities[child] = authority
            self._known_frames |= {parent, child}
            self._changed.notify_all()

    def _obstacle(self, target: str, source: str, stamp: int) -> str:
        try:
            self._lookup(target, source, stamp)
        except TransformException as exception:
            return str(exception)
        return ""

    def _lookup(self, target: str, source: str, stamp: int) -> tuple[int, Array]:
        if target == source:
            return stamp or self._latest_stamp(target), np.eye(4)
        for name, frame in (("target_frame", target), ("source_frame", source)):
            self._validate(name, frame)
        stamp = stamp or self._latest_common_stamp(target, source)
        source_fault: ExtrapolationException | None = None
        from_source: dict[str, Array] = {}
        try:
            for frame, frame_from_source in self._upwards(source, stamp):
                from_source[frame] = frame_from_source
        except ExtrapolationException as exception:
            # Frames above the gap may not be needed: the target can be below it.
            source_fault = exception
        try:
            for frame, frame_from_target in self._upwards(target, stamp):
                if frame in from_source:
                    return stamp, invert(frame_from_target) @ from_source[frame]
        except ExtrapolationException as exception:
            raise _on_the_way(exception, target, source) from None
        if source_fault:
            raise _on_the_way(source_fault, target, source)
        raise _unconnected(target, source)

    def _upwards(self, frame: str, stamp: int) -> Iterator[tuple[str, Array]]:
        """Yields a frame and its ancestors, each with the transform from the first frame to it."""
        seen: set[str] = set()
        ancestor_from_frame = np.eye(4)
        ancestor = frame
        while True:
            yield ancestor, ancestor_from_frame
            seen.add(ancestor)
            if ancestor not in self._links:
                return
            link = self._links[ancestor].at(stamp)
            if link.parent in seen:
                raise LookupException("The tf tree is invalid because it contains a loop.")
            ancestor, ancestor_from_frame = link.parent, link.parent_from_child @ ancestor_from_frame

    def _latest_common_stamp(self, target: str, source: str) -> int:
        source_stamps = dict(self._latest_upwards(source))
        for ancestor, target_stamp in self._latest_upwards(target):
            if ancestor in source_stamps:
                common = min(target_stamp, source_stamps[ancestor])
                return 0 if common == math.inf else int(common)
        raise _unconnected(target, source)

    def _latest_upwards(self, frame: str) -> Iterator[tuple[str, float]]:
        """Yields a frame and its ancestors, each with the oldest of the newest stamps up to it.

        The stamp is infinite while every link was static.
        """
        seen: set[str] = set()
        stamp = math.inf
        while frame not in seen:
            yield frame, stamp
            seen.add(frame)
            link = self._links[frame].latest() if frame in self._links else None
            if link is None:
                return
            stamp = min(stamp, link.stamp or math.inf)
            frame = link.parent
        raise LookupException("The tf tree is invalid because it contains a loop.")

    def _latest_stamp(self, frame: str) -> int:
        link = self._links[frame].latest() if frame in self._links else None
        return link.stamp if link else 0

    def _validate(self, argument: str, frame: str) -> None:
        where = f'"{frame}" passed to lookupTransform argument {argument}'
        if not frame or frame.startswith("/"):
            fault = "cannot start with a '/'" if frame else "cannot be empty"
            raise InvalidArgumentException(f"Invalid argument {where} - in tf2 frame_ids {fault}")
        if frame not in self._known_frames:
            raise LookupException(f"{where} does not exist. ")


def _fault(parent: str, child: str, numbers: list[float]) -> str:
    if not parent or not child:
        return "frame_id and child_frame_id must both be set"
    if parent == child:
        return "frame_id and child_frame_id are the same"
    if not all(math.isfinite(number) for number in numbers):
        return "it holds a number that is not finite"
    if not any(numbers[3:]):
        return "its quaternion is zero"
    return ""


def _on_the_way(exception: ExtrapolationException, target: str, source: str) -> ExtrapolationException:
    return ExtrapolationException(
        f"{exception}, when looking up transform from frame [{source}] to frame [{target}]"
    )


def _unconnected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the "
        "same tree.Tf has two or more unconnected trees."
    )


def _nanoseconds(time: Time | TimeMessage) -> int:
    if isinstance(time, Time):
        return time.nanoseconds
    return time.sec * 10**9 + time.nanosec


def _message(target: str, source: str, stamp: int, target_from_source: Array) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    message.header.frame_id = target
    message.child_frame_id = source
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = target_from_source[:3, 3].tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion_xyzw(target_from_source).tolist()
    return message
