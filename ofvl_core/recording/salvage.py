"""What is left in a bag that was never closed: whole messages in the order of the file, around the damage."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mcap.exceptions import EndOfFile
from mcap.records import Channel as McapChannel
from mcap.records import Chunk, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, get_chunk_data_stream
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag1.reader import Header, RecordType, decompressors, read_bytes, read_uint32
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys.msg import normalize_msgtype

from ofvl_core.errors import DataError
from ofvl_core.recording.channel import NO_DEFINITION, Channel, Record

ROS1_MAGIC = b"#ROSBAG V2.0\n"

_LEFT_BY_SQLITE = {
    "-journal": "a transaction was not finished",
    "-wal": "its last messages are in its write-ahead log",
}

_DEFINITION_FORMATS = {
    "ros1msg": MessageDefinitionFormat.MSG,
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}


def left_open(path: Path) -> str | None:
    """What a file beside a database says of it that was not closed; None where there is no such file."""
    for suffix, meaning in _LEFT_BY_SQLITE.items():
        beside = path.with_name(path.name + suffix)
        if beside.is_file() and beside.stat().st_size:
            return meaning
    return None


class Salvage:
    """The messages of a file of FORMATS, to its end or to where nothing more can be read; iterable anew.

    `done` counts the bytes read so far, `damaged` those among them of which nothing can be made; at the end
    `unread` counts those left, and `reason` says why. The bag stays as it is: a database that SQLite did not
    close is copied into `folder`, which has to exist as long as this. Raises DataError when there is no room
    for the copy, PermissionError when the file may not be read.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self._folder = folder
        self._size = path.stat().st_size
        self.done, self.damaged, self.unread, self.reason = 0, 0, 0, ""

    def __iter__(self) -> Iterator[Record]:
        self.done, self.damaged, self.unread, self.reason = 0, 0, 0, ""
        try:
            yield from FORMATS[self.path.suffix](self)
        except (DataError, PermissionError):
            raise
        except Exception as error:  # the parsers raise whatever they happen to meet in damaged bytes
            self.unread = self._size - self.done
            self.reason = " ".join(str(error).split()) or "cut off"

    def _mcap(self) -> Iterator[Record]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        with open(self.path, "rb") as file:
            whole = _Whole(file, self._size)
            for record in StreamReader(whole, emit_chunks=True).records:  # type: ignore[arg-type]
                if isinstance(record, DataEnd):  # what follows is the index
                    return
                self.done = whole.position
                for item in self._unpacked(record) if isinstance(record, Chunk) else [record]:
                    if isinstance(item, Schema):
                        schemas[item.id] = item
                    elif isinstance(item, McapChannel):
                        channels[item.id] = _mcap_channel(item, schemas.get(item.schema_id))
                    elif isinstance(item, Message):
                        yield from self._known(channels, item.channel_id, item.log_time, item.data)

    def _unpacked(self, chunk: Chunk) -> Iterator[McapRecord]:
        size, sound = len(chunk.data), 0
        try:
            stream, size = get_chunk_data_stream(chunk, validate_crc=True)
            whole = _Whole(stream, size)
            for record in StreamReader(whole, skip_magic=True).records:  # type: ignore[arg-type]
                yield record
                sound = whole.position
        except Exception:  # as above, and at the end of every chunk
            self.damaged += size - sound

    def _sqlite3(self) -> Iterator[Record]:
        with closing(sqlite3.connect(self._database, uri=True)) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA writable_schema = ON")  # or a file that was cut short is refused
            definitions: dict[str, MessageDefinition] = {}
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'").fetchone():
                for row in database.execute("SELECT * FROM message_definitions"):
                    definition = _definition(row["encoding"], row["encoded_message_definition"])
                    definitions[row["topic_type"]] = definition
            channels: dict[int, Channel] = {}
            for row in database.execute("SELECT * FROM topics"):
                channels[row["id"]] = Channel(
                    row["name"],
                    row["type"],
                    definitions.get(row["type"], NO_DEFINITION),
                    row["serialization_format"],
                    _offered(dict(row).get("offered_qos_profiles", "")),  # which the oldest bags do not have
                )
            for number, stamp, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
                self.done = min(self._size, self.done + len(data))  # the log's are not in the file
                yield from self._known(channels, number, stamp, data)

    @cached_property
    def _database(self) -> str:
        """The address of the database, or of a copy in which SQLite finishes or undoes what it had begun."""
        if not left_open(self.path):
            return f"file:{quote(str(self.path.absolute()))}?immutable=1"
        copy = Path(tempfile.mkdtemp(dir=self._folder)) / self.path.name
        try:
            for suffix in ("", *_LEFT_BY_SQLITE):
                source = self.path.with_name(self.path.name + suffix)
                if source.exists():
                    shutil.copyfile(source, copy.with_name(source.name))
        except OSError as error:
            raise DataError(
                f"{self.path}: was not closed, and cannot be copied to {self._folder} to be read "
                f"({error.strerror}); free some space there"
            ) from None
        return f"file:{quote(str(copy.absolute()))}?mode=rw"

    def _ros1(self) -> Iterator[Record]:
        channels: dict[int, Channel] = {}
        with open(self.path, "rb") as file:
            if file.read(len(ROS1_MAGIC)) != ROS1_MAGIC:
                raise ValueError("not a ROS 1 bag")
            for header, data in _ros1_headers(file):
                self.done = file.tell()
                if header.get_uint8("op") == RecordType.CHUNK:
                    yield from self._ros1_chunk(header.get_string("compression"), data, channels)

    def _ros1_chunk(self, compression: str, data: bytes, channels: dict[int, Channel]) -> Iterator[Record]:
        sound = 0
        try:
            data = decompressors[compression](data)
            chunk = BytesIO(data)
            for header, content in _ros1_headers(chunk):
                kind = header.get_uint8("op")
                if kind == RecordType.CONNECTION:
                    channels[header.get_uint32("conn")] = _ros1_channel(header.get_string("topic"), content)
                elif kind == RecordType.MSGDATA:
                    number, stamp = header.get_uint32("conn"), header.get_time("time")
                    yield from self._known(channels, number, stamp, content)
                sound = chunk.tell()
        except Exception:  # as above, and at the end of every chunk
            self.damaged += len(data) - sound

    def _known(self, channels: dict[int, Channel], number: int, stamp: int, data: bytes) -> Iterator[Record]:
        """The message, unless what it is was in a part that is damaged."""
        if number in channels:
            yield channels[number], stamp, data
        else:
            self.damaged += len(data)


