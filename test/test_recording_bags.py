"""Bags of ROS 1 and ROS 2 are read, whole, cut short or damaged."""

import logging
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from recording_helpers import ROS1, ROS2, SECOND, Stamped, file_of, write_bag
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Writer
from rosbags.typesys import get_types_from_msg

from ofvl_core.errors import DataError
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.clock import ordered
from ofvl_core.recording.images import rgb_array

START = 1000 * SECOND
STORAGES = ("mcap", "sqlite3", "ros1")


def drive(count: int, storage: str = "mcap", width: int = 300, step: int = SECOND // 10) -> list[Stamped]:
    """Images that no compression makes smaller, and one transform."""
    ros = ROS1 if storage == "ros1" else ROS2
    rng = np.random.default_rng(0)
    messages: list[Stamped] = [("/tf_static", START, ros.tf(START, ("base", "camera", np.eye(4))))]
    for number in range(count):
        stamp = START + number * step
        pixels = rng.integers(0, 256, (width // 2, width, 3), dtype=np.uint8)
        messages.append(("/camera/color/image_raw", stamp, ros.image(stamp, pixels)))
    return messages


def read(bag: Path) -> tuple[Recording, list[Any]]:
    with Recording(bag) as recording:
        return recording, list(recording.messages(list(recording.topics)))


@pytest.mark.parametrize("storage", STORAGES)
def test_what_was_recorded_is_read(tmp_path: Path, storage: str) -> None:
    written = drive(5, storage, width=8)
    bag = write_bag(tmp_path / "drive.bag", written, storage)
    recording, messages = read(bag)
    assert [(m.topic, m.stamp) for m in messages] == [(topic, stamp) for topic, stamp, _ in written]
    np.testing.assert_array_equal(rgb_array(messages[3].message), rgb_array(written[3][2]))
    assert messages[3].message.header.frame_id == "color"
    image = recording.topics["/camera/color/image_raw"]
    assert (image.type, image.count) == ("sensor_msgs/msg/Image", 5)
    assert (recording.start, recording.end) == (START, START + 4 * SECOND // 10)
    assert recording.duration == pytest.approx(0.4)
    assert recording.damage is None


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_lone_file_is_a_bag(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "drive", drive(3, width=8), storage)
    assert len(read(file_of(bag))[1]) == 4


def test_several_files_are_one_bag(tmp_path: Path) -> None:
    written = drive(12, width=8)
    for number, part in enumerate((written[8:], written[:3], written[3:8])):
        whole = write_bag(tmp_path / f"part{number}", part)
        (tmp_path / "drive").mkdir(exist_ok=True)
        file_of(whole).rename(tmp_path / "drive" / f"drive_{number}.mcap")
    recording, messages = read(tmp_path / "drive")
    assert [m.stamp for m in messages] == [stamp for _, stamp, _ in written]
    assert recording.topics["/camera/color/image_raw"].count == 12
    assert recording.damage is None


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path: Path, mode: CompressionMode) -> None:
    writer = Writer(tmp_path / "drive", version=8)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    message = ROS2.camera_info(START)
    with writer:
        connection = writer.add_connection("/info", message.__msgtype__, typestore=ROS2.store)
        writer.write(connection, START, ROS2.store.serialize_cdr(message, message.__msgtype__))
    assert read(tmp_path / "drive")[1][0].message.width == 8


def test_an_uncompressed_image_is_not_copied(tmp_path: Path) -> None:
    """Its array is a view of the bag's bytes."""
    with Recording(write_bag(tmp_path / "drive", drive(1, width=8))) as recording:
        image = recording.first("/camera/color/image_raw")
        assert not image.data.flags.owndata
        assert np.shares_memory(rgb_array(image), image.data)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_was_cut_short_gives_what_is_readable(
    tmp_path: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "drive.bag", drive(40, storage), storage)
    file = bag if bag.is_file() else file_of(bag)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 6 // 10])
    (bag / "metadata.yaml").unlink(missing_ok=True) if bag.is_dir() else None
    with caplog.at_level(logging.WARNING):
        recording, messages = read(bag)
    images = [m for m in messages if m.topic == "/camera/color/image_raw"]
    assert 15 <= len(images) <= 24
    assert [m.stamp for m in images] == [START + n * SECOND // 10 for n in range(len(images))]
    assert all(rgb_array(m.message).shape == (150, 300, 3) for m in images)
    assert f"{len(messages)} messages, {(len(images) - 1) / 10:.1f} s, can be read" in str(recording.damage)
    assert recording.damage in caplog.text
    assert recording.topics["/camera/color/image_raw"].count == len(images)


@pytest.mark.parametrize("metadata", [None, "", "rosbag2_bagfile_information: {version: 8"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_are_not_needed(tmp_path: Path, storage: str, metadata: str | None) -> None:
    bag = write_bag(tmp_path / "drive", drive(3, width=8), storage)
    if metadata is None:
        (bag / "metadata.yaml").unlink()
    else:
        (bag / "metadata.yaml").write_text(metadata)
    assert len(read(bag)[1]) == 4


def test_what_only_the_write_ahead_log_holds_is_read(tmp_path: Path) -> None:
    file = file_of(write_bag(tmp_path / "drive", drive(3, width=8), "sqlite3"))
    killed = killed_database(file, tmp_path / "killed", "WAL")
    before = snapshot(killed)
    recording, messages = read(killed)
    assert len(messages) == 7
    assert "write-ahead log" in str(recording.damage)
    assert snapshot(killed) == before


def test_an_open_transaction_is_undone(tmp_path: Path) -> None:
    file = file_of(write_bag(tmp_path / "drive", drive(3), "sqlite3"))
    killed = killed_database(file, tmp_path / "killed", "DELETE")
    before = snapshot(killed)
    assert len(before["drive.db3"]) > file.stat().st_size, "half of it is in the file"
    recording, messages = read(killed)
    assert [m.stamp for m in messages] == [stamp for _, stamp, _ in drive(3)]
    assert "a transaction was not finished" in str(recording.damage)
    assert snapshot(killed) == before


def killed_database(file: Path, killed: Path, journal: str) -> Path:
    """The bag `killed`, whose recorder died after it had written each message of topic 2 once more."""
    killed.mkdir()
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA journal_mode={journal}")
        database.execute("PRAGMA cache_size=1")  # or a transaction stays in memory
        database.execute(
            "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 1000, data "
            "FROM messages WHERE topic_id = 2"
        )
        if journal == "WAL":
            database.commit()
        for name in (file.name, f"{file.name}-{'wal' if journal == 'WAL' else 'journal'}"):
            shutil.copy(file.with_name(name), killed)
    return killed


def snapshot(bag: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bag.iterdir()}


def break_a_message(file: Path, message_bytes: int = 0, after: float = 0.5) -> None:
    """Makes a message's record, behind that part of a file, longer than its chunk."""
    data = bytearray(file.read_bytes())
    start = int(after * len(data))
    if file.suffix == ".bag":
        at = data.index(b"op=\x02", start) - 8  # before it are the header's length and the field's
    else:
        size = message_bytes or len(ROS2.store.serialize_cdr(drive(1)[1][2], "sensor_msgs/msg/Image"))
        at = data.index(struct.pack("<BQ", 5, 22 + size), start) + 1
    data[at : at + 4] = b"\xff\xff\xff\x00"
    file.write_bytes(data)


@pytest.mark.parametrize("storage", ["mcap", "ros1"])
def test_a_damaged_chunk_of_a_cut_bag_costs_itself(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "drive.bag", drive(40, storage), storage)
    file = bag if bag.is_file() else file_of(bag)
    break_a_message(file)
    file.write_bytes(file.read_bytes()[:-100])
    recording, messages = read(bag)
    stamps = [m.stamp for m in messages]
    assert 30 <= len(messages) < 41
    assert all(rgb_array(m.message).shape == (150, 300, 3) for m in messages if "image" in m.topic)
    assert max(np.diff(stamps)) > SECOND // 10, "the chunk is missing"
    assert stamps[-1] > START + 3 * SECOND
    assert recording.damage is not None


@pytest.mark.parametrize("storage", ["mcap", "ros1"])
def test_damage_within_a_closed_bag_ends_it(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "drive.bag", drive(40, storage), storage)
    break_a_message(bag if bag.is_file() else file_of(bag))
    recording, messages = read(bag)
    assert 10 <= len(messages) <= 30
    assert "what was recorded later than" in str(recording.damage)


def test_an_empty_last_file_is_left_out(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", drive(3, width=8))
    (bag / "drive_1.mcap").touch()
    recording, messages = read(bag)
    assert len(messages) == 4
    assert "drive_1.mcap: is empty" in str(recording.damage)


def test_a_damaged_message_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kind = "sensor_msgs/msg/Image"
    images = [message for topic, _, message in drive(4, width=8) if "image" in topic]
    with Writer(tmp_path / "drive", version=8) as writer:
        connection = writer.add_connection("/image", kind, typestore=ROS2.store)
        for number, image in enumerate(images):
            data = bytes(ROS2.store.serialize_cdr(image, kind))
            writer.write(connection, START + number, data[:-50] if number in (1, 2) else data)
    recording, messages = read(tmp_path / "drive")
    assert [m.stamp - START for m in messages] == [0, 3]
    assert recording.skipped == {"/image": 2}
    assert caplog.text.count("a message of /image is damaged") == 1


def test_own_types_are_read_by_the_definitions_in_the_bag(tmp_path: Path) -> None:
    definition = "std_msgs/Header header\nfloat64 bump\n" + "=" * 80 + "\nMSG: std_msgs/Header\n"
    definition += "builtin_interfaces/Time stamp\nstring frame_id\n"
    ROS2.store.register(
        {"robot/msg/Bump": get_types_from_msg(definition, "robot/msg/Bump")["robot/msg/Bump"]}
    )
    bump = ROS2.make("robot/msg/Bump", header=ROS2.header(START, "base"), bump=1.5)
    bag = write_bag(tmp_path / "drive", [("/bump", START, bump)])
    assert read(bag)[1][0].message.bump == 1.5


def unknown(path: Path) -> Path:
    """A bag with a type that nobody defines."""
    with open(path, "wb") as file:
        writer = McapWriter(file, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        schema = writer.register_schema("robot/msg/Secret", "", b"")
        channel = writer.register_channel("/secret", "cdr", schema)
        info = writer.register_schema("sensor_msgs/msg/CameraInfo", "", b"")
        known = writer.register_channel("/info", "cdr", info)
        data = bytes(ROS2.store.serialize_cdr(ROS2.camera_info(START), "sensor_msgs/msg/CameraInfo"))
        for number in (channel, known):
            writer.add_message(number, START, data, START)
        writer.finish()
    return path


def test_unknown_types_matter_only_when_they_are_asked_for(tmp_path: Path) -> None:
    with Recording(unknown(tmp_path / "drive.mcap")) as recording:
        assert recording.first("/info").width == 8
        with pytest.raises(DataError, match="type robot/msg/Secret of /secret is not known"):
            recording.first("/secret")
        with pytest.raises(
            DataError, match=r"no topic /other; it holds /info \(sensor_msgs/msg/CameraInfo, 1\)"
        ):
            recording.first("/other")


def test_what_is_no_bag_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("drive")
    (tmp_path / "empty.bag").touch()
    for suffix in (".mcap", ".db3", ".bag"):
        (tmp_path / f"noise{suffix}").write_bytes(np.random.default_rng(0).bytes(5000))
    write_bag(tmp_path / "nothing", [])
    causes = {
        "none": "no such bag; check the path",
        "folder": "not a bag; give the folder",
        "notes.txt": "not a bag; give the folder",
        "empty.bag": "no messages that can be read",
        "noise.mcap": "no messages that can be read",
        "noise.db3": "no messages that can be read",
        "noise.bag": "no messages that can be read",
        "nothing": "no messages that can be read",
    }
    for name, cause in causes.items():
        with pytest.raises(DataError, match=cause) as error:
            Recording(tmp_path / name)
        assert "\n" not in str(error.value)


def image_bag(path: Path, stamps: list[int]) -> Path:
    """Images with these stamps in milliseconds, received one second after the other."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    messages = [
        ("/image", START + number * SECOND, ROS2.image(stamp * SECOND // 1000, pixels))
        for number, stamp in enumerate(stamps)
    ]
    return write_bag(path, messages)


@pytest.mark.parametrize(
    ("stamps", "kept", "warning"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 3, 2, 4], [1, 3, 4], "/image goes back in time after 0.003 s, by 0.001 s"),
        ([1, 5_000, 2, 3, 5_001], [1, 5_000, 5_001], "/image goes back in time"),
        (
            [1, 90_000, 2, 3],
            [1, 2, 3],
            "/image has a stamp far in the future after 0.001 s, which is left out",
        ),
        ([1, 90_000, 90_001], [1, 90_000, 90_001], "/image jumps forward after 0.001 s, by 90.0 s"),
        ([1, 90_000], [1, 90_000], None),
        ([1], [1], None),
        (
            [500_000, 100_000, 100_100, 100_200],
            [100_000, 100_100, 100_200],
            "/image begins with a stamp far in the future, 400.0 s ahead",
        ),
        ([900_000, 500_000, 100_000, 100_100], [100_000, 100_100], "/image begins with a stamp far"),
        ([9_000, 1_000, 9_100], [9_000, 9_100], "/image goes back in time after 9.000 s, by 8.000 s"),
    ],
)
def test_stamps_rise(
    tmp_path: Path, stamps: list[int], kept: list[int], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with Recording(image_bag(tmp_path / "drive", stamps)) as recording:
        found = [m.stamp * 1000 / SECOND for m in ordered(recording.messages(["/image"]))]
    assert found == kept
    assert (caplog.text.count(warning) == 1) if warning else not caplog.text


def test_without_stamps_the_time_of_receipt_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Recording(image_bag(tmp_path / "drive", [0, 0, 0])) as recording:
        found = [m.stamp for m in ordered(recording.messages(["/image"]))]
    assert found == [START, START + SECOND, START + 2 * SECOND]
    assert caplog.text.count("/image carries no stamps") == 1
