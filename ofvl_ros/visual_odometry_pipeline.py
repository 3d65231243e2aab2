"""What becomes of one camera image in visual odometry: decode, estimate, add up, find the scale."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import CameraInfo

from ofvl_core.collaborative.odometry import OdometryOptions, Reading, VisualOdometry
from ofvl_core.collaborative.scale import ScaleEstimator
from ofvl_core.covariance import carried
from ofvl_core.errors import ConfigError, OfvlError
from ofvl_core.fusion import Fix
from ofvl_core.geometry import Array, invert
from ofvl_core.recording.messages import stamp_ns
from ofvl_ros.frames import CameraTree, map_frame
from ofvl_ros.inputs import Shot
from ofvl_ros.localizer_parameters import AUTO
from ofvl_ros.messages import pose_matrix, prior_covariance
from ofvl_ros.shots import Stop, decode, require_frame, transform_at

if TYPE_CHECKING:
    from ofvl_core.collaborative.estimator import Estimate, Estimator

JUMP_BACK = 1_000_000_000
"""Nanoseconds by which a stamp may be older than the latest; one older still means that time starts again."""

MOST_REQUESTS = 100
"""Fixes that wait for an image; without images the oldest are forgotten."""

UNKNOWN_SCALE = 0.7
"""Standard deviation of the scale's logarithm where training did not measure it: about a factor of two."""

UNKNOWN_POSITION, UNKNOWN_ROTATION = 1.0, 0.35
"""Metres and radians of a relocalized pose where training did not measure them."""

UNKNOWN_INTERVAL = 0.1
"""Seconds between two images of a training whose scene has no times."""


@dataclass(frozen=True)
class Outcome:
    """What became of an image, in one of `visual_odometry_states.LEVELS`.

    Without a `reading` nothing is known of the motion. `base_frame` is the frame it is of, whose transform is
    to be broadcast where `is_for_tf`. The depth of the `estimate` has the scale that is believed now.
    `relocalized` is map_from_base in `map_frame`.
    """

    state: str
    reason: str
    stamp: TimeMessage
    camera_frame: str
    base_frame: str = ""
    reading: Reading | None = None
    is_for_tf: bool = False
    estimate: "Estimate | None" = None
    relocalized: Fix | None = None
    map_frame: str = ""


