"""Point clouds of a spinning LiDAR: sensor_msgs/PointCloud2 as scans, whatever driver laid out its fields."""

import logging
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array
from ofvl_core.lidar.scan import Scan
from ofvl_core.recording.messages import stamp_ns

logger = logging.getLogger(__name__)

TIME_FIELDS = ("time", "t", "timestamp", "time_stamp", "offset_time")
"""What drivers call a point's time: Velodyne, Ouster, Hesai and RoboSense, and others."""

TIME_UNITS = (1.0, 1e-9, 1e-6, 1e-3)
"""Seconds of a time field's unit; no field says which."""

REVOLUTION = 0.1
"""Seconds of a revolution at the 10 Hz to which LiDARs are set, where points have no time of their own."""

JITTER = 0.05
"""Part of a revolution by which a point may seem to lie behind the one before it."""

SHORTEST, LONGEST = 0.01, 1.0
"""Seconds within which the times of a revolution's points span, and by which their unit is told."""

ENDING = 0.002
"""Seconds that points may be later than their revolution's stamp: a VLP-16's last packet takes 1.3 ms."""

ELEVATIONS = np.arange(-15.0, 16.0, 2.0)
"""Degrees of a VLP-16's lasers from the lowest, by its manual."""

ELEVATION_TOLERANCE = 0.35
"""Degrees by which a point may be off its laser."""

FAR = 2.0
"""Metres beyond which a laser's elevation shows: they leave the sensor a centimetre apart."""

_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""NumPy's names of PointField's datatypes."""


def scan_from_cloud(message: Any, stamp: int | None = None) -> Scan:
    """The revolution that a PointCloud2 holds, without points that are NaN or at the origin.

    `stamp`, nanoseconds, is the header's if not given. It may be that of the revolution's beginning or of its
    end, and the points' times relative to it or absolute, in whatever unit; where there are none they follow
    from the azimuth of a LiDAR that turns clockwise as the VLP-16 does, and the stamp is the end's. Missing
    rings follow from a VLP-16's elevations. Raises DataError for a cloud that lacks x, y and z, whose rings
    are unknown, or whose bytes are missing.
    """
    stamp = stamp_ns(message) if stamp is None else stamp
    cloud = _structured(message)
    names = cloud.dtype.names or ()
    xyz = np.stack([cloud[axis] for axis in "xyz"], axis=-1).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        measured = np.isfinite(xyz).all(axis=-1) & (np.abs(xyz).max(axis=-1) > 1e-3)
    points = xyz[measured]
    rings = _rings(cloud["ring"][measured], message) if "ring" in names else _vlp16_rings(points, message)
    if not len(points):
        return Scan(stamp, points, rings, np.zeros(0, np.float32))
    field = next((name for name in TIME_FIELDS if name in names), None)
    seconds = None if field is None else _seconds(cloud[field], stamp, message)[measured]
    if seconds is None or np.ptp(seconds) == 0:
        _note(f"clouds of {message.header.frame_id} give points no time; it is told from their azimuth")
        seconds = _seconds_by_azimuth(points, rings)
    last = float(seconds.max())
    if last > ENDING:  # the stamp is the beginning's
        stamp, seconds = stamp + round(last * 1e9), seconds - last
    return Scan(stamp, points, rings, seconds.astype(np.float32))


def field_names(message: Any) -> list[str]:
    """The fields of a PointCloud2."""
    return [field.name for field in message.fields]


def _structured(message: Any) -> NDArray:
    """The points (N,) with the fields that make a scan, in the message's memory if no row is padded."""
    wanted = {"x", "y", "z", "ring", *TIME_FIELDS}
    fields = {field.name: field for field in message.fields if field.name in wanted}
    order = ">" if message.is_bigendian else "<"
    kinds = {name: np.dtype(order + _KINDS.get(field.datatype, "V1")) for name, field in fields.items()}
    if not {"x", "y", "z"} <= {name for name, kind in kinds.items() if kind.kind == "f"}:
        raise DataError(
            f"{_described(message)} lacks x, y and z as floats; name the topic of the LiDAR driver"
        )
    height, width, step = message.height, message.width, message.point_step
    row_step = message.row_step if height > 1 else width * step
    ends = [field.offset + kinds[name].itemsize for name, field in fields.items()]
    if max(ends) > step or row_step < width * step or len(message.data) < row_step * height:
        raise DataError(
            f"{_described(message)} is cut short: {len(message.data)} bytes, steps {step} and "
            f"{message.row_step}, for {width}x{height} points; check the LiDAR driver"
        )
    dtype = np.dtype(
        {
            "names": list(fields),
            "formats": list(kinds.values()),
            "offsets": [field.offset for field in fields.values()],
            "itemsize": step,
        }
    )
    rows = np.ndarray((height, width), dtype, np.asarray(message.data, np.uint8), strides=(row_step, step))
    return rows.reshape(-1)


