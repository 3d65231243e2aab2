"""What is told of a topic's stream is so."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu

from ofvl_core.recording.stream import KNOWN, WINDOW, Stream, header_stamp

PERIOD = 33_000_000


def stream_of(stamps: list[int]) -> Stream:
    stream = Stream()
    for stamp in stamps:
        stream.note(stamp * 1e-9, 100, stamp)
    return stream


def test_rate_and_totals() -> None:
    stream = Stream()
    assert (stream.rate(1.0), stream.bytes_per_second(1.0), stream.silence(1.0)) == (0, 0, None)
    for number in range(1000):
        stream.note(number / 100, 50, None)
    assert stream.rate(10.0) == pytest.approx(100, rel=0.01)
    assert stream.bytes_per_second(10.0) == pytest.approx(5000, rel=0.01)
    assert (stream.messages, stream.bytes, stream.gaps) == (1000, 50_000, 0)
    assert stream.silence(12.0) == pytest.approx(2.01)
    assert stream.rate(10.0 + WINDOW) == 0
    stream.start_over()
    assert (stream.messages, stream.bytes) == (0, 0)
    assert stream.silence(12.0) == pytest.approx(2.01)


@given(st.sets(st.integers(KNOWN + 2, 200)), st.randoms(use_true_random=False))
def test_each_hole_in_the_stamps_is_a_gap(missing: set[int], random) -> None:
    stamps = [
        1_000_000_000 + number * PERIOD + random.randint(-PERIOD // 10, PERIOD // 10)
        for number in range(202)
        if number not in missing
    ]
    holes = sum(number - 1 not in missing for number in missing)
    assert stream_of(stamps).gaps == holes


def test_stamps_that_repeat_or_fall_back_are_no_gaps() -> None:
    stamps = [number * PERIOD for number in range(1, 20)]
    assert stream_of([*stamps, stamps[-1], *stamps]).gaps == 0


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 999_999_999))
def test_the_stamp_is_found_in_the_bytes(seconds: int, nanoseconds: int) -> None:
    message = Imu()
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    expected = seconds * 1_000_000_000 + nanoseconds
    assert header_stamp(serialize_message(message)) == expected
    assert header_stamp(b"\0\0\0\0" + struct.pack(">iI", seconds, nanoseconds)) == expected
