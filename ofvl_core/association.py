"""Which pose of one trajectory belongs to which of another: by name, by time stamp or by row."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array
from ofvl_core.trajectory import ROWS, Trajectory

STAMP_TOLERANCE = 0.01
"""Seconds by which the time stamps of one image may differ, as in evo."""

Matches = NDArray[np.int64]


def associate(estimated: Trajectory, true: Trajectory, tolerance: float = STAMP_TOLERANCE) -> Matches:
    """For every pose of `true` (N,) the row of its estimate, or -1. No estimate serves twice.

    Names belong together when `name_parts` are equal, or one's are the end of the other's, where folders
    were dropped; time stamps when each is the other's nearest and no further than `tolerance` seconds away;
    KITTI rows by their place. Raises DataError for two formats, a name or stamp that is there twice, a name
    that may be of two frames, KITTI files of different lengths, and when nothing belongs together.
    """
    if estimated.format != true.format:
        raise DataError(
            f"{estimated.source} is a {estimated.format} trajectory but {true.source} a {true.format} one; "
            f"write both in rows of '{ROWS[true.format]}'"
        )
    if estimated.stamps is not None and true.stamps is not None:
        _refuse_twice(estimated, estimated.stamps)
        _refuse_twice(true, true.stamps)
        matches = _by_stamp(estimated.stamps, true.stamps, tolerance)
    elif true.names is not None:
        matches = _by_name(estimated, true)
    elif len(estimated.poses) == len(true.poses):
        matches = np.arange(len(true.poses))
    else:
        raise DataError(
            f"{estimated.source} has {len(estimated.poses)} poses and {true.source} {len(true.poses)}, but "
            "KITTI rows are told apart by their place alone; write TUM or name rows to leave frames out"
        )
    if (matches < 0).all():
        raise DataError(
            f"{estimated.source}: no pose belongs to any of {true.source}, whose first is {true.labels[0]} "
            f"while the estimate's is {estimated.labels[0]}; give two files of one scene"
        )
    return matches


def name_parts(name: str) -> tuple[str, ...]:
    """An image's name without its ending, split at folders, dashes and underscores.

    Tools that flatten folders join their names: seq-03/frame-000000.color.png of 7-Scenes is
    seq-03-frame-000000.color.png to ACE.
    """
    stem = re.sub(r"(\.(color|rgb))?\.(png|jpe?g|ppm|bmp|tiff?)$", "", name, flags=re.IGNORECASE)
    return tuple(part for part in re.split(r"[/\\_-]", stem) if part)


def _by_stamp(estimated: Array, true: Array, tolerance: float) -> Matches:
    match = _nearest(true, estimated)
    mutual = _nearest(estimated, true)[match] == np.arange(len(true))
    return np.where(mutual & (np.abs(estimated[match] - true) <= tolerance), match, -1)


def _nearest(stamps: Array, others: Array) -> Matches:
    """For every stamp the index of the nearest of `others`."""
    order = np.argsort(others)
    after = np.searchsorted(others[order], stamps).clip(0, len(others) - 1)
    before = (after - 1).clip(0)
    earlier = np.abs(others[order[before]] - stamps) <= np.abs(others[order[after]] - stamps)
    return order[np.where(earlier, before, after)]


def _by_name(estimated: Trajectory, true: Trajectory) -> Matches:
    estimated_parts, true_parts = [
        [name_parts(label) for label in trajectory.labels] for trajectory in (estimated, true)
    ]
    _refuse_twice(estimated, estimated_parts)
    _refuse_twice(true, true_parts)
    with_name = {parts: [row] for row, parts in enumerate(true_parts)}
    with_ending = defaultdict(list)
    for row, parts in enumerate(true_parts):
        for ending in _endings(parts):
            with_ending[ending].append(row)
    matches = np.full(len(true_parts), -1)
    for row, parts in enumerate(estimated_parts):
        found = with_name.get(parts) or with_ending.get(parts, [])
        found = found or [match for ending in _endings(parts) for match in with_name.get(ending, [])]
        if len(found) > 1 or (found and matches[found[0]] >= 0):
            raise DataError(
                f"{estimated.source}: {estimated.labels[row]} is not alone in fitting "
                f"{true.labels[found[0]]} of {true.source}; write names with their folders"
            )
        if found:
            matches[found[0]] = row
    return matches


def _endings(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [parts[start:] for start in range(1, len(parts))]


def _refuse_twice(trajectory: Trajectory, keys: Sequence[tuple[str, ...]] | Array) -> None:
    """Raises DataError for the first pose whose key another has as well."""
    counts = Counter(keys)
    for key, label in zip(keys, trajectory.labels, strict=True):
        if counts[key] > 1:
            raise DataError(
                f"{trajectory.source}: {label} is there {counts[key]} times; keep one pose a frame"
            )
