"""Which tf frame the map is attached to, and the transform that says so.

A frame has one parent, and the frames above a camera belong to others: odometry, a robot description, the
camera driver. On a robot with odometry the map goes above odom (REP-105); without, above the root of the
camera's own tree, whatever that is: base_link or camera_link, the optical frame itself only when nothing
parents it.
"""

import re
import threading
import time
from typing import NamedTuple

import numpy as np
import yaml
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_ros import Buffer, TransformBroadcaster

from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array
from ofvl_ros.messages import matrix, transform_stamped

TF_MODES = ("auto", "map_to_odom", "map_to_base", "map_to_camera", "none")

EXAMINE_PERIOD = 1.0
"""Seconds between two looks at the tree: listing all frames is slow, and trees rarely change."""

SETTLE_TIME = 1.0
"""Seconds the camera's ancestors must stay the same before the map is attached above them.

Latched transforms arrive one by one after start. A map hung on the optical frame in the meantime would be
its first parent, and tf2 never forgets that this frame once moved.
"""


SCENE = "{scene}"
"""Stands in the parameter map_frame for the scene's name."""


def map_frame(template: str, scene: str) -> str:
    """The map's frame of a scene, from the parameter of that name."""
    return template.replace(SCENE, scene)


class CameraTree:
    """The frames above the camera, as a tf2 buffer knows them.

    `map_frame` is the one that we put there, maybe with {scene} for the scene's name.
    """

    def __init__(
        self,
        buffer: Buffer,
        mode: str,
        map_frame: str,
        odom_frame: str,
        base_frame: str,
        timeout: Duration,
    ) -> None:
        self._buffer = buffer
        self._mode = mode
        self._is_map = re.compile(re.escape(map_frame).replace(re.escape(SCENE), ".+")).fullmatch
        self._odom_frame = odom_frame
        self._base_frame = base_frame
        self._timeout = timeout
        self._lineage: list[str] = []
        self._lineage_since = 0.0
        self._examined = -np.inf

    def transform(self, target: str, source: str, stamp: TimeMessage) -> Array:
        """target_from_source at `stamp`, waited for up to the timeout. Raises tf2's TransformException."""
        if target == source:
            return np.eye(4)
        time_point = Time.from_msg(stamp)
        return matrix(self._buffer.lookup_transform(target, source, time_point, self._timeout).transform)

    def has_odometry(self, camera_frame: str) -> bool:
        """Whether the camera hangs below the odometry's frame."""
        return self._odom_frame in self._ancestors(camera_frame)

    def map_child(self, camera_frame: str) -> str | None:
        """The frame to attach the map to; None for tf_mode none, and while the tree is still settling.

        Raises ConfigError when that frame already has a parent, and whose child it is.
        """
        lineage = self._ancestors(camera_frame)
        if self._mode == "none" or time.monotonic() - self._lineage_since < SETTLE_TIME:
            return None
        root = lineage[-1]
        child = {
            "auto": self._odom_frame if self._odom_frame in lineage else root,
            "map_to_odom": self._odom_frame,
            "map_to_base": self._base_frame or camera_frame,
            "map_to_camera": root,
        }[self._mode]
        if child in lineage[:-1]:
            parent = lineage[lineage.index(child) + 1]
            raise ConfigError(
                f"'{child}' already has the parent '{parent}', and a frame has one: set tf_mode to auto, "
                "or odom_frame to the root of your tf tree"
            )
        return child

    def _ancestors(self, camera_frame: str) -> list[str]:
        """The camera's frame, its parent and so on, up to the root below our own map."""
        now = time.monotonic()
        if self._lineage[:1] != [camera_frame] or now - self._examined >= EXAMINE_PERIOD:
            self._examined = now
            lineage = self._find_lineage(camera_frame)
            if lineage != self._lineage:
                self._lineage, self._lineage_since = lineage, now
        return self._lineage

    def _find_lineage(self, frame: str) -> list[str]:
        frames = yaml.safe_load(self._buffer.all_frames_as_yaml()) or {}
        lineage = [frame]
        # Our own broadcasts come back through the listener: stop below the map.
        while (parent := frames.get(lineage[-1], {}).get("parent")) is not None:
            if parent in lineage or self._is_map(parent):
                break
            lineage.append(parent)
        return lineage


class MapTransform(NamedTuple):
    """Where the map is: above `child`. It `lasts` where that holds beyond the image, as above odometry."""

    map_from_child: Array
    child: str
    lasts: bool


class MapBroadcaster:
    """Sends the map's transform: once at an image's stamp, or, where it lasts, at a steady rate.

    What is sent again is dated `tolerance` seconds ahead of the node's clock, as AMCL does, so that it holds
    until the next one; it ends `lifetime` seconds after the last image that confirmed it. A scene switch
    stops it first, and another map waits until what was dated ahead is over: odom has one parent at a time.
    """

    def __init__(
        self, node: Node, broadcaster: TransformBroadcaster, rate: float, tolerance: float, lifetime: float
    ) -> None:
        self._node = node
        self._broadcaster = broadcaster
        self._tolerance = Duration(seconds=tolerance)
        self._lifetime = Duration(seconds=lifetime)
        self._repeated: TransformStamped | None = None
        self._end = Time()
        self._sent_parent, self._sent_until = "", 0
        self._lock = threading.Lock()
        self._timer = node.create_timer(1.0 / rate, self._repeat)

    def send(self, transform: MapTransform, map_frame: str, stamp: TimeMessage) -> None:
        """Broadcast what an image taken at `stamp` has confirmed."""
        message = transform_stamped(transform.map_from_child, map_frame, transform.child, stamp)
        if not transform.lasts:
            self._broadcaster.sendTransform(message)
            return
        with self._lock:
            self._repeated = message
            self._end = self._node.get_clock().now() + self._lifetime
        self._repeat()

    def stop(self) -> None:
        """Broadcast nothing until there is something new."""
        with self._lock:
            self._repeated = None

    def start_over(self) -> None:
        """Stop, and forget what was sent: time itself starts again."""
        self.stop()
        self._sent_until = 0

    def destroy(self) -> None:
        """Give the timer back to the node."""
        self.stop()
        self._node.destroy_timer(self._timer)

    def _repeat(self) -> None:
        with self._lock:
            now = self._node.get_clock().now()
            if self._repeated is None or now >= self._end:
                return
            parent, stamp = self._repeated.header.frame_id, now + self._tolerance
            if parent != self._sent_parent and now.nanoseconds < self._sent_until:
                return  # another map, dated ahead, still holds
            self._sent_parent, self._sent_until = parent, stamp.nanoseconds
            self._repeated.header.stamp = stamp.to_msg()
            self._broadcaster.sendTransform(self._repeated)
