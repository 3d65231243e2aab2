"""A robot's sensors into bags, byte for byte, with a word on how it goes: the recorder node."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ofvl_core.errors import OfvlError
from ofvl_core.recording.writer import RecordingWriter, Topic, Trouble, next_bag
from ofvl_core.sharpness import PictureWatch
from ofvl_ros import process
from ofvl_ros.health import diagnostic_status
from ofvl_ros.images import UnsupportedImageError, rgb_array
from ofvl_ros.parameters import declare, values
from ofvl_ros.recorder_inputs import Input, Prologue, stored_qos
from ofvl_ros.recorder_parameters import PARAMETERS, sources
from ofvl_ros.recorder_states import LEVELS, MISSING, Complaint, missing, silent, unmounted, worst
from ofvl_ros.states import ERROR, WARN

NAME = "recorder"

LOOK_PERIOD = 0.5
"""Seconds between two looks at who publishes."""

STATUS_PERIOD = 1.0
"""Seconds between two statuses."""

LOG_PERIOD = 5.0
"""Seconds between two lines in the log."""

LOSS_TOLD = 5.0
"""Seconds for which a dropped message makes the state."""

MEGABYTE = 1_000_000

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

MARK = Topic("/ofvl/mark", "std_msgs/msg/String", (stored_qos(LATCHED),))
"""Says 'train' or 'test': which split what follows belongs to, until the next mark."""


class RecorderNode(Node):
    """Records a camera, its depth, a LiDAR, odometry and tf into bags.

    Raises ConfigError for parameters that make no sense, DataError when recording at start is not possible.
    Callbacks hand each message to the writer's thread and never wait for the disc.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self.exit_code = 0
        self._writer: RecordingWriter | None = None
        self._closing: list[RecordingWriter] = []
        try:
            declare(self, PARAMETERS, fixed=True)
            self._start(**values(self, PARAMETERS))
        except BaseException:
            super().destroy_node()
            raise

    def destroy_node(self) -> None:
        """Close the bag with all that was received, then go."""
        self._end_bag()
        super().destroy_node()  # first, or the log would still go to /rosout, which may be gone
        for writer in self._closing:
            writer.close()
        self._report_closed()

    def _start(
        self,
        output: str,
        name: str,
        storage: str,
        autostart: bool,
        image_transport: str,
        depth_transport: str,
        required: str,
        queue_size: float,
        min_free_space: float,
    ) -> None:
        self._output, self._name, self._storage = Path(output).expanduser().absolute(), name, storage
        self._required = required.split()
        self._queue_bytes, self._reserve = round(queue_size * MEGABYTE), round(min_free_space * MEGABYTE)
        self._inputs = {
            name: Input(self, source, self._on_message)
            for name, source in sources(image_transport, depth_transport).items()
        }
        self._prologue, self._pictures = Prologue(), PictureWatch()
        self._poor: list[str] = []
        self._silent: dict[str, float] = {}
        self._trouble: Trouble | None = None
        self._mark = ""
        self._lost, self._lost_at = 0, -LOSS_TOLD
        self._state, self._logged = "idle", 0.0
        self._began = time.monotonic()
        if autostart:
            self._begin_bag()
        self._marks = self.create_publisher(String, MARK.name, LATCHED)
        self._status = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for name, callback in (
            ("start", self._on_start),
            ("stop", self._on_stop),
            ("split", self._on_split),
            ("mark_train", lambda _, response: self._on_mark("train", response)),
            ("mark_test", lambda _, response: self._on_mark("test", response)),
        ):
            self.create_service(Trigger, f"~/{name}", callback)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_PERIOD, self._look, clock=steady)
        self.create_timer(STATUS_PERIOD, self._on_status_timer, clock=steady)

    # ------------------------------------------------------------------------------------- messages

    def _look(self) -> None:
        for one in self._inputs.values():
            one.look()

    def _on_message(self, source: Input, message: bytes) -> None:
        self._prologue.note(source, message)
        if self._writer is not None:
            self._writer.write(source.topic, self._now(), message)

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # ----------------------------------------------------------------------------------------- bags

    def _begin_bag(self) -> RecordingWriter:
        """The next bag, with what every bag begins with. Raises DataError when there can be none."""
        writer = RecordingWriter(
            next_bag(self._output, self._name),
            self._storage,
            queue_bytes=self._queue_bytes,
            reserve_bytes=self._reserve,
        )
        for topic, message in self._prologue.messages():
            writer.write(topic, self._now(), message)
        if self._mark:
            writer.write(MARK, self._now(), serialize_message(String(data=self._mark)))
        for one in self._inputs.values():
            one.stream.start_over()
        self._end_bag()
        self._writer, self._trouble, self._lost = writer, None, 0
        self.get_logger().info(f"recording to {writer.path}")
        return writer

    def _end_bag(self) -> None:
        """Take no more for the bag; its thread closes it."""
        if self._writer is not None:
            self._writer.finish()
            self._trouble = self._writer.trouble
            self._closing.append(self._writer)
            self._writer = None

    def _report(self, writer: RecordingWriter) -> None:
        """Say what became of a bag that is closed."""
        if writer.trouble is not None:
            self._trouble = writer.trouble
            self.get_logger().error(writer.trouble.sentence)
        elif not writer.written:
            self.get_logger().warning(f"{writer.path.name} is removed: no message came")
        else:
            dropped = f", {writer.messages_dropped} dropped" if writer.dropped else ""
            self.get_logger().info(f"{writer.path.name} is closed: {_contents(writer)}{dropped}")

    # ------------------------------------------------------------------------------------- services

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._writer is not None:
            return _answer(response, False, self._writer, "it is being recorded: ~/split begins the next")
        return self._on_split(_, response)

    def _on_split(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            return _answer(response, True, self._begin_bag(), "")
        except OfvlError as error:
            self.get_logger().error(str(error))
            return _answer(response, False, self._writer, str(error))

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        writer = self._writer
        if writer is None:
            return _answer(response, False, None, "nothing is being recorded: ~/start begins")
        self._end_bag()
        writer.close()
        self._report_closed()
        trouble = writer.trouble
        return _answer(response, trouble is None, writer, trouble.sentence if trouble else "")

    def _on_mark(self, mark: str, response: Trigger.Response) -> Trigger.Response:
        self._mark = mark
        message = String(data=mark)
        self._marks.publish(message)
        if self._writer is not None:
            self._writer.write(MARK, self._now(), serialize_message(message))
        held = "from now on" if self._writer is not None else "from the beginning of the next bag"
        self.get_logger().info(f"marked as {mark}, {held}")
        return _answer(response, True, self._writer, "")

    # --------------------------------------------------------------------------------------- status

    def _on_status_timer(self) -> None:
        if self._writer is not None and not self._writer.is_open:
            self._end_bag()  # it ended by itself
        self._report_closed()
        self._look_at_picture()
        now = time.monotonic()
        self._watch_silence(now)
        complaints = self._complaints(now)
        state = self._judge(complaints)
        sentence = "; ".join(complaint.sentence for complaint in complaints) or self._line(now)
        self._log(state, complaints, now)
        name = f"{self.get_fully_qualified_name().lstrip('/')}: recording"
        status = diagnostic_status(LEVELS[state], name, f"{state}: {sentence}", self._facts(state, now))
        self._status.publish(status)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _report_closed(self) -> None:
        for writer in [writer for writer in self._closing if writer.is_closed]:
            self._closing.remove(writer)
            self._report(writer)

    def _look_at_picture(self) -> None:
        """Once a second the newest image is looked at: a moment's work, and the queues are deep."""
        image = self._inputs["image"]
        newest, image.newest = image.newest, b""
        self._poor = []
        if newest:
            try:
                pixels = rgb_array(deserialize_message(newest, image.source.type))
                self._poor = self._pictures.complaints(pixels)
            except UnsupportedImageError as error:
                self._poor = [str(error)]

    def _watch_silence(self, now: float) -> None:
        """Say which sensor is back; that it is gone is in the status."""
        before, self._silent = self._silent, silent(self._inputs.values(), now)
        for one in self._inputs.values():
            silence = one.stream.silence(now)
            name = one.topic.name
            if name in before and silence is not None and silence < before[name]:
                self.get_logger().info(f"{name} is back after {before[name]:.0f} s")

    def _complaints(self, now: float) -> list[Complaint]:
        found: list[Complaint] = []
        if now - self._began > MISSING:
            found += missing(self._inputs, self._required, now)
            if self._writer is not None:
                found += unmounted(self._inputs["image"], self._inputs["velodyne_points"], self._prologue)
        found += [
            Complaint("sensor silent", f"{name} is silent for {silence:.0f} s: look after the sensor")
            for name, silence in self._silent.items()
        ]
        if self._writer is not None:
            lost = self._writer.messages_dropped
            if lost > self._lost:
                self._lost, self._lost_at = lost, now
            if lost and now - self._lost_at < LOSS_TOLD:
                sentence = f"{lost} messages dropped, the disc is too slow: record to another or compressed"
                found.append(Complaint("losing messages", sentence))
        return found + [Complaint("poor images", sentence) for sentence in self._poor]

    def _judge(self, complaints: list[Complaint]) -> str:
        if self._writer is not None:
            return worst(complaints)
        if self._trouble is not None:
            state = "disc full" if self._trouble.is_full else "failed"
            complaints.insert(0, Complaint(state, self._trouble.sentence))
            return state
        return "idle"

    def _log(self, state: str, complaints: list[Complaint], now: float) -> None:
        """A line every few seconds, and at once when the state changes."""
        is_new = state != self._state
        self._state = state
        has_ended = self._writer is None and self._trouble is not None  # which was said when it did
        if has_ended or (not is_new and now - self._logged < LOG_PERIOD):
            return
        self._logged = now
        line = f"{state}: {'; '.join([*(complaint.sentence for complaint in complaints), self._line(now)])}"
        if LEVELS[state] in (WARN, ERROR):  # rclpy wants one severity a line of code
            self.get_logger().warning(line)
        else:
            self.get_logger().info(line)

    def _line(self, now: float) -> str:
        """What there is to say of the recording and its topics."""
        rates = ", ".join(
            f"{name} {one.stream.rate(now):.0f}"
            for name, one in self._inputs.items()
            if one.stream.silence(now) is not None and not one.source.is_latched
        )
        parts = [f"{rates} Hz" if rates else "no topic yet"]
        if self._writer is not None:
            left = f"disc for {_minutes(self._writer.seconds_left(self._bytes_per_second(now)))}"
            parts.insert(0, f"{self._writer.path.name}, {_contents(self._writer)}, {left}")
        if gaps := [f"{one.stream.gaps} in {name}" for name, one in self._inputs.items() if one.stream.gaps]:
            parts.append(f"gaps {', '.join(gaps)}")
        return "; ".join(parts)

    def _facts(self, state: str, now: float) -> dict[str, Any]:
        facts: dict[str, Any] = {"state": state, "mark": self._mark or "none"}
        if (writer := self._writer) is not None:
            facts |= {
                "bag": writer.path,
                "seconds recorded": f"{writer.seconds:.1f}",
                "MB written": writer.bytes_written // MEGABYTE,
                "MB waiting": writer.bytes_waiting // MEGABYTE,
                "MB left on the disc": writer.free_bytes // MEGABYTE,
                "minutes left": _minutes(writer.seconds_left(self._bytes_per_second(now))),
                "dropped": writer.messages_dropped,
            }
        facts["sharpness"] = f"{self._pictures.sharpness:.2f}"
        for name, one in self._inputs.items():
            dropped = writer.dropped[one.topic.name] if writer is not None else 0
            facts |= {
                f"{name} (Hz)": f"{one.stream.rate(now):.1f}",
                f"{name} (total)": one.stream.messages,
                f"{name} (dropped)": dropped,
                f"{name} (gaps)": one.stream.gaps,
            }
        return facts

    def _bytes_per_second(self, now: float) -> float:
        return sum(one.stream.bytes_per_second(now) for one in self._inputs.values())


def _contents(writer: RecordingWriter) -> str:
    return f"{writer.seconds:.0f} s, {writer.messages_written} messages, {writer.bytes_written / 1e9:.2f} GB"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 1e6 else "days"


def _answer(
    response: Trigger.Response, success: bool, writer: RecordingWriter | None, reason: str
) -> Trigger.Response:
    bag = {"bag": str(writer.path), "messages": writer.messages_written} if writer is not None else {}
    response.success, response.message = success, json.dumps({"reason": reason, **bag})
    return response


def main(args: list[str] | None = None) -> int:
    """Run the node as a process; return its exit code."""
    return process.run(NAME, RecorderNode, args)


if __name__ == "__main__":
    sys.exit(main())