def _rings(values: NDArray, message: Any) -> NDArray[np.uint8]:
    if len(values) and not (values.min() >= 0 and values.max() <= 255):
        raise DataError(
            f"{_described(message)} has rings from {values.min()} to {values.max()}; check the LiDAR driver"
        )
    return values.astype(np.uint8)


def _vlp16_rings(points: NDArray[np.float32], message: Any) -> NDArray[np.uint8]:
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    rings = (
        np.rint((elevation - ELEVATIONS[0]) / np.diff(ELEVATIONS)[0]).clip(0, len(ELEVATIONS) - 1).astype(int)
    )
    errors = np.abs(elevation - ELEVATIONS[rings])
    far = np.linalg.norm(points, axis=1) > FAR
    judged = errors[far] if far.any() else errors
    if len(judged) and np.mean(judged < ELEVATION_TOLERANCE) < 0.95:
        raise DataError(
            f"{_described(message)} lacks ring, and its points do not lie at a VLP-16's elevations; record "
            "the points that the LiDAR driver publishes"
        )
    return rings.astype(np.uint8)


def _seconds(values: NDArray, stamp: int, message: Any) -> Array:
    """Times of points in seconds after `stamp`."""
    times = values.astype(np.float64)
    span = float(np.ptp(times[np.isfinite(times)])) if np.isfinite(times).any() else 0.0
    usual = 1.0 if values.dtype.kind == "f" else 1e-9  # for a small part of a revolution
    unit = next((unit for unit in TIME_UNITS if SHORTEST <= span * unit <= LONGEST), usual)
    if span * unit > LONGEST:
        raise DataError(f"{_described(message)} has times that span {span:g}; check the LiDAR driver")
    is_absolute = np.nanmax(np.abs(times)) * unit > 1e6 if span else False
    return times * unit - stamp * 1e-9 if is_absolute else times * unit


def _seconds_by_azimuth(points: NDArray[np.float32], rings: NDArray[np.uint8]) -> Array:
    """Times in seconds before the last point's, of a LiDAR that turns clockwise once in REVOLUTION.

    Points of one ring follow one another, which tells the two ends of a revolution apart.
    """
    azimuth = np.arctan2(points[:, 1], points[:, 0], dtype=np.float64)
    order = np.argsort(rings, kind="stable")
    begins = np.flatnonzero(np.diff(rings[order], prepend=-1))
    before = np.roll(azimuth[order], 1)
    before[begins] = azimuth[0]
    steps = (before - azimuth[order]) / (2 * np.pi)
    steps = (steps + JITTER) % 1.0 - JITTER
    travelled = np.cumsum(steps)
    travelled -= np.repeat((travelled - steps)[begins], np.diff(begins, append=len(order)))
    turned = np.empty(len(points))
    turned[order] = travelled
    return (turned - turned.max()) * REVOLUTION


def _described(message: Any) -> str:
    return f"cloud of {message.header.frame_id} (fields {', '.join(field_names(message)) or 'none'})"


@lru_cache(maxsize=64)
def _note(what: str) -> None:
    """Log it, but once."""
    logger.warning(what)
