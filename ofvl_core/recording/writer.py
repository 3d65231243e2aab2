"""Messages into a bag by a thread of its own: whoever hands them over never waits for the disc."""

import errno
import os
import re
import shutil
import sqlite3
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_typestore

from ofvl_core.bag_messages import BAG_VERSION, STORAGES
from ofvl_core.errors import ConfigError, DataError

FLUSH_PERIOD = 1.0
"""Seconds after which what was written is on the disc, whatever becomes of this process."""

CHUNK = 1 << 24
"""Bytes of an mcap file that are indexed as one; FLUSH_PERIOD ends them sooner where less comes."""

QUEUE_MESSAGES = 20_000
"""Messages that may wait for the disc, beside the bound on their bytes: small ones cost memory too."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a disc says that takes no more: full, over the user's share, over the largest file."""

_types = get_typestore(Stores.ROS2_JAZZY)


@dataclass(frozen=True, eq=False)
class Topic:
    """A topic to record: its name, its type as in 'sensor_msgs/msg/Image', the QoS its publishers offer."""

    name: str
    type: str
    offered: tuple[Qos, ...] = ()


class Trouble(NamedTuple):
    """Why a bag ended by itself, in a sentence, and whether that was the disc's lack of space."""

    sentence: str
    is_full: bool


class RecordingWriter:
    """Writes serialised messages as the new bag `path`; `storage` is 'mcap' or 'sqlite3'.

    After a crash of the process everything older than FLUSH_PERIOD can be recovered, see `repair`. At most
    `queue_bytes` wait for the disc; a message for which there is no room is dropped and counted. With less
    than `reserve_bytes` left on the disc the bag is closed while it still can be; `trouble` says so then. A
    bag that no message came into is removed when it is closed. `free_bytes` are what was left on the disc
    when the writer's thread last looked. Raises DataError when the bag cannot be begun, ConfigError for
    another storage.
    """

    def __init__(
        self, path: Path, storage: str = "mcap", *, queue_bytes: int = 1 << 28, reserve_bytes: int = 0
    ) -> None:
        if storage not in STORAGES:
            raise ConfigError(f"unknown storage '{storage}'; choose one of {', '.join(STORAGES)}")
        self.path = Path(path)
        self.written: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.bytes_written = 0
        self.free_bytes = 0
        self.trouble: Trouble | None = None
        self._storage, self._queue_bytes, self._reserve = storage, queue_bytes, reserve_bytes
        self._queue: deque[tuple[Topic, int, bytes]] = deque()
        self._bytes_waiting = 0
        self._finishing = False
        self._stamps: tuple[int, int] | None = None
        self._changed = threading.Condition()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"writer of {self.path.name}", daemon=True)
        self._thread.start()
        self._opened.result()

    @property
    def is_open(self) -> bool:
        """Whether messages are still taken."""
        return not self._finishing

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left to do."""
        return not self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """From the first stamp handed over to the last."""
        return (self._stamps[1] - self._stamps[0]) * 1e-9 if self._stamps else 0.0

    @property
    def messages_written(self) -> int:
        """Of all topics."""
        with self._changed:
            return self.written.total()

    @property
    def messages_dropped(self) -> int:
        """Of all topics."""
        with self._changed:
            return self.dropped.total()

    @property
    def bytes_waiting(self) -> int:
        """What waits for the disc."""
        return self._bytes_waiting

    def seconds_left(self, bytes_per_second: float) -> float:
        """How long it can go on at a rate before the disc's reserve is reached."""
        return max(0, self.free_bytes - self._reserve) / max(bytes_per_second, 1.0)

    def write(self, topic: Topic, stamp: int, data: bytes) -> bool:
        """Hand over a message received at `stamp`, in nanoseconds; whether it was taken. Never waits."""
        with self._changed:
            has_room = (
                self._bytes_waiting + len(data) <= self._queue_bytes and len(self._queue) < QUEUE_MESSAGES
            )
            if self._finishing or not has_room:
                self.dropped[topic.name] += 1
                return False
            first, last = self._stamps or (stamp, stamp)
            self._stamps = min(first, stamp), max(last, stamp)
            self._queue.append((topic, stamp, data))
            self._bytes_waiting += len(data)
            self._changed.notify()
        return True

    def finish(self) -> None:
        """Take no more; what was taken is written and the bag closed, without waiting for it here."""
        with self._changed:
            self._finishing = True
            self._changed.notify()

    def close(self) -> None:
        """Finish, and return when the bag is closed; `trouble` says if something was lost."""
        self.finish()
        self._thread.join()

    # ------------------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        try:
            bag = self._begin()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            self._drain(bag)
            if self.written:
                bag.close()
            else:
                bag.abort()
                shutil.rmtree(self.path)
        except Exception as error:  # the disc's, or SQLite's
            with suppress(Exception):
                bag.abort()
            self._give_up(error)

    def _begin(self) -> "_Bag":
        """The open bag; SQLite wants to be opened by the thread that writes."""
        try:
            if self.path.exists():
                raise DataError(f"{self.path}: exists already; remove it or choose another name")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._has_space(self.path.parent):
                raise DataError(
                    f"{self.path}: its disc has {self._megabytes_left()} MB left; free some space first"
                )
            bag = _Bag(self.path, version=BAG_VERSION, storage_plugin=STORAGES[self._storage])
            bag.open()
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self.path, error) from None
        return bag

    def _drain(self, bag: "_Bag") -> None:
        connections: dict[str, Connection] = {}
        due = time.monotonic() + FLUSH_PERIOD
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._queue or self._finishing, max(0.0, due - time.monotonic())
                )
                message = self._queue.popleft() if self._queue else None
                if message is None and self._finishing:
                    return
            if message is not None:
                self._put(bag, connections, *message)
            if time.monotonic() >= due:
                bag.flush()
                self._watch_space()
                due = time.monotonic() + FLUSH_PERIOD

    def _put(
        self, bag: "_Bag", connections: dict[str, Connection], topic: Topic, stamp: int, data: bytes
    ) -> None:
        if topic.name not in connections:
            connections[topic.name] = bag.add_connection(
                topic.name, topic.type, typestore=_types, offered_qos_profiles=topic.offered
            )
        bag.write(connections[topic.name], stamp, data)
        with self._changed:
            self.written[topic.name] += 1
            self.bytes_written += len(data)
            self._bytes_waiting -= len(data)

    def _watch_space(self) -> None:
        """Close the bag in time. Raises OSError when the bag, or its disc, is there no more."""
        if not self._has_space(self.path) and self.trouble is None:
            self.trouble = Trouble(
                f"{self.path.name} is closed and whole, but its disc has {self._megabytes_left()} MB left: "
                "free some space, then start again",
                is_full=True,
            )
            self.finish()

    def _give_up(self, error: Exception) -> None:
        """Nothing more can be written; what is there stays as it is, for `repair`."""
        is_full = getattr(error, "errno", None) in FULL or "full" in str(error)
        if _is_gone(self.path):
            sentence = f"{self.path} is gone, removed or its disc unmounted: see to that, then start again"
        else:
            cause = "the disc is full: free some space" if is_full else f"writing failed ({error}): check it"
            sentence = f"{cause}, then recover the bag with: ofvl bag repair {self.path}"
        self.trouble = Trouble(sentence, is_full)
        with self._changed:
            self._finishing = True
            self.dropped.update(topic.name for topic, _, _ in self._queue)
            self._queue.clear()

    def _megabytes_left(self) -> int:
        return self.free_bytes // 1_000_000

    def _has_space(self, folder: Path) -> bool:
        self.free_bytes = shutil.disk_usage(folder).free
        return self.free_bytes >= self._reserve


