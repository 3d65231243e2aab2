"""Which tf frame the map is attached to.

A frame has one parent, and the frames above a camera belong to others: odometry, a robot description, the
camera driver. So the map goes above the root of the camera's own tree, whatever that is: odom on a robot
with odometry, camera_link for a camera alone, the optical frame itself only when nothing parents it.
"""

import time

import numpy as np
import yaml
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import Buffer

from ofvl_core.geometry import Array
from ofvl_ros.messages import matrix, transform_stamped

EXAMINE_PERIOD = 1.0
"""Seconds between two looks at the tree: listing all frames is slow, and trees rarely change."""

SETTLE_TIME = 1.0
"""Seconds a root must stay the same before the map is attached to it.

Latched transforms arrive one by one after start. A map hung on the optical frame in the meantime would be
its first parent, and tf2 never forgets that this frame once moved.
"""


class CameraTree:
    """The frames around the camera, as a tf2 buffer knows them."""

    def __init__(self, buffer: Buffer, map_frame: str, timeout: Duration) -> None:
        self._buffer = buffer
        self._map_frame = map_frame
        self._timeout = timeout
        self._camera_frame = ""
        self._root = ""
        self._root_since = 0.0
        self._examined = -np.inf

    def transform(self, target: str, source: str, stamp: TimeMessage) -> Array:
        """target_from_source at `stamp`, waited for up to the timeout. Raises tf2's TransformException."""
        if target == source:
            return np.eye(4)
        time_point = Time.from_msg(stamp)
        return matrix(self._buffer.lookup_transform(target, source, time_point, self._timeout).transform)

    def attach_map(
        self, map_from_camera: Array, camera_frame: str, stamp: TimeMessage
    ) -> TransformStamped | None:
        """The transform that places the map so that the camera is where it was seen at `stamp`.

        None while the tree is still settling. Raises tf2's TransformException when the root's place at
        `stamp` is not known within the timeout.
        """
        self._examine(camera_frame)
        if time.monotonic() - self._root_since < SETTLE_TIME:
            return None
        map_from_root = map_from_camera @ self.transform(camera_frame, self._root, stamp)
        return transform_stamped(map_from_root, self._map_frame, self._root, stamp)

    def _examine(self, camera_frame: str) -> None:
        now = time.monotonic()
        if camera_frame == self._camera_frame and now - self._examined < EXAMINE_PERIOD:
            return
        self._examined = now
        root = self._find_root(camera_frame)
        if (camera_frame, root) != (self._camera_frame, self._root):
            self._camera_frame, self._root, self._root_since = camera_frame, root, now

    def _find_root(self, frame: str) -> str:
        frames = yaml.safe_load(self._buffer.all_frames_as_yaml()) or {}
        # Our own broadcasts come back through the listener: stop below the map.
        seen = {frame, self._map_frame}
        while (parent := frames.get(frame, {}).get("parent")) is not None and parent not in seen:
            seen.add(parent)
            frame = parent
        return frame
