"""Decoding sensor_msgs/Image."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ros_helpers import image_message
from sensor_msgs.msg import Image

from ofvl_ros import images

CHANNEL_ORDER = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2, 3), "bgra8": (2, 1, 0, 3)}
"""Where each encoding's channels come from in R, G, B, alpha."""


def encode(rgba: np.ndarray, encoding: str) -> np.ndarray:
    """Pixels in an encoding; mono8 takes the red channel."""
    return rgba[..., 0] if encoding == "mono8" else rgba[..., CHANNEL_ORDER[encoding]]


@given(
    encoding=st.sampled_from([*CHANNEL_ORDER, "mono8"]),
    width=st.integers(1, 9),
    height=st.integers(1, 7),
    padding=st.integers(0, 13),
    big_endian=st.integers(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_encoding_and_padding_gives_the_same_rgb(
    encoding: str, width: int, height: int, padding: int, big_endian: int, seed: int
) -> None:
    rgba = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    message = image_message(encode(rgba, encoding), encoding, padding=padding)
    message.is_bigendian = big_endian

    decoded = images.rgb_array(message)

    expected = np.repeat(rgba[..., :1], 3, axis=2) if encoding == "mono8" else rgba[..., :3]
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected)


def test_numpy_gives_what_cv_bridge_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    if images._bridge is None:
        pytest.skip("no working cv_bridge here")
    rgba = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    messages = [image_message(encode(rgba, encoding), encoding) for encoding in images._ENCODINGS]
    by_cv_bridge = [images.rgb_array(message) for message in messages]
    monkeypatch.setattr(images, "_bridge", None)
    np.testing.assert_array_equal(by_cv_bridge, [images.rgb_array(message) for message in messages])


@pytest.mark.parametrize("boost", ["raise SystemError('initialization raised unreported exception')", None])
def test_a_broken_cv_bridge_counts_as_none(
    boost: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cv_bridge"
    (package / "boost").mkdir(parents=True)
    (package / "__init__.py").write_text("class CvBridge: pass\n")
    (package / "boost" / "__init__.py").write_text("")
    if boost is not None:
        (package / "boost" / "cv_bridge_boost.py").write_text(boost)
    for name in [name for name in sys.modules if name.split(".")[0] == "cv_bridge"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert images._import_cv_bridge() is None
        assert "cv_bridge" in sys.modules  # it was this broken one that was tried
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "cv_bridge"]:
            monkeypatch.delitem(sys.modules, name, raising=False)


def test_unpadded_rgb_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_bridge", None)
    message = image_message(np.zeros((4, 5, 3), np.uint8))
    decoded = images.rgb_array(message)
    message.data[0] = 77
    assert decoded[0, 0, 0] == 77


def cut_short(message: Image) -> Image:
    message.data = message.data[:-1]
    return message


def narrow_step(message: Image) -> Image:
    message.step -= 1
    return message


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (image_message(np.zeros((4, 5, 2), np.uint8), "yuv422"), "encoding 'yuv422' is not supported"),
        (image_message(np.zeros((4, 5, 2), np.uint8), "mono16"), "rgb8, bgr8, rgba8, bgra8, mono8"),
        (image_message(np.zeros((4, 5, 3), np.uint8), ""), "encoding '' is not supported"),
        (Image(encoding="rgb8"), r"empty \(0x0\)"),
        (cut_short(image_message(np.zeros((4, 5, 3), np.uint8))), "cut short: 59 bytes"),
        (narrow_step(image_message(np.zeros((4, 5, 3), np.uint8))), "cut short: .* step 14"),
    ],
)
def test_what_cannot_be_decoded_is_named(message: Image, cause: str) -> None:
    with pytest.raises(images.UnsupportedImageError, match=cause):
        images.rgb_array(message)