def next_bag(folder: Path, name: str) -> Path:
    """The first of `folder`/NAME_001, NAME_002, ... after all that exist.

    Raises DataError when the folder is there and cannot be read.
    """
    try:
        existing = list(folder.glob("*"))
    except OSError as error:
        raise _unusable(folder, error) from None
    numbers = [
        int(match[1])
        for path in existing
        if (match := re.fullmatch(rf"{re.escape(name)}_(\d+).*", path.name))
    ]
    return folder / f"{name}_{max(numbers, default=0) + 1:03d}"


def _unusable(path: Path, error: OSError | sqlite3.Error) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else error
    return DataError(f"{path}: {reason}; choose another folder")


def _is_gone(path: Path) -> bool:
    """Whether a path is there no more; one of which the disc cannot tell is not."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


class _Mcap(McapWriter):
    """An mcap file of which all but the newest can be read at any time: its chunks stand for themselves.

    They are larger than rosbags' of 1 MiB, since what the index says of each stays in memory to the end.
    """

    _closing = False

    def close_chunk(self) -> None:
        if self._closing or self.chunk.bio.tell() >= CHUNK:
            super().close_chunk()

    def close(self, version: int, metadata: str) -> None:
        self._closing = True
        super().close(version, metadata)

    def flush(self) -> None:
        if self.chunk.msgs:
            super().close_chunk()
        self.bio.flush()
        os.fsync(self.bio.fileno())


class _Sqlite3(Sqlite3Writer):
    """A database that holds all but the newest: rosbags itself commits when the bag is closed."""

    def flush(self) -> None:
        self.conn.commit()


class _Bag(Writer):
    """A rosbag2 bag that can be flushed."""

    STORAGE_PLUGINS = {  # noqa: RUF012 rosbags declares it as an instance's
        StoragePlugin.MCAP: _Mcap,
        StoragePlugin.SQLITE3: _Sqlite3,
    }

    def flush(self) -> None:
        assert isinstance(self.storage, _Mcap | _Sqlite3)
        self.storage.flush()
