"""sensor_msgs/Image to an RGB array."""

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from ofvl_core.errors import OfvlError

_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}
"""Channels and OpenCV's conversion to RGB. All have one byte a channel, so is_bigendian changes nothing."""


class UnsupportedImageError(OfvlError):
    """An image message that cannot be decoded."""


def _import_cv_bridge() -> Any:
    """A CvBridge, or None where there is none that works.

    The compiled half is loaded here and not at the first image: built for NumPy 1 it fails under NumPy 2,
    with whatever exception its release happens to raise.
    """
    try:
        import cv_bridge
        import cv_bridge.boost.cv_bridge_boost

        return cv_bridge.CvBridge()
    except Exception:
        return None


_bridge = _import_cv_bridge()


def rgb_array(message: Image) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of a message; an unpadded rgb8 image shares the message's memory.

    Raises UnsupportedImageError for an unknown encoding, a size of zero, or fewer bytes than step * height.
    """
    width, height, step = message.width, message.height, message.step
    if message.encoding not in _ENCODINGS:
        raise UnsupportedImageError(
            f"image encoding '{message.encoding}' is not supported; publish one of {', '.join(_ENCODINGS)}"
        )
    channels, conversion = _ENCODINGS[message.encoding]
    if width == 0 or height == 0:
        raise UnsupportedImageError(f"image is empty ({width}x{height}); check the camera driver")
    if step < width * channels or len(message.data) < step * height:
        raise UnsupportedImageError(
            f"image is cut short: {len(message.data)} bytes and step {step} for {width}x{height} "
            f"{message.encoding}; check the camera driver"
        )
    # Padded rows are decoded here: cv_bridge shears them when the padding is no multiple of a pixel.
    if _bridge is not None and step == width * channels:
        return _bridge.imgmsg_to_cv2(message, "rgb8")
    rows = np.frombuffer(message.data, np.uint8, step * height).reshape(height, step)
    pixels = rows[:, : width * channels].reshape(height, width, channels)
    return pixels if conversion is None else cast(NDArray[np.uint8], cv2.cvtColor(pixels, conversion))
