"""Bags of any robot, of ROS 1 or ROS 2, closed or cut short, read without ROS."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from rosbags.interfaces import Connection, ConnectionExtRosbag1
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from ofvl_core.errors import DataError
from ofvl_core.recording.channel import Channel, Record, typestore
from ofvl_core.recording.salvage import FORMATS, Salvage, left_open

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Topic:
    """A recorded topic, its type as in 'sensor_msgs/msg/Image', and how many messages it has."""

    name: str
    type: str
    count: int


class Received(NamedTuple):
    """A message, its topic, and when the recorder received it, nanoseconds."""

    topic: str
    stamp: int
    message: Any


class Recording:
    """One bag, opened: a ROS 2 folder, a lone .mcap or .db3 file, or a ROS 1 .bag; a context manager.

    `topics` says what it holds, `start` and `end` are the nanoseconds of its first and last message.
    A bag that was cut short or is damaged gives what can be read; `damage` says so in a sentence, which is
    also logged. Messages that cannot be decoded are left out and counted in `skipped`, by topic. Raises
    DataError when there is no bag or nothing in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self.skipped: Counter[str] = Counter()
        self._decoders: dict[Channel, Callable[[bytes], Any]] = {}
        self._open = ExitStack()
        try:
            self._parts = [part for file in _files(self.path) if (part := self._part(file)) and part.counts]
            if not self._parts:
                raise DataError(f"{path}: holds no messages that can be read; record it again")
        except BaseException:
            self._open.close()
            raise
        self.start = min(part.start for part in self._parts)
        self.end = max(part.end for part in self._parts)
        self.topics = _topics(self._parts)

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end - self.start) * 1e-9

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        """The messages of `topics` as bytes, in the order in which they were received.

        Raises DataError for a topic that is not there.
        """
        if missing := [topic for topic in topics if topic not in self.topics]:
            raise DataError(f"{self.path}: no topic {', '.join(missing)}; it holds {self.contents()}")
        yield from merge(*[self._intact(part, topics) for part in self._parts], key=lambda record: record[1])

    def messages(self, topics: Collection[str]) -> Iterator[Received]:
        """The messages of `topics` in the order in which they were received, each decoded when it is due.

        Their arrays are read-only views of the bag's bytes. Raises DataError for a topic that is not there
        and for a type whose definition neither the bag nor ROS's own messages hold.
        """
        for channel, stamp, data in self.records(topics):
            decode = self._decoder(channel)
            try:
                message = decode(data)
            except Exception as error:  # rosbags raises whatever its parsers meet in damaged bytes
                if channel.topic not in self.skipped:
                    logger.warning("%s: a message of %s is damaged (%s)", self.path, channel.topic, error)
                self.skipped[channel.topic] += 1
            else:
                yield Received(channel.topic, stamp, message)

    def first(self, topic: str) -> Any | None:
        """The first message of `topic`; None where there is none that can be decoded."""
        return next((received.message for received in self.messages([topic])), None)

    def contents(self) -> str:
        """The topics with type and count, to be read by people."""
        return ", ".join(f"{topic.name} ({topic.type}, {topic.count})" for topic in self.topics.values())

    def _part(self, file: Path) -> "_Part | None":
        if not file.is_dir() and not file.stat().st_size:
            self._damaged(f"{file}: is empty, and is left out")
            return None
        try:
            return _Closed(self._open, file)
        except Exception as error:  # as above
            reason = " ".join(str(error).split()) or type(error).__name__
        if file.is_dir():
            raise DataError(
                f"{file}: a compressed bag that cannot be read ({reason}); record or copy it again"
            )
        part = _Salvaged(self._open, file)
        count, seconds = sum(part.counts.values()), (part.end - part.start) * 1e-9
        self._damaged(
            f"{file}: was cut short or is damaged ({reason.rstrip('.')}); {count} messages, {seconds:.1f} s, "
            "can be read"
        )
        return part

    def _intact(self, part: "_Part", topics: Collection[str]) -> Iterator[Record]:
        last = part.start
        try:
            for record in part.records(topics):
                last = record[1]
                yield record
        except Exception as error:  # as above
            reason = " ".join(str(error).split()) or type(error).__name__
            self._damaged(
                f"{part.path}: is damaged ({reason.rstrip('.')}); what was recorded later than "
                f"{(last - part.start) * 1e-9:.1f} s after its beginning is left out"
            )

    def _damaged(self, what: str) -> None:
        if what not in (self.damage or ""):
            logger.warning(what)
            self.damage = f"{self.damage}; {what}" if self.damage else what

    def _decoder(self, channel: Channel) -> Callable[[bytes], Any]:
        if channel not in self._decoders:
            store = typestore(channel)
            if store is None:
                raise DataError(
                    f"{self.path}: the type {channel.type} of {channel.topic} is not known and the bag does "
                    "not define it; record it as mcap"
                )
            read = store.deserialize_ros1 if channel.encoding == "ros1" else store.deserialize_cdr
            # Of a view rosbags' arrays are views, of bytes they would be copies.
            self._decoders[channel] = lambda data: read(memoryview(data), channel.type)
        return self._decoders[channel]


