"""Camera images and depth between messages and arrays, with cv_bridge for what the core does not know."""

import array
from functools import lru_cache
from typing import Any, cast

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from ofvl_core.recording import images
from ofvl_core.recording.images import UnsupportedImageError, depth_array

__all__ = ["UnsupportedImageError", "depth_array", "rgb_array", "rgb_message"]


def rgb_array(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of a message, as the core decodes it or, of a rarer encoding, cv_bridge.

    Raises UnsupportedImageError for what neither of them can decode.
    """
    known = images.is_compressed(message) or message.encoding in images.COLOR_ENCODINGS
    bridge = None if known or message.encoding in images.DEPTH_ENCODINGS else _cv_bridge()
    if bridge is None:
        return images.rgb_array(message)
    try:
        return cast(NDArray[np.uint8], bridge.imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:  # its own, OpenCV's or NumPy's
        raise UnsupportedImageError(
            f"image encoding '{message.encoding}' is not supported; cv_bridge says: "
            f"{' '.join(str(error).split())}; publish one of {', '.join(images.COLOR_ENCODINGS)}"
        ) from None


def rgb_message(rgb: NDArray[np.uint8], frame: str, stamp: Time) -> Image:
    """An rgb8 Image of pixels (H, W, 3)."""
    height, width = rgb.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    message.header.frame_id = frame
    message.header.stamp = stamp
    message.data = array.array("B", rgb.tobytes())  # rclpy would look at each byte of any other type
    return message


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    """A CvBridge, or None where there is none that works.

    The compiled half is loaded too: built for NumPy 1 it fails under NumPy 2, with whatever exception its
    release happens to raise.
    """
    try:
        import cv_bridge
        import cv_bridge.boost.cv_bridge_boost

        return cv_bridge.CvBridge()
    except Exception:
        return None
