"""Bags of a killed recorder, made whole."""

import itertools
import re
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from processes import Forked, wait_until
from recording_helpers import file_of, write_bag
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_typestore
from test_recording_bags import break_a_message, drive, killed_database, snapshot
from test_recording_writer import IMAGE, TF, contents, message, storages
from typer.testing import CliRunner

from ofvl_core.bag import STORAGES
from ofvl_core.cli import app
from ofvl_core.errors import DataError
from ofvl_core.recording import writer as writer_module
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.repair import Repair, repair
from ofvl_core.recording.writer import RecordingWriter


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    """So that a small bag has several."""
    monkeypatch.setattr("ofvl_core.recording.writer.CHUNK", 1 << 20)


def record() -> None:
    """Record a bag without end, telling each number."""
    writer_module.FLUSH_PERIOD = 0.2
    writer = RecordingWriter(Path(sys.argv[1]), sys.argv[2])
    for number in itertools.count():
        writer.write(IMAGE, time.monotonic_ns(), message(number, 200_000))
        writer.write(TF, time.monotonic_ns(), message(number))
        print(number, flush=True)
        time.sleep(0.005)


def killed_recording(bag: Path, storage: str) -> int:
    """A bag whose recorder was killed; when, on the clock of its stamps.

    The second that may be lost is at most 200 of its more than 300 messages a topic.
    """
    with Forked(record, bag, storage) as process:
        assert wait_until(lambda: process.output.count("\n") > 300), process.errors
        process.send_signal(signal.SIGKILL)
        return time.monotonic_ns()


def closed_recording(bag: Path, storage: str, messages: int = 60) -> Path:
    """A closed bag; its file."""
    writer = RecordingWriter(bag, storage)
    for number in range(messages):
        writer.write(IMAGE, number, message(number, 50_000))
        writer.write(TF, number, message(number))
    writer.close()
    return next(path for path in bag.iterdir() if path.suffix != ".yaml")


def megabytes_lost(result: Repair) -> float:
    return sum(float(size) for lost in result.lost for size in re.findall(r"([\d.]+) MB", lost))


def megabytes_recovered(result: Repair) -> float:
    return sum(len(data) for _, _, data in contents(result.out)) / 1e6


@storages
def test_after_a_kill_all_but_the_last_moment_is_recovered(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    killed = killed_recording(bag, storage)
    before, steps = snapshot(bag), []
    with pytest.raises(Exception, match=r"metadata|exist"):
        Reader(bag)
    result = repair(bag, progress=lambda done, total: steps.append((done, total)))
    assert result is not None and result.out == tmp_path / "bag_repaired"
    assert snapshot(bag) == before
    found = contents(result.out)
    assert len(found) == result.messages
    assert found[-1][1] == result.last > killed - 1_000_000_000
    for topic, size in ((IMAGE, 200_000), (TF, 100)):
        numbers = [data for name, _, data in found if name == topic.name]
        assert len(numbers) > 50
        assert numbers == [message(number, size) for number in range(len(numbers))]
    assert steps == sorted(steps) and steps[-1][0] <= steps[-1][1]
    assert repair(result.out) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "bag_repaired"]


@storages
def test_a_whole_bag_is_left_alone(tmp_path: Path, storage: str) -> None:
    file = closed_recording(tmp_path / "bag", storage)
    before = snapshot(tmp_path / "bag")
    assert repair(tmp_path / "bag") is None
    assert repair(file) is None
    assert snapshot(tmp_path / "bag") == before
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


@storages
def test_missing_metadata_is_made_again(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    closed_recording(bag, storage)
    expected = contents(bag)
    (bag / "metadata.yaml").unlink()
    result = repair(bag, tmp_path / "whole")
    assert result is not None and not result.lost
    assert contents(tmp_path / "whole") == expected
    with Reader(tmp_path / "whole") as reader:
        for connection in reader.connections:
            topic = {"/image": IMAGE, "/tf": TF}[connection.topic]
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            assert connection.ext.offered_qos_profiles == list(topic.offered)
            assert connection.digest == get_typestore(Stores.ROS2_JAZZY).hash_rihs01(topic.type)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.999])
