"""Camera images in, the robot's pose and the map's transform out."""

import sys
import traceback
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import Buffer, TransformBroadcaster, TransformException, TransformListener

from ofvl_core.errors import ConfigError, OfvlError
from ofvl_core.geometry import Array
from ofvl_ros import process
from ofvl_ros.frames import CameraTree
from ofvl_ros.images import rgb_array
from ofvl_ros.messages import camera_from_info, pose_stamped
from ofvl_ros.newest import NewestWorker
from ofvl_ros.parameters import Spec, declare
from ofvl_ros.qos_events import SubscriptionEventCallbacks

NAME = "localizer"

PARAMETERS = {
    "checkpoint": Spec(
        "", "a trained model: the folder of 'ofvl train' or the file of 'ofvl deploy' (required)"
    ),
    "scene": Spec("", "scene to localize in; empty: the checkpoint's first", changeable=True),
    "device": Spec("auto", "auto, cpu or cuda; auto takes CUDA where there is some"),
    "map_frame": Spec("map", "tf frame of the scene's map, in which poses are given"),
    "base_frame": Spec("base_link", "frame whose pose is published; empty: the image's own optical frame"),
    "publish_tf": Spec(True, "broadcast map_frame above the root of the camera's tf tree"),
    "transform_timeout": Spec(0.2, "seconds to wait for tf at an image's stamp"),
    "image_qos": Spec("best_effort", "reliability asked of the image's publisher: best_effort or reliable"),
}

SILENCE = 5.0
"""Seconds without an image after which the node says so, and between two warnings of one kind."""

JUMP_BACK = Duration(seconds=1.0)
"""Image stamps that fall back by more than this mean that a recording starts again."""


