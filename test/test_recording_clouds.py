"""Point clouds of any layout become scans."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_helpers import ROS1, ROS2, SECOND

from ofvl_core.errors import DataError
from ofvl_core.lidar.scan import Scan
from ofvl_core.recording import clouds
from ofvl_core.recording.clouds import ELEVATIONS, scan_from_cloud

STAMP = 1_700_000_000 * SECOND + 123_456_789
VELODYNE = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("intensity", "f4"), ("ring", "u2"), ("time", "f4")]


def revolution(columns: int = 90, turn: float = 1.0) -> Scan:
    """A VLP-16's turn by `turn` revolutions, clockwise from behind, seeing a ball 4 m around it."""
    fraction = np.repeat(np.linspace(-turn, 0, columns), 16)
    rings = np.tile(np.arange(16), columns)
    azimuth, elevation = np.pi - 2 * np.pi * (fraction + turn), np.radians(ELEVATIONS[rings])
    level = np.cos(elevation)
    points = 4 * np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=1)
    times = (0.1 * fraction).astype(np.float32)
    return Scan(STAMP, points.astype(np.float32), rings.astype(np.uint8), times)


def laid_out(scan: Scan, dtype: Any, **values: np.ndarray) -> np.ndarray:
    """A scan's points as a structured array; `values` are those of other fields."""
    points = np.zeros(len(scan.points), dtype)
    columns = dict(zip("xyz", scan.points.T, strict=True)) | {"ring": scan.rings, "time": scan.times} | values
    for name in points.dtype.names or ():
        if name in columns:
            points[name] = columns[name]
    return points


def assert_same(scan: Scan, expected: Scan, time_error: float = 1e-6) -> None:
    assert abs(scan.stamp - expected.stamp) < time_error * SECOND
    np.testing.assert_allclose(scan.points, expected.points, atol=1e-5)
    np.testing.assert_array_equal(scan.rings, expected.rings)
    np.testing.assert_allclose(scan.times, expected.times, atol=time_error)
    assert (scan.points.dtype, scan.rings.dtype, scan.times.dtype) == (np.float32, np.uint8, np.float32)


@st.composite
def layouts(draw: st.DrawFn) -> np.dtype:
    """Fields in any order, of any width, with gaps between them and after them."""
    order = draw(st.sampled_from("<>"))
    real, ring = draw(st.sampled_from(["f4", "f8"])), draw(st.sampled_from(["u1", "u2", "i2", "i4", "f4"]))
    kinds = {"x": real, "y": real, "z": real, "intensity": "f4", "ring": ring, "time": "f4"}
    names = draw(st.permutations(list(kinds)))
    offsets, end = [], 0
    for name in names:
        offsets.append(end + draw(st.integers(0, 5)))
        end = offsets[-1] + np.dtype(kinds[name]).itemsize
    formats = [order + kinds[name] if kinds[name] != "u1" else "u1" for name in names]
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": end + draw(st.integers(0, 9))}
    )


@given(layouts(), st.sampled_from([1, 2, 16]), st.integers(0, 7), st.sampled_from([ROS1, ROS2]))
def test_every_layout_gives_the_same_scan(dtype: np.dtype, rows: int, padding: int, ros: Any) -> None:
    expected = revolution(columns=16)
    points = laid_out(expected, dtype).reshape(rows, -1)
    assert_same(scan_from_cloud(ros.cloud(STAMP, points, row_padding=padding)), expected)


@pytest.mark.parametrize(
    ("name", "kind", "times", "stamp"),
    [
        ("time", "f4", lambda seconds: seconds, STAMP),
        ("time", "f4", lambda seconds: seconds + 0.08, STAMP - 80_000_000),
        ("t", "u4", lambda seconds: np.rint((seconds + 0.08) * 1e9).clip(0), STAMP - 80_000_000),
        ("offset_time", "u4", lambda seconds: np.rint((seconds + 0.08) * 1e9).clip(0), STAMP - 80_000_000),
        ("t", "u4", lambda seconds: np.rint((seconds + 0.08) * 1e6).clip(0), STAMP - 80_000_000),
        ("timestamp", "f8", lambda seconds: STAMP * 1e-9 + seconds, STAMP),
        ("timestamp", "f8", lambda seconds: STAMP * 1e-9 + seconds, STAMP - 80_000_000),
        ("timestamp", "f8", lambda seconds: STAMP + seconds * 1e9, STAMP),
    ],
)
def test_times_end_with_the_revolution(name: str, kind: str, times: Any, stamp: int) -> None:
    """One of 80 ms, so that it is not that of the azimuth."""
    scan = revolution()
    seconds = scan.times * 0.8
    values = times(seconds.astype(float))
    found = scan_from_cloud(
        ROS2.cloud(stamp, laid_out(scan, [*VELODYNE[:5], (name, kind)], **{name: values}))
    )
    assert_same(found, Scan(STAMP, scan.points, scan.rings, seconds), time_error=2e-6)


