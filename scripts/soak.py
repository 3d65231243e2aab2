"""The localizer node under load and under disturbance, over DDS: does it stay what it was, and say what is?

    .venv/bin/python scripts/soak.py out/demo/model out/demo/scenes/room_1 --minutes 10

A camera streams colour and depth, 640x480 at 30 Hz, to a node whose model is made slow by running it several
times for an image. First nothing else happens: memory, latency, the truth of the status and the time to
answer are watched. Then one disturbance follows another. What misses its bar makes the exit status 1.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from soak_camera import RATE, Behaviour
from std_srvs.srv import Trigger
from through_ros import ROOT, environment

from ofvl_core.checkpoint import load_manifest
from ofvl_core.files import write_json
from ofvl_core.provenance import provenance

SETTLE = 20.0
"""Seconds after the first pose before anything is measured: caches fill, and the camera gets going."""

ANSWER_BAR = 0.1
"""Seconds within which 99 of 100 scene switches are to be answered."""

MEMORY_BAR = 10.0
"""MiB that the node may grow by during the watch, by a fitted line."""

LATENCY_BAR = 0.25
"""Periods of the poses by which the latency may grow during the watch, by a fitted line."""

PARTS = 10
"""Into which the watch is divided to see latency grow."""

DISTURBED = 6.0
"""Seconds a disturbance lasts."""

RECOVERY_BAR = 5.0
"""Seconds from a disturbance's end to the next pose."""

INTERRUPT_BAR = 10.0
"""Seconds from SIGINT to the process's end."""

ENDINGS = ("images received", "images dropped", "images localized", "images without a pose")
"""What the node counts: each image it receives comes to one of the three other ends."""


@dataclass(frozen=True)
class Check:
    """One thing that was to be so."""

    what: str
    measured: str
    bar: str
    passed: bool


class Pose(NamedTuple):
    """When a pose arrived (monotonic seconds) and how long after its image's stamp."""

    arrived: float
    latency: float


class Stream(NamedTuple):
    """What /diagnostics says of the stream of images, with the monotonic time of its arrival."""

    arrived: float
    values: dict[str, str]

    def total(self, event: str) -> int:
        """How often something has happened."""
        return int(self.values.get(f"{event} (total)", 0))


