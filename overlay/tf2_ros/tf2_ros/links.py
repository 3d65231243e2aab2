"""What is known about one frame: its parent, and where it sits there over time."""

import bisect
from typing import NamedTuple

import numpy as np

from ofvl_core.geometry import Array, interpolate

from .exceptions import ExtrapolationException


class Link(NamedTuple):
    """A frame in its parent at one time: `stamp` in nanoseconds, the transform 4x4."""

    stamp: int
    parent: str
    parent_from_child: Array


class StaticLink:
    """A link that holds at every time. Its stamp counts as zero: "no matter when"."""

    def __init__(self) -> None:
        self._link: Link | None = None

    def insert(self, link: Link) -> bool:
        self._link = link._replace(stamp=0)
        return True

    def at(self, stamp: int) -> Link:
        assert self._link is not None, "a static link is inserted when it is made"
        return self._link

    def stamps(self) -> list[int]:
        return [0]

    def latest(self) -> Link | None:
        return self._link

    def clear(self) -> None:
        """Static links survive a clear, as in tf2."""


class MovingLink:
    """The links of a moving frame, oldest first, over the last `cache_time` nanoseconds."""

    def __init__(self, cache_time: int) -> None:
        self._cache_time = cache_time
        self._links: list[Link] = []

    def insert(self, link: Link) -> bool:
        """Adds a link in the order of stamps; False if it is older than the cache keeps."""
        if self._links and link.stamp < self._links[-1].stamp - self._cache_time:
            return False
        position = bisect.bisect_right(self._links, link.stamp, key=_stamp)
        # tf is often sent twice (a relay, a re-broadcast): the same link again would only use memory.
        same_time = self._links[bisect.bisect_left(self._links, link.stamp, key=_stamp) : position]
        if not any(_same(link, known) for known in same_time):
            self._links.insert(position, link)
        oldest_kept = self._links[-1].stamp - self._cache_time
        del self._links[: bisect.bisect_left(self._links, oldest_kept, key=_stamp)]
        return True

    def at(self, stamp: int) -> Link:
        """The link at a time, interpolated; time zero is the latest.

        Raises ExtrapolationException outside the times that are held.
        """
        if not self._links:
            raise ExtrapolationException(
                f"Lookup would require extrapolation at time {seconds(stamp)}, but no data is in the buffer"
            )
        newest = self._links[-1]
        if stamp in (0, newest.stamp):
            return newest
        if len(self._links) == 1:
            raise ExtrapolationException(
                f"Lookup would require extrapolation at time {seconds(stamp)}, "
                f"but only time {seconds(newest.stamp)} is in the buffer"
            )
        after = bisect.bisect_right(self._links, stamp, key=_stamp)
        if after == len(self._links):
            raise ExtrapolationException(
                "Lookup would require extrapolation into the future.  Requested time "
                f"{seconds(stamp)} but the latest data is at time {seconds(newest.stamp)}"
            )
        if after == 0:
            raise ExtrapolationException(
                "Lookup would require extrapolation into the past.  Requested time "
                f"{seconds(stamp)} but the earliest data is at time {seconds(self._links[0].stamp)}"
            )
        older, newer = self._links[after - 1], self._links[after]
        if older.parent != newer.parent or older.stamp == stamp:
            return older
        fraction = (stamp - older.stamp) / (newer.stamp - older.stamp)
        between = interpolate(older.parent_from_child, newer.parent_from_child, fraction)
        return Link(stamp, older.parent, between)

    def stamps(self) -> list[int]:
        return [link.stamp for link in self._links]

    def latest(self) -> Link | None:
        return self._links[-1] if self._links else None

    def clear(self) -> None:
        self._links.clear()


def seconds(stamp: int) -> str:
    """A stamp in nanoseconds as tf2 prints it."""
    return f"{stamp / 1e9:.6f}"


def _stamp(link: Link) -> int:
    return link.stamp


def _same(one: Link, other: Link) -> bool:
    return one.parent == other.parent and np.array_equal(one.parent_from_child, other.parent_from_child)
