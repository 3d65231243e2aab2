"""Bags written beside whoever hands messages over: nothing altered, nothing waited for, losses counted."""

import errno
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Forked, wait_until
from rosbags.interfaces import (
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader

from ofvl_core.bag import BAG_VERSION, STORAGES
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.recording import writer as writer_module
from ofvl_core.recording.repair import repair
from ofvl_core.recording.writer import RecordingWriter, Topic, next_bag

ZERO = QosTime(0, 0)
OFFERED = Qos(
    QosHistory.UNKNOWN,
    0,
    QosReliability.BEST_EFFORT,
    QosDurability.VOLATILE,
    ZERO,
    ZERO,
    QosLiveliness.AUTOMATIC,
    ZERO,
    False,
)
IMAGE = Topic("/image", "sensor_msgs/msg/Image", (OFFERED,))
TF = Topic("/tf", "tf2_msgs/msg/TFMessage")

storages = pytest.mark.parametrize("storage", STORAGES)


def message(number: int, size: int = 100) -> bytes:
    """Bytes that no other number has."""
    return b"\0\1\0\0" + number.to_bytes(8, "little") + bytes(size)


def contents(bag: Path) -> list[tuple[str, int, bytes]]:
    """Topic, stamp and bytes of all messages of a closed bag."""
    with Reader(bag) as reader:
        return [(connection.topic, stamp, bytes(data)) for connection, stamp, data in reader.messages()]


@pytest.fixture
def small_disc(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB; the test is skipped where none may be mounted."""
    folder = tmp_path / "disc"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@storages
def test_a_bag_holds_what_was_handed_over(tmp_path: Path, storage: str) -> None:
    writer = RecordingWriter(tmp_path / "bag", storage)
    expected = [(IMAGE.name, 1000 + number, message(number, 50_000)) for number in range(40)]
    expected += [(TF.name, 2000 + number, message(number)) for number in range(40)]
    for topic in (IMAGE, TF):
        for name, stamp, data in expected:
            if name == topic.name:
                assert writer.write(topic, stamp, data)
    writer.close()
    assert contents(tmp_path / "bag") == expected
    assert writer.trouble is None and writer.is_closed and not writer.is_open
    assert (writer.messages_written, writer.messages_dropped, writer.bytes_waiting) == (80, 0, 0)
    assert writer.seconds == pytest.approx(1039e-9)
    with Reader(tmp_path / "bag") as reader:
        (image,) = [connection for connection in reader.connections if connection.topic == "/image"]
        assert isinstance(image.ext, ConnectionExtRosbag2)
        assert image.ext.offered_qos_profiles == [OFFERED]
        assert image.msgtype == "sensor_msgs/msg/Image"
    assert f"version: {BAG_VERSION}" in (tmp_path / "bag" / "metadata.yaml").read_text()


def test_definitions_are_in_the_bag(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "bag")
    writer.write(IMAGE, 1, message(1))
    writer.close()
    assert b"std_msgs/Header header" in (tmp_path / "bag" / "bag.mcap").read_bytes()


@storages
def test_what_is_older_than_a_second_can_be_read_while_it_records(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_PERIOD", 0.05)
    writer = RecordingWriter(tmp_path / "bag", storage)
    data = message(0x1234567890ABCDEF)
    writer.write(IMAGE, 1, data)
    file = next((tmp_path / "bag").iterdir())
    assert wait_until(lambda: data in file.read_bytes(), 10)
    assert writer.is_open
    writer.close()


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "bag", queue_bytes=1000)
    assert not writer.write(IMAGE, 1, message(1, 2000))
    assert writer.write(TF, 2, message(2, 10))
    writer.close()
    assert writer.dropped == {"/image": 1}
    assert [topic for topic, _, _ in contents(tmp_path / "bag")] == ["/tf"]


def test_a_slow_disc_does_not_hold_up_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = writer_module.threading.Event()
    put = RecordingWriter._put
    monkeypatch.setattr(RecordingWriter, "_put", lambda *given: (goes_on.wait(30), put(*given)))
    writer = RecordingWriter(tmp_path / "bag", queue_bytes=10_000)
    taken = [writer.write(IMAGE, number, message(number, 1000 - 12)) for number in range(20)]
    assert taken == [True] * 10 + [False] * 10
    assert writer.bytes_waiting == 10_000
    goes_on.set()
    writer.close()
    assert len(contents(tmp_path / "bag")) == 10
    assert writer.dropped == {"/image": 10}


def test_nothing_is_taken_after_the_end(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "bag")
    writer.write(IMAGE, 1, message(1))
    writer.finish()
    assert not writer.write(IMAGE, 2, message(2))
    writer.close()
    assert len(contents(tmp_path / "bag")) == 1


@storages
def test_a_bag_without_messages_is_removed(tmp_path: Path, storage: str) -> None:
    RecordingWriter(tmp_path / "bag", storage).close()
    assert not list(tmp_path.iterdir())


def test_an_existing_bag_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(DataError, match="exists already"):
        RecordingWriter(tmp_path / "bag")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another folder"):
        RecordingWriter(tmp_path / "file" / "bag")


@storages
@pytest.mark.parametrize("are_messages_coming", [True, False])
def test_a_folder_that_is_removed_ends_the_bag(
    tmp_path: Path, storage: str, are_messages_coming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_PERIOD", 0.01)
    writer = RecordingWriter(tmp_path / "bags" / "bag", storage)
    assert writer.free_bytes > 0
    writer.write(IMAGE, 1, message(1))
    assert wait_until(lambda: writer.messages_written)
    shutil.rmtree(tmp_path / "bags")

    def is_closed() -> bool:
        if are_messages_coming:
            writer.write(IMAGE, 2, message(2))
        return writer.is_closed

    assert wait_until(is_closed)
    assert writer.trouble is not None and not writer.trouble.is_full
    assert writer.trouble.sentence.startswith(f"{tmp_path}/bags/bag is gone")
    assert not writer.is_open and writer.seconds_left(1.0) > 0


def test_a_disc_that_fails_ends_the_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is pulled out: nothing can be asked of it."""

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(writer_module, "FLUSH_PERIOD", 0.01)
    writer = RecordingWriter(tmp_path / "bag")
    monkeypatch.setattr(writer_module.shutil, "disk_usage", fail)
    assert wait_until(lambda: writer.is_closed)
    assert writer.trouble is not None and not writer.trouble.is_full
    assert "Input/output error" in writer.trouble.sentence and "ofvl bag repair" in writer.trouble.sentence


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long; choose another folder"):
        RecordingWriter(next_bag(tmp_path / ("x" * 300), "hall"))


def test_an_unknown_storage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of mcap, sqlite3"):
        RecordingWriter(tmp_path / "bag", "tape")


def test_bags_are_numbered_after_all_that_exist(tmp_path: Path) -> None:
    assert next_bag(tmp_path / "new", "hall").name == "hall_001"
    for name in ("hall_001", "hall_009_repaired", "hall_x", "hall_2_003", "kitchen_044"):
        (tmp_path / name).mkdir()
    assert next_bag(tmp_path, "hall") == tmp_path / "hall_010"


def fill() -> None:
    """Record a bag until its file, which may not grow, is full."""
    bag, storage = Path(sys.argv[1]), sys.argv[2]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
    writer_module.FLUSH_PERIOD = 0.01
    writer = RecordingWriter(bag, storage)
    for number in range(100):
        writer.write(IMAGE, number, message(number, 100_000))
        time.sleep(0.002)
    assert wait_until(lambda: writer.is_closed, 10)
    assert writer.trouble is not None and writer.trouble.is_full == (storage == "mcap"), writer.trouble
    assert not writer.is_open
    print(writer.trouble.sentence)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="files have no limit here")
@storages
def test_a_full_disc_leaves_what_was_written(tmp_path: Path, storage: str) -> None:
    """In a process whose files may not grow, which needs no rights."""
    with Forked(fill, tmp_path / "bag", storage) as process:
        assert process.wait() == 0, process.errors
    assert f"ofvl bag repair {tmp_path}/bag" in process.output
    repaired = repair(tmp_path / "bag")
    assert repaired is not None
    found = contents(repaired.out)
    assert len(found) >= 20
    assert found == [("/image", number, message(number, 100_000)) for number in range(len(found))]


@storages
def test_the_reserve_closes_the_bag_in_time(
    small_disc: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_PERIOD", 0.01)
    writer = RecordingWriter(small_disc / "bag", storage, reserve_bytes=4_000_000)
    for number in range(200):
        writer.write(IMAGE, number, message(number, 50_000))
        if not writer.is_open:
            break
        time.sleep(0.002)
    assert wait_until(lambda: writer.is_closed)
    assert writer.trouble is not None and writer.trouble.is_full
    assert "closed and whole" in writer.trouble.sentence
    assert len(contents(small_disc / "bag")) == writer.messages_written > 10
    with pytest.raises(DataError, match="free some space first"):
        RecordingWriter(small_disc / "next", storage, reserve_bytes=8_000_000)


@storages
def test_a_disc_that_is_full_at_once_is_told(
    small_disc: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_PERIOD", 0.01)
    writer = RecordingWriter(small_disc / "bag", storage)
    for number in range(200):
        writer.write(IMAGE, number, message(number, 50_000))
        time.sleep(0.001)
    assert wait_until(lambda: writer.is_closed)
    assert writer.trouble is not None and writer.trouble.is_full
    assert writer.messages_dropped > 10
