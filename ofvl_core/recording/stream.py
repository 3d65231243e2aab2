"""How one topic's stream is doing: its rate, what is missing in it, since when it is silent."""

import statistics
import struct
from collections import deque

WINDOW = 5.0
"""Seconds over which a rate is taken."""

GAP = 1.5
"""Periods between two stamps from which on messages are missing between them."""

KNOWN = 8
"""Distances between stamps that make a period; as many again are remembered three times."""


class Stream:
    """Rate, gaps and silence of a topic. Times of arrival are monotonic seconds, stamps nanoseconds."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.gaps = 0
        self._first: float | None = None
        self._recent: deque[tuple[float, int]] = deque()
        self._last = 0.0
        self._stamp: int | None = None
        self._distances: deque[int] = deque(maxlen=4 * KNOWN)

    def note(self, arrived: float, size: int, stamp: int | None) -> None:
        """A message came, of `size` bytes; None for the stamp of one without a header."""
        self._first = arrived if self._first is None else self._first
        self._last = arrived
        self.messages += 1
        self.bytes += size
        self._recent.append((arrived, size))
        self._forget(arrived)
        if stamp is None:
            return
        distance = stamp - self._stamp if self._stamp is not None else 0
        self._stamp = stamp
        if distance > 0:
            if len(self._distances) >= KNOWN and distance > GAP * statistics.median(self._distances):
                self.gaps += 1
            self._distances.append(distance)

    def rate(self, now: float) -> float:
        """Messages a second."""
        return self._in_window(now)[0]

    def bytes_per_second(self, now: float) -> float:
        """Bytes a second."""
        return self._in_window(now)[1]

    def silence(self, now: float) -> float | None:
        """Seconds since the last message; None before the first."""
        return None if self._first is None else now - self._last

    def start_over(self) -> None:
        """Count messages, bytes and gaps from here: another bag begins."""
        self.messages = self.bytes = self.gaps = 0

    def _in_window(self, now: float) -> tuple[float, float]:
        self._forget(now)
        if self._first is None:
            return 0.0, 0.0
        seconds = max(min(WINDOW, now - self._first), 1.0)
        return len(self._recent) / seconds, sum(size for _, size in self._recent) / seconds

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - WINDOW:
            self._recent.popleft()


def header_stamp(message: bytes) -> int:
    """The stamp, in nanoseconds, of a serialised message that begins with a std_msgs/Header."""
    order = "<" if message[1] & 1 else ">"  # CDR: the second byte names the byte order, four bytes lead
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", message, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
