"""Camera images and depth of messages as arrays: sensor_msgs/Image and CompressedImage, of ROS 1 and 2.

A message is whatever has their fields, so rclpy's, rospy's and those read from a bag are all the same.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import OfvlError

Message: TypeAlias = Any
"""An Image, or a CompressedImage, from wherever."""

MAX_PIXELS = 1 << 26
"""A compressed image that claims more is not decoded: a few bytes could ask for gigabytes."""

COLOR_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    # OpenCV's own names say nothing of colours; who publishes them means its order.
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    # Each order of 4:2:2 has an old name, and one that says it, which Humble does not know.
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names a pattern by its second row's second and third pixel, ROS by its first two rows.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}
"""Bytes a pixel and OpenCV's conversion to RGB. All have one byte a channel: is_bigendian changes nothing."""

DEPTH_ENCODINGS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""REP-118: whole millimetres with 0 where unknown, or metres; some drivers call the former mono16."""

_MILLIMETRE = np.float32(0.001)

_CONFIG_HEADER = struct.Struct("<iff")
"""What compressedDepth puts before its PNG: a number without meaning, then the quantisation's A and B."""


class UnsupportedImageError(OfvlError):
    """An image message that cannot be decoded."""


def is_compressed(message: Message) -> bool:
    """Whether a message is a CompressedImage: only those say their format."""
    return hasattr(message, "format")


def encoding(message: Message) -> str:
    """An image's encoding, or that of what was compressed.

    image_transport writes "ENCODING; codec ..." as a compressed image's format, many drivers the codec alone.
    """
    return message.format.partition(";")[0].strip() if is_compressed(message) else message.encoding