class VisualOdometryPipeline:
    """Handles shots one after another. `parameters` are those of the node. `tree` has the tf_mode
    map_to_base, or none where nothing is broadcast.

    `later` may be called from any thread; everything else belongs to the worker's. Raises ConfigError for a
    scene that the checkpoint does not have.
    """

    def __init__(self, estimator: "Estimator", tree: CameraTree, parameters: dict[str, Any]) -> None:
        self._estimator, self._tree, self._parameters = estimator, tree, parameters
        self._scene = _chosen_scene(parameters["scene"], estimator.scenes)
        self._map_frame = map_frame(parameters["map_frame"], self._scene)
        record = estimator.manifest.scene(self._scene)
        known = {} if record.accuracy is None else record.accuracy.model_dump(exclude_none=True)
        deviation = known.get("scale_deviation", UNKNOWN_SCALE)
        self._relocalized_covariance = _diagonal(
            known.get("position_deviation", UNKNOWN_POSITION),
            known.get("orientation_deviation", UNKNOWN_ROTATION),
        )
        options = {name: parameters[name] for name in ("rest_distance", "rest_angle")}
        options |= {name: known[name] for name in ("scale_deviation", "rotation_deviation") if name in known}
        self._max_gap = parameters["max_gap"] * (record.interval or UNKNOWN_INTERVAL)
        self.scale = ScaleEstimator(deviation, parameters["scale_window"])
        self._odometry = VisualOdometry(OdometryOptions(**options, max_gap=self._max_gap), self.scale)
        self._requests: deque[Callable[[], None]] = deque(maxlen=MOST_REQUESTS)
        self._stamp = 0
        self._camera_frame = self._fix_frame = ""
        self._may_broadcast = False

    def later(self, request: Callable[[], None]) -> None:
        """Have something done before the next image."""
        self._requests.append(request)

    def start_over(self) -> None:
        """Time starts again: so does the path."""
        self._estimator.reset()
        self._odometry.start_over()
        self.scale.start_over()
        self._stamp = 0

    def take_fix(self, message: PoseWithCovarianceStamped) -> None:
        """Somebody else says where the base is. Raises ConfigError when the message makes no sense."""
        frame = message.header.frame_id
        if frame == self._parameters["odom_frame"]:
            raise ConfigError(
                f"it is given in '{frame}', where odometry itself is: remap fix to a pose in the map that is "
                "not fused with odometry"
            )
        map_from_base, covariance = pose_matrix(message.pose.pose), prior_covariance(message.pose)
        if self._fix_frame and frame != self._fix_frame:
            self.scale.start_over()
        self._fix_frame = frame
        if not self._camera_frame:
            return
        base_frame = self._parameters["base_frame"] or self._camera_frame
        try:
            base_from_camera = transform_at(self._tree, base_frame, self._camera_frame, message.header.stamp)
        except Stop as stop:
            raise ConfigError(stop.reason) from None
        self.scale.take(stamp_ns(message), _carried(Fix(map_from_base, covariance), base_from_camera))

    def process(self, shot: Shot, info: CameraInfo | None) -> Outcome:
        """What becomes of a shot, whose camera is described by `info`."""
        while self._requests:
            self._requests.popleft()()
        header = shot.image.header
        try:
            return self._follow(shot, info)
        except Stop as stop:
            return Outcome(stop.state, stop.reason, header.stamp, header.frame_id)

    def _follow(self, shot: Shot, info: CameraInfo | None) -> Outcome:
        frame, header = require_frame(shot), shot.image.header
        stamp = stamp_ns(shot.image)
        if self._stamp - stamp > JUMP_BACK:
            self.start_over()
        if not self._odometry.follows(stamp):
            raise Stop("bad image", "its stamp is not newer than the latest: look after the camera's clock")
        view = decode(shot, info)
        base_frame = self._parameters["base_frame"] or frame
        base_from_camera = transform_at(self._tree, base_frame, frame, header.stamp)
        if not self._odometry.is_near(stamp):
            self._estimator.reset()  # or it would measure a motion that it was not trained for
        try:
            estimate = self._estimator.estimate(view.image, view.camera, self._scene)
        except OfvlError as error:
            raise Stop("bad image", str(error)) from None
        self._stamp, self._camera_frame = stamp, frame
        is_first = self._odometry.is_empty
        reading = self._odometry.update(stamp, estimate.previous_from_current, base_from_camera)
        if not reading.is_anchor:
            self._estimator.hold()
        relocalized = self._relocalized(stamp, estimate.world_from_camera, base_from_camera)
        state, reason = self._judge(reading, is_first)
        try:
            is_for_tf = self._broadcasts(frame)
        except ConfigError:
            is_for_tf, state = False, "no transform"
            reason = (
                f"'{base_frame}' already has a parent in tf, and a frame has one: set publish_tf to false "
                "where other odometry runs, or base_frame to the root of the camera's tree"
            )
        return Outcome(
            state,
            reason,
            header.stamp,
            frame,
            base_frame,
            reading,
            is_for_tf,
            replace(estimate, depth=np.float32(self.scale.scale) * estimate.depth),
            relocalized,
            self._map_frame,
        )

    def _judge(self, reading: Reading, is_first: bool) -> tuple[str, str]:
        if is_first:
            return "starting", "the path begins with this image"
        if reading.unseen:
            return "coasting", (
                f"no motion was measured for {reading.unseen:.2f} s, images may be {self._max_gap:.2f} s "
                "apart: see that they arrive in time, or raise max_gap"
            )
        rests = "resting" if reading.is_resting else "moving"
        scale = self.scale
        return (
            rests,
            f"scale {scale.scale:.2f}, known to {100 * scale.deviation:.0f} %, by {scale.fixes} fixes",
        )

    def _relocalized(
        self, stamp: int, world_from_camera: Array | None, base_from_camera: Array
    ) -> Fix | None:
        if world_from_camera is None or not np.isfinite(world_from_camera).all():
            return None
        fix = Fix(world_from_camera, self._relocalized_covariance)
        if self._parameters["scale_from"] == "relocalization":
            self.scale.take(stamp, fix)
        return _carried(fix, invert(base_from_camera))

    def _broadcasts(self, camera_frame: str) -> bool:
        """Whether tf is ours to tell; asked once, since our own transforms come back. Raises ConfigError."""
        self._may_broadcast = self._may_broadcast or self._tree.map_child(camera_frame) is not None
        return self._may_broadcast


def _chosen_scene(asked_for: str, known: list[str]) -> str:
    if asked_for == AUTO and len(known) == 1:
        return known[0]
    if asked_for not in known:
        raise ConfigError(
            f"scene is '{asked_for}', the checkpoint has {', '.join(known)}: set the parameter scene to one"
        )
    return asked_for


def _diagonal(position: float, rotation: float) -> Array:
    return np.diag(np.repeat(np.square([position, rotation]), 3))


def _carried(fix: Fix, body_from_other: Array) -> Fix:
    """The fix of another body that sits on the first."""
    return Fix(
        fix.map_from_base @ body_from_other, carried(fix.covariance, fix.map_from_base, body_from_other)
    )