FORMATS: dict[str, Callable[[Salvage], Iterator[Record]]] = {
    ".mcap": Salvage._mcap,
    ".db3": Salvage._sqlite3,
    ".bag": Salvage._ros1,
    ".active": Salvage._ros1,  # what rosbag calls a .bag while it records
}
"""How each kind of file is read, by its suffix."""


class _Whole:
    """A source that gives the bytes asked for or says that it ended, as mcap's reader takes for granted."""

    def __init__(self, source: Any, size: int) -> None:
        self.position = 0
        self._source, self._size = source, size

    def read(self, length: int) -> bytes:
        if self.position + length > self._size:
            raise EndOfFile
        self.position += length
        return self._source.read(length)


def _mcap_channel(channel: McapChannel, schema: Schema | None) -> Channel:
    return Channel(
        channel.topic,
        normalize_msgtype(schema.name) if schema else "",
        _definition(schema.encoding, schema.data.decode(errors="replace")) if schema else NO_DEFINITION,
        channel.message_encoding,
        _offered(channel.metadata.get("offered_qos_profiles", "")),
    )


def _ros1_channel(topic: str, content: bytes) -> Channel:
    described = Header.read(BytesIO(len(content).to_bytes(4, "little") + content))
    definition = MessageDefinition(MessageDefinitionFormat.MSG, described.get_string("message_definition"))
    return Channel(topic, normalize_msgtype(described.get_string("type")), definition, "ros1")


def _definition(encoding: str, text: str) -> MessageDefinition:
    form = _DEFINITION_FORMATS.get(encoding)
    return MessageDefinition(form, text) if form else NO_DEFINITION


def _offered(recorded: str) -> tuple[Qos, ...]:
    try:
        return tuple(parse_qos(recorded))
    except Exception:  # damaged, or of a rosbag2 to come: the messages are worth having without
        return ()


def _ros1_headers(file: Any) -> Iterator[tuple[Header, bytes]]:
    while True:
        header = Header.read(file)
        yield header, read_bytes(file, read_uint32(file))