def test_a_cut_mcap_file_gives_what_comes_before_the_cut(tmp_path: Path, share: float) -> None:
    file = closed_recording(tmp_path / "bag", "mcap", messages=200)
    expected = contents(tmp_path / "bag")
    data = file.read_bytes()
    lone = tmp_path / "lone.mcap"
    lone.write_bytes(data[: int(share * len(data))])
    if share < 0.11:  # inside the first chunk of a megabyte
        with pytest.raises(DataError, match="no message that can be read"):
            repair(lone)
        assert not (tmp_path / "lone_repaired").exists()
        return
    result = repair(lone)
    assert result is not None
    found = contents(result.out)
    assert found == expected[: len(found)]
    assert len(found) > share * len(expected) - 50
    assert any("the last" in lost for lost in result.lost) or share > 0.99


def test_damage_to_the_end_ends_the_recovery_and_is_told(tmp_path: Path) -> None:
    file = closed_recording(tmp_path / "bag", "mcap", messages=200)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle:] = b"\xff" * (len(data) - middle)
    (tmp_path / "lone.mcap").write_bytes(data)
    result = repair(tmp_path / "lone.mcap")
    assert result is not None
    assert "the last" in result.lost[-1]
    assert 100 < result.messages < 400
    assert megabytes_recovered(result) + megabytes_lost(result) == pytest.approx(len(data) / 1e6, abs=0.2)


def test_a_damaged_chunk_costs_itself_and_is_told(tmp_path: Path) -> None:
    file = closed_recording(tmp_path / "bag", "mcap", messages=200)
    expected = contents(tmp_path / "bag")
    break_a_message(file, len(message(0, 50_000)))
    lone = tmp_path / "lone.mcap"
    lone.write_bytes(file.read_bytes()[:-100])
    result = repair(lone)
    assert result is not None
    found = contents(result.out)
    assert set(found) < set(expected) and found[-1] == expected[-1]
    assert len(expected) - 50 < len(found)
    assert [lost.split(" MB ")[1] for lost in result.lost] == ["in its midst (damaged)"]
    assert megabytes_lost(result) + megabytes_recovered(result) == pytest.approx(
        lone.stat().st_size / 1e6, abs=0.1
    )


def test_messages_of_a_topic_whose_description_is_damaged_are_told(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "bag", "mcap")
    for number in range(100):
        writer.write(IMAGE, number, message(number, 50_000))
        if number > 30:  # the second chunk begins at 21
            writer.write(TF, number, message(number, 40_000))
    writer.close()
    lone = tmp_path / "lone.mcap"
    break_a_message(tmp_path / "bag" / "bag.mcap", len(message(0, 50_000)), after=0.15)
    lone.write_bytes((tmp_path / "bag" / "bag.mcap").read_bytes()[:-100])
    result = repair(lone)
    assert result is not None
    assert {topic for topic, _, _ in contents(result.out)} == {IMAGE.name}
    assert megabytes_lost(result) > 69 * 0.04
    assert megabytes_lost(result) + megabytes_recovered(result) == pytest.approx(
        lone.stat().st_size / 1e6, abs=0.1
    )


@pytest.mark.parametrize(("journal", "messages"), [("DELETE", 4), ("WAL", 7)])
@pytest.mark.parametrize("is_lone", [False, True])
def test_a_database_that_was_left_open_is_closed(
    tmp_path: Path, journal: str, messages: int, is_lone: bool
) -> None:
    file = file_of(write_bag(tmp_path / "drive", drive(3), "sqlite3"))
    killed = killed_database(file, tmp_path / "killed", journal)
    if not is_lone:
        shutil.copy(file.with_name("metadata.yaml"), killed)
    before = snapshot(killed)
    result = repair(killed / file.name if is_lone else killed, tmp_path / "whole")
    assert result is not None and result.messages == len(contents(tmp_path / "whole")) == messages
    assert not result.lost
    assert snapshot(killed) == before
    assert {path.name for path in tmp_path.iterdir()} == {"drive", "killed", "whole"}


BUMP = "module robot { module msg { struct Bump { robot::msg::Force force; }; }; };"
FORCE = "module robot { module msg { struct Force { double newton; }; }; };"
IDL = "".join(
    f"{'=' * 80}\nIDL: robot/msg/{name}\n{text}\n" for name, text in (("Bump", BUMP), ("Force", FORCE))
)