class Process:
    """A process of ours, its log in a file."""

    def __init__(self, log: Path, *arguments: object, piped: bool = False) -> None:
        self.log = log
        self._file = open(log, "a")  # noqa: SIM115 closed in end
        pipe = subprocess.PIPE if piped else None
        command = [sys.executable, *map(str, arguments)]
        self.popen = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe or self._file, stderr=self._file
        )

    def interrupt(self) -> int | None:
        """The exit code after SIGINT; None when the process did not end and had to be killed."""
        self.popen.send_signal(signal.SIGINT)
        try:
            return self.popen.wait(INTERRUPT_BAR)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it still runs."""
        self.popen.kill()
        self.popen.wait()
        self._file.close()

    def trace_count(self) -> int:
        """How many tracebacks its log holds."""
        return self.log.read_text().count("Traceback")

    def resident_mib(self) -> float:
        """Memory that the process holds."""
        pages = int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Camera(Process):
    """The camera's process; `published` holds (monotonic seconds, images published by then)."""

    def __init__(self, scene_root: Path, log: Path) -> None:
        super().__init__(log, ROOT / "scripts" / "soak_camera.py", scene_root, piped=True)
        self.published: list[tuple[float, int]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def behave(self, **changes: Any) -> None:
        """Change some of the camera's `Behaviour`."""
        assert self.popen.stdin is not None
        print(json.dumps(changes), file=self.popen.stdin, flush=True)

    def images_by(self, moment: float) -> float:
        """Images published by a monotonic time."""
        moments, counts = zip(*self.published, strict=True)
        return float(np.interp(moment, moments, counts))

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.published.append((time.monotonic(), json.loads(line)["published"]))


class Listener:
    """A node here that hears what the localizer says and times its answers."""

    def __init__(self) -> None:
        self.poses: list[Pose] = []
        self.streams: list[Stream] = []
        self.states: list[tuple[float, str]] = []
        rclpy.init(args=[])
        self._node = Node("soak")
        self._node.create_subscription(PoseStamped, "pose", self._on_pose, 100)
        self._node.create_subscription(DiagnosticStatus, "localization_status", self._on_status, 100)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self._set = self._node.create_client(SetParameters, "localizer/set_parameters")
        self._get = self._node.create_client(GetParameters, "localizer/get_parameters")
        self._reload = self._node.create_client(Trigger, "localizer/reload")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def set_parameter(self, name: str, value: str) -> float:
        """Seconds until the node accepted a parameter's value."""
        message = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=message)])
        answer, seconds = self._call(self._set, request)
        if not answer.results[0].successful:
            raise SystemExit(f"{name} = {value} was refused: {answer.results[0].reason}")
        return seconds

    def get_parameter(self, name: str) -> float:
        """Seconds until the node told a parameter's value."""
        return self._call(self._get, GetParameters.Request(names=[name]))[1]

    def reload(self) -> tuple[bool, float]:
        """Whether the node could load its checkpoint again, and the seconds until it said so."""
        answer, seconds = self._call(self._reload, Trigger.Request())
        return answer.success, seconds

    def wait_for_pose(self, since: float, seconds: float) -> float | None:
        """Seconds from the monotonic time `since` to the first pose after it, or None."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.poses and self.poses[-1].arrived > since:
                return next(pose.arrived for pose in self.poses if pose.arrived > since) - since
            time.sleep(0.02)
        return None

    def between(self, began: float, ended: float) -> tuple[list[Pose], list[Stream], set[str]]:
        """Poses, stream reports and the localizer's states heard between two monotonic times."""
        return (
            [pose for pose in self.poses if began <= pose.arrived < ended],
            [stream for stream in self.streams if began <= stream.arrived < ended],
            {state for arrived, state in self.states if began <= arrived < ended},
        )

    @staticmethod
    def _call(client: Any, request: Any) -> tuple[Any, float]:
        if not client.wait_for_service(30):
            raise SystemExit(f"the node offers no {client.srv_name}")
        began, done = time.monotonic(), threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(60):
            raise SystemExit(f"{client.srv_name} was not answered within a minute")
        return future.result(), time.monotonic() - began

    def _on_pose(self, message: PoseStamped) -> None:
        stamp = message.header.stamp
        latency = time.time() - stamp.sec - stamp.nanosec * 1e-9
        self.poses.append(Pose(time.monotonic(), latency))

    def _on_status(self, message: DiagnosticStatus) -> None:
        self.states.append((time.monotonic(), _values(message)["state"]))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "localizer: stream":
                self.streams.append(Stream(time.monotonic(), _values(status)))

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def growth(seconds: Sequence[float], values: Sequence[float]) -> float:
    """By how much a line fitted to the values rises from the first to the last."""
    slope = np.polyfit(seconds, values, 1)[0]
    return float(slope * (seconds[-1] - seconds[0]))