class LocalizerNode(Node):
    """Subscribes `image` and `camera_info`; publishes `pose` and tf. Raises OfvlError when it cannot start.

    Callbacks only store what arrives; one worker thread localizes the newest image.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self._worker: NewestWorker[Image] = NewestWorker(self._localize, self._log_failure)
        try:
            self._start(**declare(self, PARAMETERS))
        except BaseException:
            self.destroy_node()
            raise

    def destroy_node(self) -> None:
        """Let the worker finish the image in hand, then go."""
        self._worker.close()
        super().destroy_node()

    def _start(
        self,
        checkpoint: str,
        scene: str,
        device: str,
        map_frame: str,
        base_frame: str,
        publish_tf: bool,
        transform_timeout: float,
        image_qos: str,
    ) -> None:
        # Here and not above: torch takes seconds to import, in which an interrupt would end in a traceback.
        from ofvl_core.localizer import Localizer

        if not checkpoint:
            raise ConfigError("no checkpoint is given: set the parameter 'checkpoint' to a trained model")
        if image_qos not in ("best_effort", "reliable"):
            raise ConfigError(f"image_qos is '{image_qos}': set it to best_effort or reliable")
        self._localizer = Localizer(Path(checkpoint), device)
        scene = scene or self._localizer.scenes[0]
        if reason := self._why_no_scene(scene):
            raise ConfigError(reason)
        self.set_parameters([Parameter("scene", value=scene)])
        self.add_on_set_parameters_callback(self._check_parameters)

        self._map_frame, self._base_frame = map_frame, base_frame
        self._camera_info: CameraInfo | None = None
        self._last_stamp: Time | None = None
        self._heard = False
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        self._tree = CameraTree(self._buffer, map_frame, Duration(seconds=transform_timeout))
        self._broadcaster = TransformBroadcaster(self) if publish_tf else None
        self._poses = self.create_publisher(PoseStamped, "pose", 10)
        reliability = ReliabilityPolicy[image_qos.upper()]
        self._image_subscription = self.create_subscription(
            Image,
            "image",
            self._on_image,
            QoSProfile(depth=1, reliability=reliability),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos),
        )
        self._info_subscription = self.create_subscription(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        self._silence_timer = self.create_timer(
            SILENCE, self._check_silence, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        if device == "auto" and self._localizer.device.type == "cpu":
            self.get_logger().info("no CUDA device found: running on the CPU")
        self.get_logger().info(
            f"ready in scene '{scene}' of {', '.join(self._localizer.scenes)}; "
            f"waiting for images on {self._image_subscription.topic_name}"
        )

    def _why_no_scene(self, scene: str) -> str:
        scenes = self._localizer.scenes
        return "" if scene in scenes else f"unknown scene '{scene}': this checkpoint has {', '.join(scenes)}"

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "scene":
                if reason := self._why_no_scene(parameter.value):
                    return SetParametersResult(successful=False, reason=reason)
                self.get_logger().info(f"localizing in scene '{parameter.value}' from here on")
        return SetParametersResult(successful=True)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_image(self, message: Image) -> None:
        stamp = Time.from_msg(message.header.stamp)
        if self._last_stamp is not None and self._last_stamp - stamp > JUMP_BACK:
            self.get_logger().info("image stamps jumped back: forgetting the old transforms")
            self._buffer.clear()
        self._last_stamp = stamp
        self._heard = True
        self._worker.put(message)

    def _on_incompatible_qos(self, _: Any) -> None:
        self.get_logger().warning(
            f"a publisher of {self._image_subscription.topic_name} does not offer reliable delivery: "
            "set image_qos to best_effort"
        )

    def _check_silence(self) -> None:
        if not self._heard:
            topic = self._image_subscription.topic_name
            cause = (
                "its publisher sends nothing that gets here, check the camera driver and the DDS profile"
                if self.count_publishers(topic)
                else "nobody publishes it, start the camera or remap 'image'"
            )
            self.get_logger().warning(f"no image on {topic} for {SILENCE:g} s: {cause}")
        self._heard = False

    def _localize(self, message: Image) -> None:
        log = self.get_logger()
        if self._camera_info is None:
            topic = self._info_subscription.topic_name
            log.warning(
                f"images arrive, but no camera_info on {topic}: remap 'camera_info' to the camera's",
                throttle_duration_sec=SILENCE,
            )
            return
        scene = self.get_parameter("scene").value
        try:
            image, camera = rgb_array(message), camera_from_info(self._camera_info)
            localization = self._localizer.localize(image, camera, scene)
        except OfvlError as error:
            log.warning(f"image ignored: {error}", throttle_duration_sec=SILENCE)
            return
        if localization.world_from_camera is None:
            log.warning(f"no pose: {localization.reason}", throttle_duration_sec=SILENCE)
        elif scene == self.get_parameter("scene").value:  # else the pose is one of the scene just left
            self._publish(localization.world_from_camera, message)

    def _publish(self, map_from_camera: Array, image: Image) -> None:
        camera_frame, stamp = image.header.frame_id, image.header.stamp
        base_frame = self._base_frame or camera_frame
        try:
            map_from_base = map_from_camera @ self._tree.transform(camera_frame, base_frame, stamp)
            self._poses.publish(pose_stamped(map_from_base, self._map_frame, stamp))
        except TransformException as error:
            self.get_logger().warning(
                f"no pose published, tf does not lead from '{camera_frame}' to '{base_frame}' ({error}): "
                "start the robot's tf, or set base_frame to '' for the camera's own pose",
                throttle_duration_sec=SILENCE,
            )
        if self._broadcaster is None:
            return
        try:
            transform = self._tree.attach_map(map_from_camera, camera_frame, stamp)
        except TransformException as error:
            self.get_logger().warning(
                f"map not broadcast, the camera's tf tree does not reach the image's time ({error}): "
                "check the odometry's stamps or raise transform_timeout",
                throttle_duration_sec=SILENCE,
            )
        else:
            if transform is not None:
                self._broadcaster.sendTransform(transform)

    def _log_failure(self, error: Exception) -> None:
        if self.context.ok():  # publishing fails while the node shuts down, which is nobody's concern
            trace = "".join(traceback.format_exception(error))
            self.get_logger().error(f"image dropped, this is a bug: {trace}", throttle_duration_sec=SILENCE)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process; return its exit code."""
    return process.run(NAME, LocalizerNode, args)


if __name__ == "__main__":
    sys.exit(main())
