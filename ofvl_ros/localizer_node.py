"""Camera images in, the robot's pose and the map's transform out: a lifecycle node."""

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_ros import Buffer, TransformBroadcaster, TransformListener

from ofvl_core.errors import ConfigError, OfvlError
from ofvl_core.fusion import Fix
from ofvl_ros import process
from ofvl_ros.frames import CameraTree, MapBroadcaster, map_frame
from ofvl_ros.health import Health, diagnostic_status
from ofvl_ros.initialpose import InitialPose
from ofvl_ros.inputs import CameraInputs, Shot
from ofvl_ros.localizer_parameters import AUTO, PARAMETERS
from ofvl_ros.messages import pose_matrix, prior_covariance
from ofvl_ros.newest import NewestWorker
from ofvl_ros.parameters import check, declare
from ofvl_ros.states import ERROR, LEVELS, WARN, WITHOUT_MAP

if TYPE_CHECKING:
    from ofvl_core.localizer import Localizer
    from ofvl_ros.pipeline import Outcome

NAME = "localizer"

JUMP_BACK = 1.0
"""Image stamps that fall back by more than these seconds mean that a recording starts again."""

STATUS_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""

REPEAT = 5.0
"""Seconds after which the log says again what is wrong."""

PASSING = 1.0
"""Seconds that a state lasts before the log speaks of it."""

TOLD_AT_ONCE = {"localized", "lost", "unknown scene", "wrong scene", "failed", "inactive"}
"""States of which it speaks at once; 'localized' only when something else was told before."""