def rgb_array(message: Message) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of a message; an unpadded rgb8 image shares the message's memory.

    A compressed image is what its bytes are, JPEG or PNG, whatever its format string says. Raises
    UnsupportedImageError for an encoding that is not one of COLOR_ENCODINGS, a size of zero, bytes that are
    missing or damaged, a depth image, and a compressed image of more than MAX_PIXELS.
    """
    if is_compressed(message):
        return _decompressed_color(message)
    if message.encoding not in COLOR_ENCODINGS:
        raise UnsupportedImageError(
            f"image encoding '{message.encoding}' is not supported; publish one of "
            f"{', '.join(COLOR_ENCODINGS)}"
        )
    channels, conversion = COLOR_ENCODINGS[message.encoding]
    pixels = _rows(message, channels).reshape(message.height, message.width, channels)
    if conversion is None:
        return pixels
    if channels == 2 and message.width % 2:
        raise UnsupportedImageError(
            f"image is {message.width} pixels wide, but {message.encoding} has one colour for two pixels of "
            "a row; publish an even width or rgb8"
        )
    return cast(NDArray[np.uint8], cv2.cvtColor(pixels, conversion))


def depth_array(message: Message) -> NDArray[np.float32]:
    """Depth (H, W) in metres along the optical axis, NaN where unknown, of a 16UC1 or 32FC1 message.

    Compressed depth is a PNG of 16 bits, of the transport compressedDepth or of compressed. Raises
    UnsupportedImageError for colour, JPEG, RVL, and what rgb_array raises it for.
    """
    if is_compressed(message):
        return _decompressed_depth(message)
    if message.encoding not in DEPTH_ENCODINGS:
        raise UnsupportedImageError(
            f"depth encoding '{message.encoding}' is not supported; publish 16UC1 (millimetres) or 32FC1 "
            "(metres)"
        )
    kind = np.dtype(DEPTH_ENCODINGS[message.encoding]).newbyteorder(">" if message.is_bigendian else "<")
    values = np.ascontiguousarray(_rows(message, kind.itemsize)).view(kind)
    return _known(values * _MILLIMETRE if kind.kind == "u" else values)


def _rows(message: Message, pixel_bytes: int) -> NDArray[np.uint8]:
    """The bytes (H, W * pixel_bytes) of an image, without the padding of its rows."""
    width, height, step = message.width, message.height, message.step
    if width == 0 or height == 0:
        raise UnsupportedImageError(f"image is empty ({width}x{height}); check the camera driver")
    if step < width * pixel_bytes or len(message.data) < step * height:
        raise UnsupportedImageError(
            f"image is cut short: {len(message.data)} bytes and step {step} for {width}x{height} "
            f"{message.encoding}; check the camera driver"
        )
    rows = np.frombuffer(message.data, np.uint8, step * height).reshape(height, step)
    return rows[:, : width * pixel_bytes]


def _known(metres: NDArray[np.floating]) -> NDArray[np.float32]:
    """What a sensor can have measured; the rest is NaN."""
    with np.errstate(invalid="ignore"):
        return np.where((metres > 0) & (metres < np.inf), metres, np.nan).astype(np.float32)


def _decompressed_color(message: Message) -> NDArray[np.uint8]:
    if "compressedDepth" in message.format or encoding(message) in DEPTH_ENCODINGS:
        raise UnsupportedImageError(
            f"a depth image ('{message.format}') comes where colour is expected; remap the image topic to "
            "the colour camera's"
        )
    # Without the orientation, which an EXIF tag may ask for: camera_info is that of the pixels as they are.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _decode(bytes(message.data), (_JPEG, _PNG), flags, message.format)
    return cast(NDArray[np.uint8], cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _decompressed_depth(message: Message) -> NDArray[np.float32]:
    original, data = encoding(message), bytes(message.data)
    if original not in DEPTH_ENCODINGS:
        raise UnsupportedImageError(
            f"compressed depth has the format '{message.format}', which does not begin with 16UC1 or 32FC1; "
            "remap the depth topic to the depth camera's"
        )
    if "rvl" in message.format:
        raise UnsupportedImageError(
            "compressed depth is packed as RVL, which is not supported; set the publisher's "
            "compressedDepth.format to png"
        )
    if data.startswith(_JPEG.start):
        raise UnsupportedImageError(
            "compressed depth is a JPEG, whose 8 bits hold no distances; subscribe the topic that ends in "
            "/compressedDepth instead of /compressed"
        )
    quantised = not data.startswith(_PNG.start)
    packed = data[_CONFIG_HEADER.size :] if quantised else data
    values = _decode(packed, (_PNG,), cv2.IMREAD_UNCHANGED, message.format)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise UnsupportedImageError(
            f"compressed depth ('{message.format}') is not a one-channel PNG of 16 bits; publish 16UC1 or "
            "32FC1"
        )
    if DEPTH_ENCODINGS[original] == "u2":
        return _known(values * _MILLIMETRE)
    if not quantised:
        raise UnsupportedImageError(
            "compressed depth of metres (32FC1) lacks the header that says how it was quantised; subscribe "
            "the topic that ends in /compressedDepth"
        )
    _, a, b = _CONFIG_HEADER.unpack_from(data)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _known(np.where(values > 0, np.float32(a) / (values - np.float32(b)), np.nan))


class _Codec(NamedTuple):
    """A file format: its first bytes, and the width and height that its header claims; None if not whole."""

    name: str
    start: bytes
    size: Callable[[bytes], tuple[int, int] | None]


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or b"IEND\xaeB`\x82" not in data:
        return None
    width, height = struct.unpack_from(">II", data, 16)  # after signature, length and name of the first chunk
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(data):  # segments: a marker of two bytes, then a length that counts itself
        marker, length = struct.unpack_from(">HH", data, position)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):  # a frame begins
            height, width = struct.unpack_from(">HH", data, position + 5)
            return (width, height) if b"\xff\xd9" in data[position:] else None
        if marker < 0xFF00:
            return None
        position += 1 if marker == 0xFFFF else 2 + length
    return None


_PNG = _Codec("PNG", b"\x89PNG\r\n\x1a\n", _png_size)
_JPEG = _Codec("JPEG", b"\xff\xd8\xff", _jpeg_size)


def _decode(data: bytes, codecs: tuple[_Codec, ...], flags: int, described: str) -> NDArray:
    size = next((codec.size(data) for codec in codecs if data.startswith(codec.start)), None)
    if size is None:
        raise UnsupportedImageError(
            f"compressed image ('{described}') is not a whole {' or '.join(codec.name for codec in codecs)}; "
            "publish that, and ask for reliable delivery where parts get lost"
        )
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnsupportedImageError(
            f"compressed image claims to be {width}x{height}, over {MAX_PIXELS} pixels; check the camera "
            "driver"
        )
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # some releases raise where others return None
        pixels = None
    if pixels is None:
        raise UnsupportedImageError(
            f"compressed image ('{described}') is damaged; check the camera driver and the network"
        )
    return cast(NDArray, pixels)
