"""The camera's topics: images, their intrinsics, and aligned depth where it is asked for."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ofvl_ros.distro import SubscriptionEventCallbacks
from ofvl_ros.health import Health

IMAGE_TRANSPORTS = ("raw", "compressed")
DEPTH_TRANSPORTS = ("none", "raw", "compressed")
RELIABILITIES = ("best_effort", "reliable")

SILENCE = 5.0
"""Seconds without an image after which the node says so, and between two warnings about depth."""

SAME_TIME = 0.008
"""Seconds by which the stamps of an image and of its depth may differ: less than half a frame at 60 Hz."""

DEPTHS_KEPT = 5
"""Depth images that wait for their colour image."""

AnyImage: TypeAlias = Image | CompressedImage


class Shot(NamedTuple):
    """One image of the camera, the depth taken with it if any, and the monotonic time at which it came."""

    image: AnyImage
    depth: AnyImage | None
    received: float

    @property
    def stamp(self) -> float:
        """When the image was taken, seconds."""
        return seconds(self.image)


class DepthPairing:
    """Finds the depth image taken together with a colour image, whichever of the two arrives first.

    Each call returns the shots that are complete. An image whose depth has not come when the next image
    does goes without.
    """

    def __init__(self) -> None:
        self._depths: deque[AnyImage] = deque(maxlen=DEPTHS_KEPT)
        self._waiting: Shot | None = None

    def on_image(self, image: AnyImage) -> list[Shot]:
        """A colour image came."""
        late = [self._waiting] if self._waiting is not None else []
        self._waiting = None
        shot = Shot(image, None, time.monotonic())
        for depth in self._depths:
            if abs(seconds(depth) - shot.stamp) <= SAME_TIME:
                return [*late, shot._replace(depth=depth)]
        self._waiting = shot
        return late

    def on_depth(self, depth: AnyImage) -> list[Shot]:
        """A depth image came."""
        self._depths.append(depth)
        shot = self._waiting
        if shot is None or abs(seconds(depth) - shot.stamp) > SAME_TIME:
            return []
        self._waiting = None
        return [shot._replace(depth=depth)]


class CameraInputs:
    """Subscribes `image`, `camera_info` and `depth`; hands shots to `on_shot` in the executor's thread."""

    def __init__(
        self,
        node: Node,
        image_transport: str,
        depth_transport: str,
        reliability: str,
        health: Health,
        on_shot: Callable[[Shot], None],
    ) -> None:
        self._node, self._health, self._on_shot = node, health, on_shot
        self.camera_info: CameraInfo | None = None
        self._last_image = time.monotonic()
        self._unheard = ""
        self._pairing = None if depth_transport == "none" else DepthPairing()
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability.upper()])
        kind, topic = (
            (CompressedImage, "image/compressed") if image_transport == "compressed" else (Image, "image")
        )
        self.image = self._subscribe(kind, topic, self._on_image, qos)
        self.info = self._subscribe(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        self._subscriptions = [self.image, self.info]
        if depth_transport != "none":
            compressed = depth_transport == "compressed"
            kind, topic = (CompressedImage, "depth/compressedDepth") if compressed else (Image, "depth")
            self._subscriptions.append(self._subscribe(kind, topic, self._on_depth, qos))

    def destroy(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def why_silent(self) -> str | None:
        """The likely cause when no image has come for a while."""
        if time.monotonic() - self._last_image < SILENCE:
            return None
        topic = self.image.topic_name
        if not self._node.count_publishers(topic):
            cause = "nobody publishes it, start the camera or remap 'image'"
        else:
            cause = self._unheard or (
                "its publisher sends nothing that gets here, check the camera driver and the DDS profile"
            )
        return f"no image on {topic} for {SILENCE:g} s: {cause}"

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> Subscription:
        def on_incompatible_qos(_: Any) -> None:
            self._unheard = (
                f"a publisher of {subscription.topic_name} does not offer reliable delivery: "
                "set image_qos to best_effort"
            )
            self._node.get_logger().warning(self._unheard)

        events = SubscriptionEventCallbacks(incompatible_qos=on_incompatible_qos)
        subscription = self._node.create_subscription(kind, topic, callback, qos, event_callbacks=events)
        return subscription

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera_info = message

    def _on_image(self, message: AnyImage) -> None:
        self._health.count("images received")
        self._last_image = time.monotonic()
        if self._pairing is None:
            self._on_shot(Shot(message, None, time.monotonic()))
        else:
            self._hand_over(self._pairing.on_image(message))

    def _on_depth(self, message: AnyImage) -> None:
        self._health.count("depth images received")
        assert self._pairing is not None
        self._hand_over(self._pairing.on_depth(message))

    def _hand_over(self, shots: list[Shot]) -> None:
        for shot in shots:
            if shot.depth is None:
                self._health.count("images without depth")
                self._node.get_logger().warning(
                    "no depth image has the image's stamp, localizing without: check that the driver aligns "
                    "and synchronises depth, or set depth_transport to none",
                    throttle_duration_sec=SILENCE,
                )
            self._on_shot(shot)


def seconds(message: AnyImage) -> float:
    """The stamp of a message."""
    return Time.from_msg(message.header.stamp).nanoseconds * 1e-9
