"""A camera at 30 Hz that misbehaves on command: the part of soak.py that runs as a process of its own.

Plays a scene's test images, held as long as they were recorded, to and fro. Each line of its input is a JSON
object that changes some of `Behaviour`; every second it writes one with the number of images published.
"""

import array
import json
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from ofvl_core.camera import Camera
from ofvl_core.datasets import load_scene

RATE = 30.0
FRAME = "camera_color_optical_frame"
FRAMES = 40
"""Images held in memory, of the test split's beginning."""


@dataclass(frozen=True)
class Behaviour:
    """What the camera does; the defaults are those of a good one."""

    width: int = 640
    height: int = 480
    info_width: int = 0
    """Width that camera_info claims; 0: the true one."""
    brightness: float = 1.0
    """0 is black, 100 over-exposed."""
    depth: str = "good"
    """good, nan or none."""
    stamp_offset: float = 0.0
    """Seconds that stamps are ahead of the clock."""
    loop: float = 0.0
    """Where not 0, stamps follow an own /clock that falls back after so many seconds."""


class Film:
    """Colour and depth images of a scene, in any size, by the time since the film began."""

    def __init__(self, scene_root: Path) -> None:
        scene = load_scene(scene_root)
        first = scene.frames("test")[0]
        frames = [frame for frame in scene.frames("test") if frame.sequence == first.sequence][:FRAMES]
        self._camera = scene.camera
        self._seconds = np.array([frame.timestamp - first.timestamp for frame in frames])
        self._colors = [scene.read_color(frame) for frame in frames]
        self._depths = [scene.read_depth(frame) for frame in frames]
        self._sized: tuple[int, list[NDArray[Any]], list[NDArray[Any]]] = (0, [], [])

    def at(self, seconds: float, width: int, height: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """RGB (height, width, 3) uint8 and depth (height, width) float32 in metres, NaN where unknown."""
        if self._sized[0] != width:
            self._sized = (
                width,
                [cv2.resize(color, (width, height)) for color in self._colors],
                [self._metres(depth, width, height) for depth in self._depths],
            )
        end = self._seconds[-1]
        place = end - abs(seconds % (2 * end) - end)
        index = int(np.searchsorted(self._seconds, place, side="right")) - 1
        return self._sized[1][index], self._sized[2][index]

    def camera(self, width: int, height: int) -> Camera:
        """The camera of images of that size."""
        return self._camera.resized(width, height)

    @staticmethod
    def _metres(depth: NDArray[np.uint16], width: int, height: int) -> NDArray[Any]:
        sized = np.float32(0.001) * cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
        sized[sized == 0] = np.nan
        return sized


class MisbehavingCamera:
    """Publishes `image`, `camera_info`, `depth` and, when it loops, /clock."""

    def __init__(self, node: Node, film: Film) -> None:
        self._film = film
        self._behaviour = Behaviour()
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images = node.create_publisher(Image, "image", best_effort)
        self._depths = node.create_publisher(Image, "depth", best_effort)
        self._infos = node.create_publisher(CameraInfo, "camera_info", best_effort)
        self._clock = node.create_publisher(Clock, "/clock", best_effort)

    def run(self) -> None:
        """Publish until the context shuts down."""
        began = reported = time.monotonic()
        published = ticks = 0
        while rclpy.ok():
            ticks += 1
            time.sleep(max(0.0, began + ticks / RATE - time.monotonic()))
            self._publish(ticks / RATE, self._behaviour)
            published += 1
            if time.monotonic() - reported > 1:
                reported = time.monotonic()
                print(json.dumps({"published": published}), flush=True)

    def obey(self) -> None:
        """Change behaviour as the input says; return at its end."""
        for line in sys.stdin:
            self._behaviour = replace(self._behaviour, **json.loads(line))

    def _publish(self, seconds: float, behaviour: Behaviour) -> None:
        width, height = behaviour.width, behaviour.height
        color, depth = self._film.at(seconds, width, height)
        if behaviour.brightness != 1:
            color = np.clip(color * behaviour.brightness, 0, 255).astype(np.uint8)
        nanoseconds = time.time_ns() + round(behaviour.stamp_offset * 1e9)
        if behaviour.loop:
            nanoseconds = round((1000 + seconds % behaviour.loop) * 1e9)
            self._clock.publish(Clock(clock=stamp(nanoseconds)))
        self._infos.publish(self._info(behaviour, nanoseconds))
        if behaviour.depth != "none":
            if behaviour.depth == "nan":
                depth = np.full_like(depth, np.nan)
            self._depths.publish(image_message(depth, "32FC1", nanoseconds))
        self._images.publish(image_message(color, "rgb8", nanoseconds))

    def _info(self, behaviour: Behaviour, nanoseconds: int) -> CameraInfo:
        width = behaviour.info_width or behaviour.width
        camera = self._film.camera(width, width * behaviour.height // behaviour.width)
        info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.header.stamp, info.header.frame_id = stamp(nanoseconds), FRAME
        info.k = camera.matrix.ravel()
        return info


def stamp(nanoseconds: int) -> Time:
    """A stamp."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def image_message(pixels: NDArray[Any], encoding: str, nanoseconds: int) -> Image:
    """An Image of pixels (H, W) or (H, W, C)."""
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.data = array.array("B", pixels.tobytes())
    message.header.stamp, message.header.frame_id = stamp(nanoseconds), FRAME
    return message


def main() -> None:
    """Publish until the input ends."""
    film = Film(Path(sys.argv[1]))
    rclpy.init(args=[])
    node = Node("soak_camera")
    camera = MisbehavingCamera(node, film)
    threading.Thread(target=camera.run, daemon=True).start()
    camera.obey()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
