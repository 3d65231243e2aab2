"""Nodes over DDS: starts them, plays bags to them, and scores the poses that the localizer sends back."""

import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rich.console import Console
from sensor_msgs.msg import Image

from ofvl_core import realsense
from ofvl_core.bag import frame_stamps
from ofvl_core.covariance import normalised_error_squared
from ofvl_core.datasets import Frame, load_scene
from ofvl_core.datasets.robot import load_robot
from ofvl_core.evaluation import Result, SceneEvaluation, training_poses
from ofvl_core.geometry import Array, invert
from ofvl_core.recording.messages import stamp_ns
from ofvl_ros.messages import pose_matrix

ROOT = Path(__file__).resolve().parents[1]
START = 60.0
"""Seconds in which nodes have to start."""

GET_READY = 5.0
"""Seconds that a robot stands in a scene before it drives: the localizer describes its keyframes."""

LAST_POSE = 2.0
"""Seconds after the bag's end in which a pose may still arrive."""

console = Console()

Entered = TypeVar("Entered", bound="Nodes")


def environment() -> dict[str, str]:
    """A DDS domain of our own on this machine, and the profile that lets images through."""
    return os.environ | {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds.xml"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)),
        "OMP_WAIT_POLICY": "PASSIVE",  # the network's threads leave the cores to the other processes
        "RCUTILS_COLORIZED_OUTPUT": "0",
    }


class _Heard(NamedTuple):
    """A pose of the base as it arrived here."""

    arrived: float
    map_from_base: Array
    covariance: Array | None