TRIGGER_TIMEOUT = 5.0
"""Seconds after which a trigger is answered that no image came."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class LocalizerNode(LifecycleNode):
    """Subscribes `image` and `camera_info`; publishes `pose`, tf, and how it is doing.

    Raises ConfigError for parameters that make no sense. configure loads the checkpoint, activate starts,
    deactivate stops and gives the GPU's memory back, cleanup unloads. Callbacks only store what arrives; one
    worker thread localizes the newest image.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self._localizer: Localizer | None = None
        self._is_active = False
        self._state, self._reason, self._scene = "inactive", "not configured", ""
        self._since = self._logged = 0.0
        self._logged_state = self._state
        self._health = Health()
        self._triggers: list[_Request] = []
        self._lock = threading.Lock()  # of the triggers and the state, which two threads change
        self._is_loading = False
        self._note: str | None = None
        self._running = ExitStack()
        self.exit_code = 0
        jump = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(jump, post_callback=self._on_time_jump)
        try:
            declare(self, PARAMETERS)
        except BaseException:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._check_parameters)
        self._status = self.create_publisher(DiagnosticStatus, "localization_status", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._scenes = self.create_publisher(String, "scenes", LATCHED)
        self._tf_broadcaster = TransformBroadcaster(self)
        self._service_change_state.callback = _forgiving(self._service_change_state.callback)
        services = ReentrantCallbackGroup()  # one that waits for an image must not keep others waiting
        for name, callback in (
            ("trigger_localization", self._on_trigger),
            ("reload", self._on_reload),
            ("list_scenes", self._on_list_scenes),
        ):
            self.create_service(Trigger, f"~/{name}", callback, callback_group=services)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(STATUS_PERIOD, self._on_status_timer, clock=steady)

    # ------------------------------------------------------------------------------------ lifecycle

    def start(self) -> bool:
        """Configure and activate; whether that succeeded. The log says why not."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the checkpoint."""
        return self._attempt(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to localize."""
        return self._attempt(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop localizing and give the GPU's memory back."""
        return self._attempt(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the checkpoint."""
        return self._attempt(self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, from whatever state."""
        return self._attempt(self._clean_up)

    def destroy_node(self) -> None:
        """Let the worker finish the image in hand, then go."""
        try:
            self._clean_up()
        finally:
            self._jump_handle.unregister()
            super().destroy_node()
            # rclpy forgets it, and a node that lives on takes the log of the next of its name to /rosout
            self._state_machine.destroy_when_not_in_use()

    def _attempt(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except OfvlError as error:
            self.get_logger().fatal(str(error))
            return FAILURE
        except Exception:  # rclpy would swallow it
            if self.context.ok():  # nothing can be published when stopped while starting
                self.get_logger().fatal(f"this is a bug: {traceback.format_exc()}")
            return FAILURE
        return SUCCESS

    def _configure(self) -> None:
        if self._value("initialpose") == "publish" and self._value("tf_mode") != "none":
            raise ConfigError("initialpose is publish, and AMCL broadcasts map to odom: set tf_mode to none")
        localizer = self._load()
        _require_scene(self._value("scene"), localizer.scenes)
        self._localizer = localizer
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        self._publish_scenes("")
        self._set_state("inactive", "configured")

    def _activate(self) -> None:
        assert self._localizer is not None
        with ExitStack() as started:  # what fails half-way leaves nothing behind
            self._start(self._localizer, started)
            self._running = started.pop_all()
        self._is_active = True
        waiting = f"waiting for images on {self._inputs.image.topic_name}"
        known = ", ".join(self._localizer.scenes)
        self.get_logger().info(f"scene is '{self._value('scene')}' of {known}; {waiting}")
        self._set_state("starting", waiting)

    def _start(self, localizer: "Localizer", started: ExitStack) -> None:
        """Make what an active node has, and put into `started` how it ends: the inputs first."""
        from ofvl_ros.outputs import Outputs
        from ofvl_ros.pipeline import Pipeline

        self._make_ready(localizer)
        tree = CameraTree(
            self._buffer,
            self._value("tf_mode"),
            self._value("map_frame"),
            self._value("odom_frame"),
            self._value("base_frame"),
            Duration(seconds=self._value("transform_timeout")),
        )
        self._pipeline = Pipeline(localizer, tree, self.get_clock(), self._health, self._value)
        started.callback(self._pipeline.release)
        self._outputs = Outputs(self)
        started.callback(self._outputs.destroy)
        self._initialpose = InitialPose(self, self._value("initialpose"), self._on_prior)
        started.callback(self._initialpose.destroy)
        self._broadcaster = MapBroadcaster(
            self,
            self._tf_broadcaster,
            self._value("tf_rate"),
            self._value("transform_tolerance"),
            self._value("lost_seconds"),
        )
        started.callback(self._broadcaster.destroy)
        self._worker = NewestWorker(
            self._localize, self._on_bug, lambda: self._health.count("images dropped")
        )
        started.callback(self._worker.close)
        self._last_stamp = 0.0
        self._inputs = CameraInputs(
            self,
            self._value("image_transport"),
            self._value("depth_transport"),
            self._value("image_qos"),
            self._health,
            self._on_shot,
        )
        started.callback(self._inputs.destroy)

    def _deactivate(self) -> None:
        if not self._is_active:
            return
        assert self._localizer is not None
        self._is_active = False
        self._running.close()
        self._localizer.release()
        del self._pipeline, self._worker, self._inputs  # they would keep the network from being unloaded
        self._answer(list(self._triggers), None)
        self._publish_scenes("")
        self._set_state("inactive", "configured")

    def _clean_up(self) -> None:
        self._deactivate()
        if self._localizer is not None:
            self._listener.unregister()
            self._localizer = None
            self._set_state("inactive", "not configured")

    def _load(self) -> "Localizer":
        # Here and not above: torch takes seconds to import, in which an interrupt would end in a traceback.
        from ofvl_core.localizer import Localizer

        checkpoint = self._value("checkpoint")
        if not checkpoint:
            raise ConfigError("no checkpoint is given: set the parameter 'checkpoint' to a trained model")
        return Localizer(
            Path(checkpoint),
            self._value("device"),
            engine=self._value("engine"),
            keyframes=self._value("keyframes"),
        )

    def _make_ready(self, localizer: "Localizer") -> None:
        """Put the network on its device, so that the first image is as fast as the next."""
        asked_for = self._value("scene")
        for scene in localizer.scenes if asked_for == AUTO else [asked_for]:
            localizer.warm_up(localizer.manifest.scene(scene).camera, scene)
        if not localizer.note and self._value("device") == "auto" and localizer.device.type == "cpu":
            self.get_logger().info("no CUDA device found: running on the CPU")

    # ----------------------------------------------------------------------------------- parameters

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        result = check(PARAMETERS, parameters, in_use=self._localizer is not None)
        for parameter in parameters:
            if result.successful and parameter.name == "scene" and self._localizer is not None:
                try:
                    _require_scene(parameter.value, self._localizer.scenes)
                except ConfigError as error:
                    return SetParametersResult(successful=False, reason=str(error))
                if self._is_active and parameter.value != self._value("scene"):
                    self._broadcaster.stop()
                    self._localizer.describe_ahead(parameter.value)  # until its first image comes
        return result

    # --------------------------------------------------------------------------------------- images

    def _on_shot(self, shot: Shot) -> None:
        if self._last_stamp - shot.stamp > JUMP_BACK:
            self._forget("image stamps jumped back")
        self._last_stamp = shot.stamp
        self._worker.put(shot)

    def _on_time_jump(self, _: Any) -> None:
        if self._is_active:
            self._forget("the clock jumped back")
        elif self._localizer is not None:
            self._buffer.clear()

    def _forget(self, cause: str) -> None:
        """A bag starts again: where things were is not true any more."""
        self.get_logger().info(f"{cause}: forgetting transforms and track")
        self._buffer.clear()
        self._broadcaster.start_over()
        self._pipeline.later(self._pipeline.start_over)
        self._last_stamp = 0.0

    def _on_prior(self, message: PoseWithCovarianceStamped) -> None:
        """Somebody says where the robot is; the base frame's pose is meant, as RViz and AMCL have it."""
        scene = self._scene if self._value("scene") == AUTO else self._value("scene")
        expected = map_frame(self._value("map_frame"), scene)
        try:
            if not scene:
                raise ConfigError("which scene it is must be known first: set the parameter scene")
            if message.header.frame_id != expected:
                raise ConfigError(f"it is given in '{message.header.frame_id}': give it in '{expected}'")
            prior = Fix(pose_matrix(message.pose.pose), prior_covariance(message.pose))
        except ConfigError as error:
            self.get_logger().warning(f"initialpose is ignored: {error}")
            return
        self.get_logger().info("initialpose is taken as a prior")
        self._pipeline.later(lambda: self._pipeline.take_prior(prior))

    def _localize(self, shot: Shot) -> None:
        """In the worker's thread: one image, from message to messages."""
        asking = [request for request in self._triggers if request.began <= shot.received]
        if not asking and not self._value("continuous"):
            self._pipeline.watch(shot)
            self._health.count("images not asked for")
            return
        outcome = self._pipeline.process(shot, self._inputs.camera_info)
        if outcome.pose is not None:  # first of all: it is what is waited for
            self._outputs.publish_pose(outcome, outcome.pose)
            self._health.took("image received to pose sent", time.monotonic() - shot.received)
        if outcome.state in WITHOUT_MAP:
            self._broadcaster.stop()
        elif outcome.map_transform is not None:
            self._broadcaster.send(outcome.map_transform, outcome.map_frame, outcome.stamp)
        self._outputs.publish(outcome)
        self._health.count("images localized" if outcome.pose else "images without a pose")
        if outcome.is_found and outcome.pose is not None:
            pose = outcome.pose
            self._initialpose.hand_over(pose.single, pose.single_covariance, outcome.map_frame, outcome.stamp)
        if outcome.scene != self._scene:
            self._publish_scenes(outcome.scene)
        self._set_state(outcome.state, outcome.reason)
        self._answer(asking, outcome)

    def _on_bug(self, error: Exception) -> None:
        if not self.context.ok():  # publishing fails while the node shuts down, which is nobody's concern
            return
        trace = "".join(traceback.format_exception(error))
        self.get_logger().error(f"image dropped, this is a bug: {trace}", throttle_duration_sec=REPEAT)
        self._health.count("images without a pose")
        self._broadcaster.stop()
        self._set_state("failed", f"this is a bug: {error!r}")
        self._answer(list(self._triggers), None)

    # --------------------------------------------------------------------------------------- status

    def _set_state(self, state: str, reason: str) -> None:
        """Say how it is: always on localization_status, in the log when it changed and while it stays bad.

        What passes within a second, as one bad image among good ones, is not worth a line.
        """
        with self._lock:
            now = time.monotonic()
            if state != self._state:
                self._since = now
            self._state, self._reason = state, reason
            is_new = state != self._logged_state and (now - self._since >= PASSING or state in TOLD_AT_ONCE)
            is_bad = LEVELS[state] in (WARN, ERROR)
            is_told = is_new or (is_bad and state == self._logged_state and now - self._logged > REPEAT)
            if is_told:
                self._logged_state, self._logged = state, now
        if not self.context.ok():
            return
        self._status.publish(self._localization_status())
        if is_told and is_bad:  # rclpy wants one severity a line of code
            self.get_logger().warning(f"{state}: {reason}")
        elif is_told:
            self.get_logger().info(f"{state}: {reason}")

    def _localization_status(self) -> DiagnosticStatus:
        values = {"state": self._state, "scene": self._scene, "scene asked for": self._value("scene")}
        return self._diagnostic("localization", LEVELS[self._state], f"{self._state}: {self._reason}", values)

    def _diagnostic(self, part: str, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        name = f"{self.get_fully_qualified_name().lstrip('/')}: {part}"
        return diagnostic_status(level, name, message, values)

    def _on_status_timer(self) -> None:
        if self._is_active and (silence := self._inputs.why_silent()):
            self._set_state("no images", silence)
        values: dict[str, Any] = self._health.summary()
        if self._localizer is not None:
            values |= {"device": self._localizer.device, "device memory (MiB)": self._localizer.memory_mib()}
            if self._note != (note := self._localizer.note):
                self._note = note
                if note:
                    self.get_logger().warning(note)
        stream = self._diagnostic("stream", LEVELS[self._state], self._state, values)
        message = DiagnosticArray(status=[self._localization_status(), stream])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        overdue = time.monotonic() - TRIGGER_TIMEOUT
        self._answer([request for request in self._triggers if request.began < overdue], None)

    def _publish_scenes(self, active: str) -> None:
        self._scene = active
        if self.context.ok():
            self._scenes.publish(String(data=json.dumps(self._scene_list())))

    def _scene_list(self) -> dict[str, Any]:
        known = [] if self._localizer is None else self._localizer.scenes
        return {"scenes": known, "active": self._scene, "asked_for": self._value("scene")}

    # ------------------------------------------------------------------------------------- services

    def _on_list_scenes(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._localizer is not None
        response.message = json.dumps(self._scene_list())
        return response

    async def _on_trigger(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Localize the next image and say what became of it."""
        outcome = None
        if self._is_active:
            request = _Request(time.monotonic(), Future(executor=self.executor))
            with self._lock:
                self._triggers.append(request)
            outcome = await request.answer
        response.success = outcome is not None and outcome.pose is not None
        said = {"state": self._state, "reason": self._reason} if outcome is None else outcome.as_dict()
        response.message = json.dumps(said)
        return response

    def _answer(self, requests: "list[_Request]", outcome: "Outcome | None") -> None:
        """Tell those who asked what became of the image, or that none came."""
        with self._lock:
            answered = [request for request in requests if request in self._triggers]
            self._triggers = [request for request in self._triggers if request not in answered]
        for request in answered:
            request.answer.set_result(outcome)
        if answered and self.executor is not None:
            self.executor.wake()

    async def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Load the parameter 'checkpoint' anew. Whatever is wrong with it leaves the old one serving."""
        reason = "another reload is under way: wait for it"
        if not self._is_loading:
            self._is_loading = True
            future: Future = Future(executor=self.executor)
            threading.Thread(target=self._reload, args=(future,), daemon=True).start()
            reason = await future
            self._is_loading = False
        response.success = not reason
        response.message = json.dumps({"reason": reason} | self._scene_list())
        return response

    def _reload(self, answer: Future) -> None:
        """In a thread of its own, since the executor must not wait: load, make ready, and hand over."""
        reason = ""
        try:
            localizer = self._load()
            if self._is_active:
                self._make_ready(localizer)
            self._swap(localizer)
        except Exception as error:  # whatever it is, the old one serves on
            bug = "" if isinstance(error, OfvlError) else "this is a bug: "
            reason = f"{bug}{error}; what was loaded before stays"
            self.get_logger().error(reason)
        answer.set_result(reason)
        if self.executor is not None:
            self.executor.wake()

    def _swap(self, localizer: "Localizer") -> None:
        if self._localizer is None:
            raise ConfigError("the node is not configured: configure it, which loads the checkpoint")
        _require_scene(self._value("scene"), localizer.scenes)
        if self._is_active:
            pipeline = self._pipeline
            pipeline.later(lambda: pipeline.replace_localizer(localizer))
        else:
            localizer.release()
        self._localizer = localizer
        self._publish_scenes(self._scene)


class _Request(NamedTuple):
    """Somebody waits for an image to be localized, since a monotonic time."""

    began: float
    answer: Future


def _require_scene(scene: str, known: list[str]) -> None:
    if scene != AUTO and scene not in known:
        raise ConfigError(f"unknown scene '{scene}': the checkpoint has {', '.join(known)}; {AUTO} finds out")


def _forgiving(change_state: Callable[..., ChangeState.Response]) -> Callable[..., ChangeState.Response]:
    """The service's callback, which rclpy lets end the whole spin when asked for an impossible transition."""

    def callback(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError:
            response.success = False
            return response

    return callback


def _create() -> LocalizerNode:
    node = LocalizerNode()
    if node.get_parameter("autostart").value and not node.start() and node.context.ok():
        node.exit_code = 1
    return node


def main(args: list[str] | None = None) -> int:
    """Run the node as a process; return its exit code."""
    return process.run(NAME, _create, args)


if __name__ == "__main__":
    sys.exit(main())
