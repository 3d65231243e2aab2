"""How a stream is doing: rates, latencies, drops; and the diagnostic messages that say so."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 5.0
"""Seconds over which rates and latencies are taken."""


class Health:
    """Counts events and durations by name. Safe to use from several threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._totals: dict[str, int] = defaultdict(int)
        self._recent: dict[str, deque[tuple[float, float]]] = defaultdict(deque)
        self._lock = threading.Lock()

    def count(self, event: str) -> None:
        """Something happened once more."""
        with self._lock:
            self._totals[event] += 1
            self._recent[event].append((self._now(), 0.0))
            self._forget()

    def took(self, stage: str, seconds: float) -> None:
        """How long something took."""
        with self._lock:
            self._recent[stage].append((self._now(), seconds))
            self._forget()

    def total(self, event: str) -> int:
        """How often it has happened."""
        with self._lock:
            return self._totals[event]

    def summary(self) -> dict[str, str]:
        """Rates in Hz, totals, and the median and 95th percentile of durations in milliseconds."""
        with self._lock:
            self._forget()
            window = min(WINDOW, max(self._now() - self._began, 1e-3))
            lines = {}
            for name, recent in self._recent.items():
                if name in self._totals:
                    lines[f"{name} (Hz)"] = f"{len(recent) / window:.1f}"
                    lines[f"{name} (total)"] = str(self._totals[name])
                elif recent:
                    p50, p95 = np.percentile([1000 * seconds for _, seconds in recent], (50, 95))
                    lines[f"{name} (ms, median)"] = f"{p50:.1f}"
                    lines[f"{name} (ms, 95 %)"] = f"{p95:.1f}"
            return lines

    def _forget(self) -> None:
        oldest = self._now() - WINDOW
        for recent in self._recent.values():
            while recent and recent[0][0] < oldest:
                recent.popleft()


def diagnostic_status(
    level: bytes, name: str, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """A DiagnosticStatus; every value is written as text."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, values=pairs)