def test_the_last_packets_points_may_be_later_than_its_stamp() -> None:
    scan = revolution()
    points = laid_out(scan, VELODYNE, time=scan.times + 0.0013)
    found = scan_from_cloud(ROS2.cloud(STAMP, points))
    assert found.stamp == STAMP
    assert found.times.max() == pytest.approx(0.0013)


def test_a_stamp_from_elsewhere_counts() -> None:
    cloud = ROS2.cloud(0, laid_out(revolution(), VELODYNE))
    assert scan_from_cloud(cloud, STAMP).stamp == STAMP


@pytest.mark.parametrize("turn", [0.4, 1.0, 1.02])
@pytest.mark.parametrize("by_ring", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_without_times_the_azimuth_tells_them(
    turn: float, by_ring: bool, zeros: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clouds._note.cache_clear()
    expected = revolution(turn=turn)
    if by_ring:
        order = np.argsort(expected.rings, kind="stable")
        expected = Scan(STAMP, expected.points[order], expected.rings[order], expected.times[order])
    points = laid_out(expected, VELODYNE if zeros else VELODYNE[:5], time=np.zeros(len(expected.points)))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(scan_from_cloud(ROS2.cloud(STAMP, points)), expected)
    assert caplog.text.count("clouds of velodyne give points no time") == 1


def test_missing_rings_follow_from_the_elevations() -> None:
    expected = revolution()
    noisy = expected.points * np.random.default_rng(0).uniform(0.9, 1.1, (len(expected.points), 1))
    points = laid_out(Scan(STAMP, noisy, expected.rings, expected.times), [*VELODYNE[:4], VELODYNE[5]])
    np.testing.assert_array_equal(scan_from_cloud(ROS2.cloud(STAMP, points)).rings, expected.rings)


def test_points_without_an_echo_are_dropped() -> None:
    scan = revolution()
    points = laid_out(scan, VELODYNE)
    points["x"][3] = np.nan
    points["z"][4] = np.inf
    for axis in "xyz":
        points[axis][5] = 0
    found = scan_from_cloud(ROS2.cloud(STAMP, points))
    np.testing.assert_array_equal(found.points, np.delete(scan.points, (3, 4, 5), axis=0))
    assert len(found.rings) == len(found.times) == len(found.points)


@pytest.mark.parametrize("count", [0, 20])
def test_an_empty_cloud_is_an_empty_scan(count: int) -> None:
    scan = scan_from_cloud(ROS2.cloud(STAMP, np.full(count, np.nan, [(name, "f8") for name, _ in VELODYNE])))
    assert scan.stamp == STAMP
    assert scan.points.shape == (0, 3)
    assert len(scan.rings) == len(scan.times) == 0


def test_a_layout_that_is_no_lidars_is_named() -> None:
    scan = revolution()
    rotated = Scan(
        STAMP, scan.points @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]]), scan.rings, scan.times
    )
    causes = {
        r"cloud of velodyne \(fields x, y, rgb\) lacks x, y and z as floats": ROS2.cloud(
            STAMP, laid_out(scan, [("x", "f4"), ("y", "f4"), ("rgb", "f4")])
        ),
        "lacks x, y and z as floats; name": ROS2.cloud(
            STAMP, laid_out(scan, [("x", "i2"), ("y", "i2"), ("z", "i2")])
        ),
        "lacks ring, and its points do not lie at a VLP-16's elevations": ROS2.cloud(
            STAMP, laid_out(rotated, VELODYNE[:3])
        ),
        "has rings from 0 to 15000": ROS2.cloud(STAMP, laid_out(scan, VELODYNE, ring=scan.rings * 1000.0)),
        "has times that span": ROS2.cloud(STAMP, laid_out(scan, VELODYNE, time=scan.times * 50)),
    }
    for cause, cloud in causes.items():
        with pytest.raises(DataError, match=cause) as error:
            scan_from_cloud(cloud)
        assert "\n" not in str(error.value)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2000), st.binary(max_size=900))
def test_a_damaged_cloud_is_read_or_refused(width: int, step: int, row_step: int, data: bytes) -> None:
    cloud = ROS2.cloud(STAMP, laid_out(revolution(2), VELODYNE))
    cloud.width, cloud.point_step, cloud.row_step, cloud.height = width, step, row_step, 2
    cloud.data = np.frombuffer(data, np.uint8)
    try:
        scan = scan_from_cloud(cloud)
    except DataError as error:
        assert "cut short" in str(error) or "rings" in str(error) or "times" in str(error)
    else:
        assert len(scan.points) <= 2 * width
