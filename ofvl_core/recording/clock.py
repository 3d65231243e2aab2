"""Stamps that can be trusted: when a sensor measured, rising within each topic."""

import logging
from collections.abc import Iterable, Iterator

from ofvl_core.recording.bags import Received
from ofvl_core.recording.messages import stamp_ns

logger = logging.getLogger(__name__)

JUMP = 10_000_000_000
"""Nanoseconds between two messages of a topic, beyond which the clock was set or the recording paused."""


def ordered(messages: Iterable[Received]) -> Iterator[Received]:
    """The messages with their header's stamp in place of that of receipt, rising within each topic.

    A message without a stamp keeps that of its receipt. Left out is what is not later than the message
    before, which after a clock was set back is all until it has caught up, and a lone stamp far in the
    future, be it the first, after which time goes on as before. Each trouble is logged once a topic, with
    its time. A topic's first message comes with its second, if it has one.
    """
    clocks: dict[str, _Clock] = {}
    for received in messages:
        clock = clocks.setdefault(received.topic, _Clock(received.topic))
        yield from clock.accept(received._replace(stamp=clock.stamp(received)))
    for clock in clocks.values():
        yield from clock.rest()


class _Clock:
    """The clock of one topic: its last stamp, and a message until another comes to confirm it.

    That is the first, and one far ahead.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._last: int | None = None
        self._waiting: list[Received] = []
        self._told: set[str] = set()

    def stamp(self, received: Received) -> int:
        """When a message was measured, or else received."""
        stamp = stamp_ns(received.message)
        if stamp == 0:
            self._tell(
                "carries no stamps", "so the time of receipt is taken for them: set them in the driver"
            )
        return stamp or received.stamp

    def accept(self, received: Received) -> Iterator[Received]:
        """What can be passed on now that `received` is there."""
        if self._last is None:
            first, self._waiting = self._waiting, [received]
            ahead = first[0].stamp - received.stamp if first else 0
            if ahead > JUMP:
                self._tell(
                    "begins with a stamp far in the future", f"{ahead / 1e9:.1f} s ahead, which is left out"
                )
            if not first or ahead > JUMP:
                return
            self._last, self._waiting = first[0].stamp, []
            yield from first
        step = received.stamp - self._last
        if step <= 0:
            self._tell("goes back in time", f"by {-step / 1e9:.3f} s, and what is not later is left out")
        elif step > JUMP and not (self._waiting and self._waiting[0].stamp < received.stamp):
            self._waiting = [received]
        else:
            if step > JUMP:
                self._tell("jumps forward", f"by {step / 1e9:.1f} s: check the clock")
                yield from self._waiting
            elif self._waiting:
                self._tell("has a stamp far in the future", "which is left out")
            self._waiting = []
            self._last = received.stamp
            yield received

    def rest(self) -> Iterator[Received]:
        """What still waited at the end."""
        yield from self._waiting

    def _tell(self, what: str, so: str) -> None:
        if what not in self._told:
            self._told.add(what)
            after = "" if self._last is None else f" after {self._last / 1e9:.3f} s"
            logger.warning("%s %s%s, %s", self._topic, what, after, so)