class Soak:
    """One node, one camera, and what is found out about them."""

    def __init__(self, checkpoint: Path, scene_root: Path, slowness: int, out: Path) -> None:
        self.checks: list[Check] = []
        self.series: dict[str, Any] = {}
        self._checkpoint, self._scene_root, self._slowness, self._out = checkpoint, scene_root, slowness, out
        self._scene = scene_root.name
        self._scenes = [scene.name for scene in load_manifest(checkpoint).scenes]
        self._listener = Listener()
        self._camera = Camera(scene_root, out / "camera.log")
        self._localizer: Process | None = None

    def close(self) -> None:
        """End all processes."""
        self._camera.end()
        if self._localizer is not None:
            self._localizer.end()
        self._listener.close()

    def check(self, what: str, measured: str, bar: str, passed: bool) -> None:
        """Note one thing that was to be so, and say it at once: a row of the table."""
        self.checks.append(Check(what, measured, bar, bool(passed)))
        print(f"{'ok' if passed else 'MISSED':7}{what:65}{measured:75}{bar}", flush=True)

    # ------------------------------------------------------------------------------------ the watch

    def start(self, **parameters: object) -> None:
        """Start the slow node and wait for its first pose."""
        slow = [ROOT / "scripts" / "slow_localizer.py", self._slowness]
        self._localizer = self._start_localizer(slow, **parameters)
        first = self._listener.wait_for_pose(time.monotonic(), 90)
        if first is None:
            raise SystemExit(f"no pose within 90 s; the localizer's log is {self._localizer.log}")

    def watch(self, seconds: float) -> None:
        """Nothing happens but images, parameter reads and scene switches."""
        assert self._localizer is not None
        time.sleep(SETTLE)
        began = time.monotonic()
        moments, memory, reads, switches = [], [], [], []
        other = next((scene for scene in self._scenes if scene != self._scene), self._scene)
        while (now := time.monotonic()) < began + seconds:
            moments.append(now - began)
            memory.append(self._localizer.resident_mib())
            reads.append(self._listener.get_parameter("scene"))
            if len(moments) % 10 == 5:
                switches += [self._listener.set_parameter("scene", name) for name in (other, self._scene)]
            time.sleep(max(0.0, now + 1 - time.monotonic()))
        poses, streams, _ = self._listener.between(began, time.monotonic())
        self.series = {
            "seconds": moments,
            "resident_mib": memory,
            "read_s": reads,
            "switch_s": switches,
            "pose_s": [pose.arrived - began for pose in poses],
            "latency_s": [pose.latency for pose in poses],
        }
        self._check_memory(moments, memory)
        self._check_latency(poses)
        self._check_answers("a parameter is read", reads)
        self._check_answers("a scene switch is answered", switches)
        self._check_truth(poses, streams)

    def _check_memory(self, moments: list[float], memory: list[float]) -> None:
        grown = growth(moments, memory)
        measured = f"{grown:+.1f} MiB in {moments[-1] / 60:.1f} min, {memory[0]:.0f} to {memory[-1]:.0f} MiB"
        self.check("memory is flat", measured, f"{MEMORY_BAR:g} MiB", grown <= MEMORY_BAR)

    def _check_latency(self, poses: list[Pose]) -> None:
        """Latency in periods of the poses: the machine's other work slows both, a queue only the latency."""
        parts = [poses[i : i + len(poses) // PARTS] for i in range(0, len(poses), len(poses) // PARTS)][
            :PARTS
        ]
        periods = [
            float(
                np.median([pose.latency for pose in part])
                / np.median(np.diff([pose.arrived for pose in part]))
            )
            for part in parts
        ]
        grown = growth(range(PARTS), periods)
        p50, p95, longest = 1e3 * np.percentile([pose.latency for pose in poses], (50, 95, 100))
        measured = f"{grown:+.2f} periods; median {p50:.0f}, 95 % {p95:.0f}, max {longest:.0f} ms"
        self.check("latency does not grow", measured, f"{LATENCY_BAR:g} periods", grown <= LATENCY_BAR)
        measured = f"median {np.median(periods):.2f} periods"
        self.check("only the newest image is used", measured, "2 periods", bool(np.median(periods) < 2))

    def _check_answers(self, what: str, answers: list[float]) -> None:
        p50, p99, longest = 1e3 * np.percentile(answers, (50, 99, 100))
        measured = f"median {p50:.1f}, 99 % {p99:.1f}, max {longest:.1f} ms of {len(answers)}"
        self.check(what, measured, f"99 % in {1e3 * ANSWER_BAR:.0f} ms", p99 < 1e3 * ANSWER_BAR)

    def _check_truth(self, poses: list[Pose], streams: list[Stream]) -> None:
        first, last = streams[0], streams[-1]
        received, dropped, localized, without = (last.total(end) - first.total(end) for end in ENDINGS)
        sent = self._camera.images_by(last.arrived) - self._camera.images_by(first.arrived)
        self.check(
            "images received as the status says",
            f"{received} of {sent:.0f} sent",
            "99 % and no more than sent",
            0.99 * sent - RATE <= received <= sent + RATE,
        )
        self.check(
            "every image received has an end",
            f"{dropped} dropped + {localized} localized + {without} without a pose of {received}",
            "all but 3",
            abs(received - dropped - localized - without) <= 3,
        )
        heard = len([pose for pose in poses if first.arrived <= pose.arrived < last.arrived])
        self.check(
            "poses as the status says",
            f"{heard} heard of {localized}",
            "all but 3",
            abs(heard - localized) <= 3,
        )
        rates = [float(stream.values["images received (Hz)"]) for stream in streams]
        true = sent / (last.arrived - first.arrived)
        low, high = np.percentile(rates, (5, 95))
        self.check(
            "the rate is what the status says",
            f"{low:.1f} to {high:.1f} Hz said, {true:.1f} Hz true",
            "within 10 %",
            0.9 * true <= low and high <= 1.1 * true,
        )

    # ------------------------------------------------------------------------------- disturbances

    def disturb(self) -> None:
        """One disturbance after another; the node must say so, publish no wrong pose, and recover."""
        self._by_camera("images half the size", {"width": 320, "height": 240}, localizes=True)
        self._by_camera("camera_info of another size", {"info_width": 320}, state="bad image")
        self._by_camera("stamps 10 s ahead", {"stamp_offset": 10.0}, state="stale image")
        self._by_camera("stamps 10 s behind", {"stamp_offset": -10.0}, state="stale image")
        self._by_camera("depth all NaN", {"depth": "nan"}, localizes=True)
        self._by_camera("depth missing", {"depth": "none"}, localizes=True)
        self._by_camera("black images", {"brightness": 0.0})
        self._by_camera("over-exposed images", {"brightness": 100.0})
        self._camera_restarts()
        self._reload(self._checkpoint, True)
        self._reload(self._out / "no such checkpoint", False)
        self._listener.set_parameter("checkpoint", str(self._checkpoint))

    def _by_camera(
        self, what: str, changes: dict[str, Any], localizes: bool = False, state: str = ""
    ) -> None:
        normal = {name: getattr(Behaviour(), name) for name in changes}
        self._camera.behave(**changes)
        began = time.monotonic() + 2.0  # images under way, and the one in hand
        time.sleep(2.0 + DISTURBED)
        self._judge(what, began, lambda: self._camera.behave(**normal), localizes, state)

    def _camera_restarts(self) -> None:
        self._camera.end()
        began = time.monotonic() + 2.0
        time.sleep(2.0 + DISTURBED)

        def restart() -> None:
            self._camera = Camera(self._scene_root, self._camera.log)
            while not self._camera.published:
                time.sleep(0.02)

        self._judge("camera gone", began, restart, False, "no images")

    def _judge(self, what: str, began: float, undo: Callable[[], None], localizes: bool, state: str) -> None:
        poses, _, states = self._listener.between(began, time.monotonic())
        said = ", ".join(sorted(states)) or "nothing said"
        if localizes:
            self.check(what, f"{len(poses)} poses; {said}", "poses", len(poses) > 0)
        else:
            true = state in states if state else "localized" not in states
            self.check(
                what,
                f"{len(poses)} poses; {said}",
                f"no pose; {state or 'not localized'}",
                not poses and true,
            )
        undo()
        recovered = self._listener.wait_for_pose(time.monotonic(), 6 * RECOVERY_BAR)
        measured = "no pose" if recovered is None else f"{recovered:.1f} s"
        self.check(
            f"{what}: recovers", measured, f"{RECOVERY_BAR:g} s", (recovered or np.inf) <= RECOVERY_BAR
        )

    def _reload(self, checkpoint: Path, good: bool) -> None:
        self._listener.set_parameter("checkpoint", str(checkpoint))
        reads: list[float] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                reads.append(self._listener.get_parameter("scene"))
                time.sleep(0.05)

        reader = threading.Thread(target=read)
        reader.start()
        success, seconds = self._listener.reload()
        over.set()
        reader.join()
        what = "reload of a good checkpoint" if good else "reload of a bad checkpoint"
        answer = f"{'loaded' if success else 'refused'} in {seconds:.1f} s"
        self.check(what, answer, "loaded" if good else "refused", success == good)
        self._check_answers(f"{what}: a parameter is read meanwhile", reads)
        recovered = self._listener.wait_for_pose(time.monotonic(), 6 * RECOVERY_BAR)
        measured = "no pose" if recovered is None else f"{recovered:.1f} s"
        self.check(
            f"{what}: localizes on", measured, f"{RECOVERY_BAR:g} s", (recovered or np.inf) <= RECOVERY_BAR
        )

    def loop(self) -> None:
        """Time falls back every few seconds, as when a bag is played again and again."""
        assert self._localizer is not None
        self._localizer.interrupt()
        period = 6.0
        self._camera.behave(loop=period)
        self.start(use_sim_time="true")
        began = time.monotonic()
        time.sleep(4 * period)
        arrivals = [pose.arrived for pose in self._listener.between(began, time.monotonic())[0]]
        pause = max(np.diff([began, *arrivals, time.monotonic()]))
        self.check(
            "looping time",
            f"longest time without a pose {pause:.1f} s",
            f"{RECOVERY_BAR:g} s",
            pause < RECOVERY_BAR,
        )
        self._localizer.interrupt()
        self._camera.behave(loop=0.0)

    # ---------------------------------------------------------------------------------- interrupts

    def interrupt(self) -> None:
        """Ctrl-C while the node starts, and while it works."""
        for delay in (1.0, 2.0, 3.0, 5.0):
            self._interrupted(f"Ctrl-C after {delay:g} s", partial(time.sleep, delay))
        self._interrupted("Ctrl-C while localizing", self._await_pose)
        self._interrupted("Ctrl-C while reloading", self._begin_reload)

    def _interrupted(self, what: str, until: Callable[[], None]) -> None:
        self._localizer = self._start_localizer([Path(sys.executable).with_name("localizer")])
        before = self._localizer.trace_count()
        until()
        began = time.monotonic()
        code = self._localizer.interrupt()
        traces = self._localizer.trace_count() - before
        measured = f"{'killed' if code is None else f'exit {code}'} after {time.monotonic() - began:.1f} s"
        measured += f", {traces} traces" if traces else ""
        self.check(what, measured, f"exit 0 in {INTERRUPT_BAR:g} s", code == 0 and not traces)

    def _await_pose(self) -> None:
        self._listener.wait_for_pose(time.monotonic(), 90)

    def _begin_reload(self) -> None:
        self._await_pose()
        threading.Thread(target=self._listener.reload, daemon=True).start()
        time.sleep(0.05)

    def _start_localizer(self, program: list[object], **parameters: object) -> Process:
        settings = {
            "checkpoint": self._checkpoint,
            "scene": self._scene,
            "device": "cpu",
            "base_frame": "''",
            "depth_transport": "raw",
        } | parameters
        words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        return Process(self._out / "localizer.log", *program, "--ros-args", *words)


@contextmanager
def soaking(*arguments: Any) -> Iterator[Soak]:
    """A Soak whose processes end with the block."""
    soak = Soak(*arguments)
    try:
        yield soak
    finally:
        soak.close()


def main() -> None:
    """Soak; print and write what was found; exit with 1 when a bar was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a trained model that knows the scene")
    parser.add_argument("scene", type=Path, help="folder of the scene whose test images the camera shows")
    parser.add_argument("--minutes", type=float, default=10.0, help="of watching before the disturbances")
    parser.add_argument("--slowness", type=int, default=16, help="how often the network runs for an image")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "soak", help="folder of results and logs")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for log in ("camera.log", "localizer.log"):
        (chosen.out / log).unlink(missing_ok=True)
    os.environ.update(environment())
    with soaking(chosen.checkpoint.resolve(), chosen.scene.resolve(), chosen.slowness, chosen.out) as soak:
        soak.start()
        soak.watch(60 * chosen.minutes)
        soak.disturb()
        soak.loop()
        soak.interrupt()
    results = {
        "computed_by": provenance(torch.device("cpu")),
        "slowness": chosen.slowness,
        "checks": [asdict(check) for check in soak.checks],
        "series": soak.series,
    }
    write_json(chosen.out / "results.json", results)
    if missed := [check.what for check in soak.checks if not check.passed]:
        raise SystemExit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
