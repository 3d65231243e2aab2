"""A bag whose recorder was killed, made whole again: what reached the disc, with index and metadata."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, Writer

from ofvl_core.bag_messages import BAG_VERSION, STORAGES
from ofvl_core.errors import DataError
from ofvl_core.recording.channel import NO_DEFINITION, Channel, typestore
from ofvl_core.recording.salvage import Salvage, left_open

SUFFIXES = {".mcap": "mcap", ".db3": "sqlite3"}
"""What a bag's files end in, by their storage."""

Progress = Callable[[int, int], None]

UNKNOWN_HASH = f"RIHS01_{0:064}"
"""Of a type that nobody here defines; its messages are kept all the same."""


@dataclass
class Repair:
    """What a repair has recovered."""

    out: Path
    messages: int = 0
    first: int = 2**63 - 1
    last: int = 0
    lost: list[str] = field(default_factory=list)
    """What is missing of each file that is damaged or could not be read to its end."""

    @property
    def seconds(self) -> float:
        """From the first stamp recovered to the last."""
        return max(0, self.last - self.first) * 1e-9


def repair(
    bag: Path, out: Path | None = None, *, progress: Progress = lambda done, total: None
) -> Repair | None:
    """Write what can be read of a bag that was not closed as the bag `out`, BAG_repaired if not given.

    The bag, a folder or one of its files, stays as it is. None when it is whole: then nothing is written.
    `progress` is called with the bytes done and their total. Raises DataError when nothing can be read or
    `out` exists.
    """
    bag = Path(bag)
    files = _files(bag)
    if _is_whole(bag, files):
        return None
    out = bag.with_name(f"{bag.stem}_repaired") if out is None else Path(out)
    if out.exists():
        raise DataError(f"{out}: exists already; remove it or choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    result, total = Repair(out), sum(path.stat().st_size for path in files)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        unfinished = Path(folder) / out.name  # the file inside a bag carries the bag's name
        storage = STORAGES[SUFFIXES[files[0].suffix]]
        with Writer(unfinished, version=BAG_VERSION, storage_plugin=storage) as writer:
            connections: dict[Channel, Connection] = {}
            before = 0
            for path in files:
                salvage = Salvage(path, Path(folder))
                for channel, stamp, data in salvage:
                    source = channel._replace(definition=NO_DEFINITION)  # may differ from file to file
                    if source not in connections:
                        connections[source] = _connect(writer, channel)
                    writer.write(connections[source], stamp, data)
                    result.messages += 1
                    result.first, result.last = min(result.first, stamp), max(result.last, stamp)
                    progress(before + salvage.done, total)
                before += path.stat().st_size
                result.lost += _lost(salvage)
            if not result.messages:
                raise DataError(f"{bag}: holds no message that can be read; record it again")
        unfinished.rename(out)
    return result


def _files(bag: Path) -> list[Path]:
    """The bag's files in the order in which they were written. Raises DataError when there are none."""
    if not bag.exists():
        raise DataError(f"{bag}: no such bag; check the path")
    found = [bag] if bag.is_file() else [path for path in bag.iterdir() if path.suffix in SUFFIXES]
    if not found or found[0].suffix not in SUFFIXES:
        raise DataError(f"{bag}: holds no .mcap or .db3 file; give the folder of a ROS 2 bag")
    return sorted(found, key=lambda path: (len(path.name), path.name))  # _10 comes after _9


def _is_whole(bag: Path, files: list[Path]) -> bool:
    if any(map(left_open, files)):
        return False
    with suppress(Exception), Reader(bag):  # rosbags raises whatever its parsers meet in a damaged file
        return True
    return False


def _lost(salvage: Salvage) -> list[str]:
    name, lost = salvage.path.name, []
    if salvage.damaged:
        lost.append(f"{name}: {salvage.damaged / 1e6:.1f} MB in its midst (damaged)")
    if salvage.unread:
        lost.append(f"{name}: the last {salvage.unread / 1e6:.1f} MB ({salvage.reason})")
    return lost


def _connect(writer: Writer, channel: Channel) -> Connection:
    """With the definition as it was recorded, else ROS's: a database of Humble holds none."""
    store = typestore(channel)
    return writer.add_connection(
        channel.topic,
        channel.type,
        typestore=store,
        msgdef=channel.definition.data or (None if store else ""),
        rihs01=store.hash_rihs01(channel.type) if store else UNKNOWN_HASH,
        serialization_format=channel.encoding,
        offered_qos_profiles=channel.offered,
    )