class Nodes:
    """Nodes as processes in a DDS domain of their own, and a `node` here that hears them from `with` on."""

    def __init__(self, name: str, log: Path):
        os.environ.update(environment())
        self.log = log
        self._file = open(log, "w")  # noqa: SIM115 closed in __exit__
        self._processes: list[subprocess.Popen[bytes]] = []
        rclpy.init()
        self.node = Node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self: Entered) -> Entered:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown()
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self._file.close()

    def start(
        self,
        module: str,
        parameters: dict[str, object],
        remappings: dict[str, str],
        params_file: Path | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a node of ofvl_ros; what `parameters` say counts more than the file."""
        arguments = [] if params_file is None else ["--params-file", str(params_file)]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={_quoted(value)}"]
        for name, topic in remappings.items():
            arguments += ["-r", f"{name}:={topic}"]
        command = [sys.executable, "-m", f"ofvl_ros.{module}", "--ros-args", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=self._file, stderr=subprocess.STDOUT)
        self._processes.append(process)
        return process

    def await_start(self, is_there: Callable[[], bool]) -> None:
        """Wait until nodes are there, by what they offer. Exits when one has ended or START is over."""
        deadline = time.monotonic() + START
        while not is_there():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                raise SystemExit(f"a node did not start; the log is {self.log}")
            time.sleep(0.2)

    def play(self, bag: Path, rate: float = 1.0, remappings: dict[str, str] | None = None) -> None:
        """Play a bag to its end and wait for what comes of its last image."""
        parameters = {"bag": bag, "rate": rate, "wait_for_subscriber": realsense.COLOR_IMAGE}
        with console.status(f"playing {bag.name}"):
            player = self.start("bag_player", parameters, remappings or {})
            if player.wait() != 0:
                raise SystemExit(f"the bag was not played to its end; see {self.log}")
            self._processes.remove(player)
            time.sleep(LAST_POSE)

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()


class RunningLocalizer(Nodes):
    """The localizer node, and a node here that listens to it.

    Latency is the time from an image's arrival here to its pose's, both over DDS.
    """

    def __init__(self, checkpoint: Path, base_frame: str, log: Path):
        super().__init__("score", log)
        parameters = {"checkpoint": checkpoint, "base_frame": base_frame, "use_sim_time": "true"}
        remappings = {"image": realsense.COLOR_IMAGE, "camera_info": realsense.COLOR_INFO}
        self.start("localizer_node", parameters, remappings)
        self._images: dict[int, float] = {}
        self._single: dict[int, _Heard] = {}
        self._fused: dict[int, _Heard] = {}
        self.node.create_subscription(
            Image, realsense.COLOR_IMAGE, self._on_image, qos_profile_sensor_data, raw=True
        )
        self.node.create_subscription(PoseStamped, "pose", self._on_fused, 100)
        self.node.create_subscription(PoseWithCovarianceStamped, "pose_with_covariance", self._on_single, 100)
        self._set_parameters = self.node.create_client(SetParameters, "localizer/set_parameters")

    def select_scene(self, scene: str) -> None:
        """Switch the running node to a scene by its parameter."""
        self.await_start(self._set_parameters.service_is_ready)
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=scene)
        request = SetParameters.Request(parameters=[Parameter(name="scene", value=value)])
        answer = self._set_parameters.call(request, timeout_sec=30)
        if answer is None or not answer.results[0].successful:
            raise SystemExit(f"the localizer refused scene {scene}; its log is {self.log}")
        time.sleep(GET_READY)

    def score(
        self, bag: Path, scene_root: Path, rate: float = 1.0, split: str = "test"
    ) -> tuple[SceneEvaluation, SceneEvaluation]:
        """Play a bag that `ofvl bag from-dataset` made of `scene_root`; compare poses with the truth.

        The first evaluation is of single images, `pose_with_covariance`; the second of `pose`, which images
        and odometry make together.
        """
        scene, robot = load_scene(scene_root), load_robot(scene_root)
        optical_from_base = invert(robot.base_from_optical if robot else realsense.BODY_FROM_OPTICAL)
        self._images.clear()
        self._single.clear()
        self._fused.clear()
        self.play(bag, rate)
        frames, training = scene.frames(split), training_poses(scene) @ optical_from_base
        single, fused = (
            SceneEvaluation(scene.name, self._results(frames, heard, optical_from_base), training)
            for heard in (self._single, self._fused)
        )
        return single, fused

    def _results(
        self, frames: Sequence[Frame], heard: dict[int, "_Heard"], optical_from_base: Array
    ) -> list[Result]:
        results = []
        for stamp, frame in zip(frame_stamps(frames), frames, strict=True):
            true, pose = frame.world_from_camera @ optical_from_base, heard.get(stamp)
            if pose is None:
                results.append(Result(frame.name, frame.color, true, None, None, "no pose received"))
                continue
            normalised = None
            if pose.covariance is not None:
                normalised = normalised_error_squared(pose.map_from_base, pose.covariance, true)
            latency = pose.arrived - self._images.get(stamp, pose.arrived)
            results.append(
                Result(frame.name, frame.color, true, pose.map_from_base, latency, None, normalised)
            )
        return results

    def _on_image(self, serialized: bytes) -> None:
        seconds, nanoseconds = struct.unpack_from("<iI", serialized, 4)  # the stamp begins every Image
        self._images[seconds * 1_000_000_000 + nanoseconds] = time.monotonic()

    def _on_fused(self, message: PoseStamped) -> None:
        self._fused[stamp_ns(message)] = _Heard(time.monotonic(), pose_matrix(message.pose), None)

    def _on_single(self, message: PoseWithCovarianceStamped) -> None:
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        heard = _Heard(time.monotonic(), pose_matrix(message.pose.pose), covariance)
        self._single[stamp_ns(message)] = heard


def _quoted(value: object) -> str:
    """A value as YAML: a path may hold spaces."""
    return f"'{value}'" if isinstance(value, Path) else str(value)


def ofvl(*arguments: object, log: Path | None = None, threads: int | None = None) -> None:
    """Run an `ofvl` command, showing it as a user would type it; what it says goes to the log, if given."""
    words = [str(argument) for argument in arguments]
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    console.print(f"[bold]$ ofvl {shown}[/]", highlight=False, soft_wrap=True)
    command = [sys.executable, "-c", "from ofvl_core.cli import main; main()", *words]
    variables = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    with nullcontext() if log is None else open(log, "a") as said:
        status = subprocess.run(command, cwd=ROOT, env=variables, stdout=said, stderr=said).returncode
    if status != 0:
        raise SystemExit(status if log is None else f"ofvl {words[0]} did not succeed; its log is {log}")