class _Part(Protocol):
    """A file of a bag: how many messages of each channel, from when to when, and the messages."""

    path: Path
    counts: Counter[Channel]
    start: int
    end: int

    def records(self, topics: Collection[str]) -> Iterator[Record]: ...


class _Closed:
    """A file, or a folder of compressed ones, that is whole. Raises whatever rosbags does when it is not."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        if reason := left_open(path):
            raise DataError(reason)
        self.path = path
        self._reader = Ros1Reader(path) if path.suffix in _ROS1 else Ros2Reader(path)
        stack.enter_context(self._reader)
        self._channels = {connection.id: _channel(connection) for connection in self._reader.connections}
        self.counts = Counter[Channel]()
        for connection in self._reader.connections:
            self.counts[self._channels[connection.id]] += connection.msgcount
        self.counts = +self.counts  # without the topics that have no messages
        self.start, self.end = self._reader.start_time, self._reader.end_time - 1

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        chosen = [connection for connection in self._reader.connections if connection.topic in topics]
        if chosen:  # none would mean all
            for connection, stamp, data in self._reader.messages(chosen):
                yield self._channels[connection.id], stamp, data


class _Salvaged:
    """A file that was not closed, read to its end once to see what is there."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self.path = path
        self._all = Salvage(path, Path(stack.enter_context(TemporaryDirectory(prefix="ofvl-"))))
        self.counts = Counter[Channel]()
        stamps = [0]
        for channel, stamp, _ in self._all:
            stamps = [min(stamp, *stamps), max(stamp, *stamps)] if self.counts else [stamp, stamp]
            self.counts[channel] += 1
        self.start, self.end = stamps[0], stamps[-1]

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        return (record for record in self._all if record[0].topic in topics)


_ROS1 = (".bag", ".active")


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such bag; check the path")
    if path.is_file() and path.suffix in FORMATS:
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix in (".mcap", ".db3"))
    if _is_compressed(path):
        return [path]
    if not files:
        raise DataError(
            f"{path}: not a bag; give the folder that holds its .mcap or .db3 files, one of those, or a .bag"
        )
    return files


def _is_compressed(folder: Path) -> bool:
    """Whether the recorder compressed files or messages, which only the folder's metadata tell."""
    metadata = folder / "metadata.yaml"
    if not metadata.is_file():
        return False
    text = metadata.read_text(encoding="utf-8", errors="replace")
    return re.search(r"compression_mode:\s*[\"']?(file|message)", text, re.IGNORECASE) is not None


def _channel(connection: Connection) -> Channel:
    encoding = "ros1" if isinstance(connection.ext, ConnectionExtRosbag1) else "cdr"
    return Channel(connection.topic, connection.msgtype, connection.msgdef, encoding)


def _topics(parts: list[_Part]) -> dict[str, Topic]:
    """By name; of a topic with several types, which nobody should have, the most frequent."""
    counts = sum((part.counts for part in parts), Counter[Channel]())
    types = {channel.topic: channel.type for channel, _ in reversed(counts.most_common())}
    totals = Counter[str]()
    for channel, count in counts.items():
        totals[channel.topic] += count
    return {name: Topic(name, types[name], totals[name]) for name in sorted(totals)}