@storages
def test_definitions_in_idl_are_kept(tmp_path: Path, storage: str) -> None:
    kind = "robot/msg/Bump"
    store = get_typestore(Stores.EMPTY)
    store.register({**get_types_from_idl(BUMP), **get_types_from_idl(FORCE)})
    force = store.types["robot/msg/Force"](newton=1.5)
    bag, data = tmp_path / "bag", bytes(store.serialize_cdr(store.types[kind](force=force), kind))
    with Writer(bag, version=8, storage_plugin=STORAGES[storage]) as writer:
        connection = writer.add_connection("/bump", kind, msgdef=IDL, rihs01=store.hash_rihs01(kind))
        writer.write(connection, 1, data)
    (bag / "metadata.yaml").unlink()
    result = repair(bag)
    assert result is not None
    with Reader(result.out) as reader:
        [repaired] = reader.connections
        assert (repaired.msgdef, repaired.digest) == (connection.msgdef, connection.digest)
    with Recording(result.out) as recording:
        assert recording.first("/bump").force.newton == 1.5


def test_a_database_of_humble_gets_the_definitions_that_it_lacks(tmp_path: Path) -> None:
    file = file_of(write_bag(tmp_path / "bag", drive(3, width=8), "sqlite3"))
    with closing(sqlite3.connect(file)) as database:
        for table in ("schema", "metadata", "message_definitions"):
            database.execute(f"DROP TABLE {table}")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        database.execute("UPDATE topics SET type = 'robot/msg/Secret' WHERE name = '/tf_static'")
        database.commit()
    file.with_name("metadata.yaml").unlink()
    result = repair(tmp_path / "bag")
    assert result is not None and result.messages == 4
    with Reader(result.out) as reader:
        image, secret = sorted(reader.connections, key=lambda connection: connection.topic)
    assert "uint32 width" in image.msgdef.data
    assert image.digest == get_typestore(Stores.ROS2_JAZZY).hash_rihs01(image.msgtype)
    assert (secret.msgtype, secret.msgcount, secret.msgdef.data) == ("robot/msg/Secret", 1, "")
    with Recording(result.out) as recording, pytest.raises(DataError, match=r"robot/msg/Secret .* not known"):
        recording.first("/tf_static")


def test_a_bag_of_several_files_becomes_one(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    for number in (10, 9):
        file = closed_recording(tmp_path / f"part_{number}", "mcap", messages=3)
        shutil.copy(file, bag)
    ninth = bag / "part_9.mcap"
    ninth.write_bytes(ninth.read_bytes().replace(b"uint32 width", b"uint32 wiDth"))
    result = repair(bag)
    assert result is not None and result.messages == 12
    with Reader(result.out) as reader:
        assert sorted(connection.topic for connection in reader.connections) == ["/image", "/tf"]


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such bag"):
        repair(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"holds no \.mcap or \.db3 file"):
        repair(tmp_path)
    for name in ("empty.mcap", "empty.db3", "noise.mcap", "noise.db3"):
        (tmp_path / name).write_bytes(bytes(1000) if "noise" in name else b"")
        with pytest.raises(DataError, match="no message that can be read"):
            repair(tmp_path / name)
    assert not list(tmp_path.glob("*_repaired"))


def test_a_result_is_not_overwritten(tmp_path: Path) -> None:
    closed_recording(tmp_path / "bag", "mcap")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    (tmp_path / "bag_repaired").mkdir()
    with pytest.raises(DataError, match="exists already"):
        repair(tmp_path / "bag")


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    closed_recording(bag, "mcap", messages=5)
    whole = CliRunner().invoke(app, ["bag", "repair", str(bag)])
    assert whole.exit_code == 0 and "nothing to repair" in whole.output
    (bag / "metadata.yaml").unlink()
    repaired = CliRunner().invoke(app, ["bag", "repair", str(bag), str(tmp_path / "whole")])
    assert repaired.exit_code == 0
    assert "10 messages" in repaired.output
    assert len(contents(tmp_path / "whole")) == 10
