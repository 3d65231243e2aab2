"""Does the recorder lose anything? A D435 and a VLP-16 over DDS, recorded, and compared message by message.

    .venv/bin/python scripts/recording.py --minutes 5
    .venv/bin/python scripts/recording.py --minutes 0.5 --kill

Colour and depth, 640x480 at 30 Hz, clouds of 29 thousand points at 10 Hz, an IMU at 200 Hz, tf at 50 Hz: 53
MB a second, from one process to the recorder in another. With --kill the recorder is killed at the end with
SIGKILL, and what `ofvl bag repair` recovers is compared. What misses its bar makes the exit status 1.
"""

import argparse
import os
import shutil
import signal
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from recording_sensors import sensors
from rosbags.rosbag2 import Reader
from soak import Check, Process, growth
from through_ros import ROOT, environment

from ofvl_core.files import write_json
from ofvl_core.provenance import provenance
from ofvl_core.recording.repair import repair
from ofvl_core.recording.writer import FLUSH_PERIOD

MEMORY_BAR = 10.0
"""MiB that the recorder may grow by from its fifth second to the end, by a fitted line."""

SETTLE = 5.0
"""Seconds until caches are filled."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Watch:
    """The recorder's memory and the processes' use of a core, once a second."""

    seconds: list[float]
    resident_mib: list[float]
    recorder_cores: float = 0.0
    sensors_cores: float = 0.0


def cpu_seconds(process: Process) -> float:
    """Seconds of a core that a process has used."""
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def watch(recorder: Process, publisher: Process, seconds: float) -> Watch:
    """Look at both once a second, until the time is over."""
    began, result = time.monotonic(), Watch([], [])
    before = cpu_seconds(recorder), cpu_seconds(publisher)
    while (passed := time.monotonic() - began) < seconds:
        result.seconds.append(passed)
        result.resident_mib.append(recorder.resident_mib())
        result.recorder_cores = (cpu_seconds(recorder) - before[0]) / max(passed, 1)
        result.sensors_cores = (cpu_seconds(publisher) - before[1]) / max(passed, 1)
        time.sleep(1.0)
    return result


def recorded(bag: Path, messages: dict[str, bytes]) -> tuple[dict[str, NDArray[np.int64]], int]:
    """The stamps a bag holds of each topic, and how many messages are not what was published."""
    found: dict[str, list[int]] = {topic: [] for topic in messages}
    places = {topic: sensor.stamp_at for topic, sensor in sensors().items()}
    altered = 0
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            topic = connection.topic.lstrip("/")
            if topic not in messages:
                continue
            place, whole = places[topic], messages[topic]
            seconds, nanoseconds = struct.unpack_from("<iI", data, place)
            found[topic].append(seconds * 1_000_000_000 + nanoseconds)
            end = bytes(data[place + 8 : len(whole)])  # DDS pads to four bytes
            altered += bytes(data[:place]) != whole[:place] or end != whole[place + 8 :]
    return {topic: np.array(stamps, np.int64) for topic, stamps in found.items()}, altered


class Measurement:
    """What was to be so, and what was."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def check(self, what: str, measured: str, bar: str, passed: bool) -> None:
        """Note one thing that was to be so, and say it at once: a row of the table."""
        self.checks.append(Check(what, measured, bar, bool(passed)))
        print(f"{'ok' if passed else 'MISSED':7}{what:40}{measured:70}{bar}", flush=True)

    def compare(self, bag: Path, published: Path, until: int) -> None:
        """Whether everything published up to a time, in nanoseconds, is in the bag, once and unaltered."""
        with np.load(published) as file:
            topics = [name for name in file if not name.endswith(" message")]
            found, altered = recorded(bag, {topic: file[f"{topic} message"].tobytes() for topic in topics})
            for topic in topics:
                sent = file[topic][file[topic] <= until]
                lost = int((~np.isin(sent, found[topic])).sum())
                twice = len(found[topic]) - len(np.unique(found[topic]))
                measured = f"{len(sent)} sent, {lost} lost, {twice} twice"
                self.check(f"{topic} is whole", measured, "0 lost, 0 twice", not lost and not twice)
        self.check("messages are what was published", f"{altered} altered", "0", not altered)

    def memory(self, seen: Watch) -> None:
        """Whether the recorder's memory is flat, and what both processes cost."""
        late = [index for index, second in enumerate(seen.seconds) if second >= SETTLE]
        grown = _growth([seen.seconds[i] for i in late], [seen.resident_mib[i] for i in late])
        measured = f"{grown:+.1f} MiB, {seen.resident_mib[late[0]]:.0f} to {seen.resident_mib[-1]:.0f} MiB"
        self.check("memory is flat", measured, f"{MEMORY_BAR:g} MiB", grown <= MEMORY_BAR)
        print(f"recorder {seen.recorder_cores:.0%} of a core, sensors {seen.sensors_cores:.0%}")


def _growth(seconds: Sequence[float], values: Sequence[float]) -> float:
    return growth(seconds, values) if len(seconds) > 1 else 0.0


def main() -> None:
    """Record, compare, write what was found; exit with 1 when a bar was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--storage", choices=["mcap", "sqlite3"], default="mcap")
    parser.add_argument("--kill", action="store_true", help="kill the recorder at the end, then repair")
    parser.add_argument("--keep", action="store_true", help="keep the bag: 3.2 GB a minute")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "recording", help="folder of all results")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.out, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    os.environ.update(environment())
    bags, published = chosen.out / "bags", chosen.out / "published.npz"
    seconds = 60 * chosen.minutes
    recorder = Process(
        chosen.out / "recorder.log",
        *("-m", "ofvl_ros.recorder_node", "--ros-args", "-p", f"output:={bags}"),
        *("-p", f"storage:={chosen.storage}"),
    )
    publisher = Process(
        chosen.out / "sensors.log", ROOT / "scripts" / "recording_sensors.py", seconds, published, piped=True
    )
    measurement, bag, until = Measurement(), bags / "recording_001", 2**62
    try:
        assert publisher.popen.stdout is not None
        publisher.popen.stdout.readline()  # heard
        seen = watch(recorder, publisher, seconds - 1 if chosen.kill else seconds + 1)
        if chosen.kill:
            recorder.popen.send_signal(signal.SIGKILL)
            until = time.time_ns() - round((FLUSH_PERIOD + 0.1) * 1e9)  # its thread is not a real-time one
        publisher.popen.wait(60)
        if not chosen.kill:
            code = recorder.interrupt()
            measurement.check("SIGINT ends it", f"exit {code}", "exit 0", code == 0)
    finally:
        publisher.end()
        recorder.end()
    if chosen.kill:
        began = time.monotonic()
        repaired = repair(bag)
        assert repaired is not None, "a killed recorder leaves no whole bag"
        print(f"repaired in {time.monotonic() - began:.1f} s: {repaired.messages} messages; {repaired.lost}")
        bag = repaired.out
    measurement.compare(bag, published, until)
    measurement.memory(seen)
    write_json(
        chosen.out / "results.json",
        {
            "computed_by": provenance(torch.device("cpu")),
            "minutes": chosen.minutes,
            "storage": chosen.storage,
            "killed": chosen.kill,
            "checks": [asdict(check) for check in measurement.checks],
            "series": asdict(seen),
        },
    )
    if not chosen.keep:
        shutil.rmtree(bags)
    if missed := [check.what for check in measurement.checks if not check.passed]:
        raise SystemExit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
