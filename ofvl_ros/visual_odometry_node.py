"""Camera images in, odometry and depth out, by a network that learned both together: a node."""

import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from tf2_ros import Buffer, TransformListener

from ofvl_core.errors import ConfigError
from ofvl_ros import process
from ofvl_ros.frames import CameraTree
from ofvl_ros.health import Health, diagnostic_status
from ofvl_ros.inputs import CameraInputs, Shot
from ofvl_ros.newest import NewestWorker
from ofvl_ros.parameters import declare, values
from ofvl_ros.states import OK
from ofvl_ros.visual_odometry_parameters import PARAMETERS
from ofvl_ros.visual_odometry_states import LEVELS

if TYPE_CHECKING:
    from ofvl_core.collaborative.estimator import Estimator

NAME = "visual_odometry"

STATUS_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""

REPEAT = 5.0
"""Seconds after which the log says again what is wrong."""


class VisualOdometryNode(Node):
    """Subscribes `image` and `camera_info`; publishes `odometry`, tf, depth and relocalized poses.

    Raises ConfigError for parameters that make no sense, DataError for a checkpoint that cannot be used.
    Callbacks only store what arrives; one worker thread handles the newest image.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self.exit_code = 0
        self._worker: NewestWorker[Shot] | None = None
        jump = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(jump, post_callback=self._on_time_jump)
        try:
            declare(self, PARAMETERS, fixed=True)
            self._start(values(self, PARAMETERS))
        except BaseException:
            self.destroy_node()
            raise

    def destroy_node(self) -> None:
        """Let the worker finish the image in hand, then go."""
        if self._worker is not None:
            self._worker.close()
        self._jump_handle.unregister()
        super().destroy_node()

    def _start(self, parameters: dict[str, Any]) -> None:
        from ofvl_ros.visual_odometry_outputs import VisualOdometryOutputs
        from ofvl_ros.visual_odometry_pipeline import VisualOdometryPipeline

        estimator = _load(parameters["checkpoint"], parameters["device"])
        self._health = Health()
        self._state, self._reason = "starting", "no image yet"
        self._told, self._logged = "", 0.0
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        tree = CameraTree(
            self._buffer,
            "map_to_base" if parameters["publish_tf"] else "none",
            "",  # whatever parents the base before we do is not ours
            parameters["odom_frame"],
            parameters["base_frame"],
            Duration(seconds=parameters["transform_timeout"]),
        )
        self._pipeline = VisualOdometryPipeline(estimator, tree, parameters)
        self._outputs = VisualOdometryOutputs(self, parameters["odom_frame"])
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._worker = NewestWorker(self._follow, self._on_bug, lambda: self._health.count("images dropped"))
        self._inputs = CameraInputs(
            self,
            parameters["image_transport"],
            "none",
            parameters["image_qos"],
            self._health,
            self._worker.put,
        )
        if parameters["scale_from"] == "fixes":
            heard = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_subscription(PoseWithCovarianceStamped, "fix", self._on_fix, heard)
        self.create_timer(STATUS_PERIOD, self._on_status_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"waiting for images on {self._inputs.image.topic_name}")

    # --------------------------------------------------------------------------------------- images

    def _on_fix(self, message: PoseWithCovarianceStamped) -> None:
        def take() -> None:
            try:
                self._pipeline.take_fix(message)
            except ConfigError as error:
                self.get_logger().warning(f"a fix is ignored: {error}", throttle_duration_sec=REPEAT)

        self._pipeline.later(take)

    def _on_time_jump(self, _: Any) -> None:
        """A bag starts again."""
        if self._worker is not None:
            self._buffer.clear()
            self._pipeline.later(self._pipeline.start_over)

    def _follow(self, shot: Shot) -> None:
        """In the worker's thread: one image, from message to messages."""
        began = time.monotonic()
        outcome = self._pipeline.process(shot, self._inputs.camera_info)
        self._health.took("network and odometry", time.monotonic() - began)
        self._outputs.publish(outcome)
        self._health.count("images without odometry" if outcome.reading is None else "images used")
        self._health.took("image received to odometry sent", time.monotonic() - shot.received)
        self._set_state(outcome.state, outcome.reason)

    def _on_bug(self, error: Exception) -> None:
        if not self.context.ok():  # publishing fails while the node shuts down, which is nobody's concern
            return
        trace = "".join(traceback.format_exception(error))
        self.get_logger().error(f"image dropped, this is a bug: {trace}", throttle_duration_sec=REPEAT)
        self._health.count("images without odometry")
        self._set_state("failed", f"this is a bug: {error!r}")

    # --------------------------------------------------------------------------------------- status

    def _set_state(self, state: str, reason: str) -> None:
        """Remember how it is; the log says what is wrong, again every few seconds, and when it is over."""
        self._state, self._reason = state, reason
        now = time.monotonic()
        if LEVELS[state] == OK:
            if self._told != "well":
                self.get_logger().info(f"{state}: {reason}")
            self._told = "well"
        elif state != self._told or now - self._logged > REPEAT:
            self._told, self._logged = state, now
            self.get_logger().warning(f"{state}: {reason}")

    def _on_status_timer(self) -> None:
        if silence := self._inputs.why_silent():
            self._set_state("no images", silence)
        scale = self._pipeline.scale
        facts = {
            "state": self._state,
            "scale": f"{scale.scale:.3f}",
            "scale deviation": f"{scale.deviation:.3f}",
            "fixes": scale.fixes,
            **self._health.summary(),
        }
        name = f"{self.get_fully_qualified_name().lstrip('/')}: odometry"
        status = diagnostic_status(LEVELS[self._state], name, f"{self._state}: {self._reason}", facts)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _load(checkpoint: str, device: str) -> "Estimator":
    # Here and not above: torch takes seconds to import, in which an interrupt would end in a traceback.
    from ofvl_core.collaborative.estimator import Estimator

    if not checkpoint:
        raise ConfigError("no checkpoint is given: set the parameter 'checkpoint' to a trained model")
    return Estimator(Path(checkpoint), device)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process; return its exit code."""
    return process.run(NAME, VisualOdometryNode, args)


if __name__ == "__main__":
    sys.exit(main())
