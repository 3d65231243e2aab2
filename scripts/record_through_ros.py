"""Plays bags over DDS to the recorder node, which makes bags of them again."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import rclpy
from rclpy.node import Node
from soak import Process
from std_srvs.srv import Trigger
from through_ros import console, environment

from ofvl_core import realsense
from ofvl_core.recording.bags import Recording

REMAPPINGS = {
    "image/compressed": f"{realsense.COLOR_IMAGE}/compressed",
    "camera_info": realsense.COLOR_INFO,
    "depth/compressedDepth": f"{realsense.DEPTH_IMAGE}/compressedDepth",
    "depth_camera_info": realsense.DEPTH_INFO,
}
PARAMETERS = {"autostart": "false", "image_transport": "compressed", "depth_transport": "compressed"}

ANSWER = 30.0
"""Seconds for a service's answer."""

SETTLE = 1.0
"""Seconds for the last messages to arrive."""


class RunningRecorder:
    """The recorder node as a process, and a node here that commands it."""

    def __init__(self, output: Path, name: str) -> None:
        os.environ.update(environment())
        output.mkdir(parents=True, exist_ok=True)
        self.output, self._log = output, output / "ros.log"
        parameters = PARAMETERS | {"output": f"'{output}'", "name": name}
        arguments = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
        arguments += [word for key, topic in REMAPPINGS.items() for word in ("-r", f"{key}:={topic}")]
        self._process = Process(self._log, "-m", "ofvl_ros.recorder_node", "--ros-args", *arguments)
        rclpy.init()
        self._node = Node("drives")

    def __enter__(self) -> "RunningRecorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.interrupt()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def record(self, bag: Path, split: str) -> Path:
        """Play a bag while it is recorded, marked for `split`; the new bag."""
        self._ask(f"mark_{split}")
        recorded = Path(self._ask("start")["bag"])
        player = Process(
            self._log,
            *("-m", "ofvl_ros.bag_player", "--ros-args", "-p", f"bag:='{bag}'"),
            *("-p", f"wait_for_subscriber:={realsense.DEPTH_IMAGE}/compressedDepth"),
        )
        with console.status(f"recording {bag.parent.name}/{bag.name}"):
            status = player.popen.wait()
        player.end()
        if status != 0:
            raise SystemExit(f"{bag} was not played to its end; see {self._log}")
        time.sleep(SETTLE)
        self._ask("stop")
        return recorded

    def _ask(self, service: str) -> dict[str, str]:
        client = self._node.create_client(Trigger, f"recorder/{service}")
        if not client.wait_for_service(ANSWER):
            raise SystemExit(f"the recorder did not start; its log is {self._log}")
        future = client.call_async(Trigger.Request())
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=ANSWER)
        answer = future.result()
        if answer is None or not answer.success:
            raise SystemExit(f"the recorder refused to {service}; its log is {self._log}")
        content: dict[str, str] = json.loads(answer.message)
        return content


def lost(bag: Path, recorded: Path) -> Counter[str]:
    """How many messages of each topic the recording lacks."""
    with Recording(bag) as played, Recording(recorded) as heard:
        missing = Counter({name: topic.count for name, topic in played.topics.items()})
        missing.subtract({name: topic.count for name, topic in heard.topics.items() if name in missing})
    return +missing
