"""What becomes of one camera image: decode, localize, trust, track."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from numpy.typing import NDArray
from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo

from ofvl_core.camera import Camera
from ofvl_core.covariance import carried
from ofvl_core.errors import ConfigError, OfvlError
from ofvl_core.fusion import Fix
from ofvl_core.geometry import Array, quaternion_xyzw
from ofvl_core.keyframes import Search
from ofvl_core.localizer import Localization, Localizer
from ofvl_core.recognition import SceneSearch
from ofvl_core.tracking import Track, Tracker, TrackingOptions
from ofvl_core.trust import TrustOptions, distrust
from ofvl_ros.frames import CameraTree, MapTransform, map_frame
from ofvl_ros.health import Health
from ofvl_ros.inputs import Shot
from ofvl_ros.localizer_parameters import AUTO, options
from ofvl_ros.shots import Stop, decode, require_frame, transform_at

LOOK_AROUND_PERIOD = 1.0
"""Seconds between two tests of all scenes while the one that was set does not fit."""


class Pose(NamedTuple):
    """map_from_base at the image's stamp with its covariance: the `best` estimate, and this image's own."""

    best: Array
    best_covariance: Array
    single: Array
    single_covariance: Array


@dataclass(frozen=True)
class Outcome:
    """What became of an image, in one of the `states.LEVELS`. Only 'localized' has a `pose`."""

    state: str
    reason: str
    scene: str
    stamp: TimeMessage
    camera_frame: str
    map_frame: str = ""
    image: NDArray[np.uint8] | None = None
    camera: Camera | None = None
    localization: Localization | None = None
    pose: Pose | None = None
    map_transform: MapTransform | None = None
    is_found: bool = False
    """The first pose in a scene, or the first after having been lost or carried away."""

    def as_dict(self) -> dict[str, Any]:
        """What a program would like to read of it."""
        content: dict[str, Any] = {"state": self.state, "reason": self.reason, "scene": self.scene}
        if self.pose is not None:
            content |= {
                "frame": self.map_frame,
                "position": self.pose.best[:3, 3].tolist(),
                "quaternion_xyzw": quaternion_xyzw(self.pose.best).tolist(),
                "standard_deviations": np.sqrt(np.diag(self.pose.best_covariance)).tolist(),
            }
        return content


class Pipeline:
    """Localizes shots one after another, and remembers what they say together.

    `parameter` gives the current value of one of the node's parameters. `later` may be called from any
    thread; everything else belongs to the worker's.
    """

    def __init__(
        self,
        localizer: Localizer,
        tree: CameraTree,
        clock: Clock,
        health: Health,
        parameter: Callable[[str], Any],
    ) -> None:
        self.localizer = localizer
        self._tree, self._clock, self._health, self._parameter = tree, clock, health, parameter
        self._requests: deque[Callable[[], None]] = deque()
        self._prior: Fix | None = None
        self._looked_around = -np.inf
        self._wanted = self._choices()
        self.start_over()

    # ------------------------------------------------------------------------------------- requests

    def later(self, request: Callable[[], None]) -> None:
        """Have something done before the next image."""
        self._requests.append(request)

    def start_over(self) -> None:
        """Forget what earlier images said."""
        scene, is_continuous = self._wanted
        self._enter("" if scene == AUTO else scene)
        self._was_found, self._prior = False, None
        self._search = SceneSearch(self.localizer.manifest)
        tracking = options(TrackingOptions, self._parameter)
        if not is_continuous:
            tracking = replace(tracking, start_fixes=1)  # who asks for one image wants its pose
        self._tracker = Tracker(tracking)

    def replace_localizer(self, localizer: Localizer) -> None:
        """Use another checkpoint from the next image on."""
        self.localizer.release()
        self.localizer = localizer
        self.start_over()

    def release(self) -> None:
        """Give the device's memory back."""
        self.localizer.release()

    def take_prior(self, prior: Fix) -> None:
        """Believe that the robot is where somebody says, from the next image on."""
        self._prior = prior

    # --------------------------------------------------------------------------------------- images

    def process(self, shot: Shot, info: CameraInfo | None) -> Outcome:
        """What becomes of a shot, whose camera is described by `info`."""
        while self._requests:
            self._requests.popleft()()
        if self._wanted != (wanted := self._choices()):
            self._wanted = wanted
            self.start_over()
        header = shot.image.header
        found: dict[str, Any] = {"stamp": header.stamp, "camera_frame": header.frame_id}
        try:
            require_frame(shot)
            self._require_timely(shot)
            began = time.monotonic()
            found["image"], found["camera"], depth = decode(shot, info)
            decoded = time.monotonic()
            self._health.took("decoding", decoded - began)
            try:
                localization = self._localize(depth, found)
            finally:
                self._health.took("network and pose", time.monotonic() - decoded)
            believed = self._track(localization, depth, shot.stamp, found)
            if self._choices() != wanted:
                raise Stop("starting", "the scene was switched meanwhile")
            found |= believed
        except Stop as stop:
            return Outcome(stop.state, stop.reason, self._scene, **found)
        reason = f"in {self._scene}, {localization.agreement}"
        return Outcome("localized", reason, self._scene, **found)

    def watch(self, shot: Shot) -> None:
        """Follow the camera's tf tree while no image is asked for: it takes time to settle."""
        self._tree.has_odometry(shot.image.header.frame_id)

    def _choices(self) -> tuple[str, bool]:
        """What starts everything over when it changes: the scene asked for, and whether all images are."""
        return self._parameter("scene"), self._parameter("continuous")

    def _require_timely(self, shot: Shot) -> None:
        now = self._clock.now().nanoseconds * 1e-9
        age, limit = now - shot.stamp, self._parameter("max_image_age")
        if now > 0 and abs(age) > limit:  # a clock that follows /clock is 0 before the first message
            when = f"{age:.1f} s old" if age > 0 else f"stamped {-age:.1f} s ahead of the clock"
            raise Stop(
                "stale image",
                f"the image is {when}, max_image_age is {limit:g} s: synchronise the clocks, or set "
                "use_sim_time when a bag plays",
            )

    def _localize(self, depth: NDArray[np.float32] | None, found: dict[str, Any]) -> Localization:
        """The image's localization in the scene; finds the scene first where it is not known."""
        image, camera = found["image"], found["camera"]
        try:
            if self._scene:
                localization = self.localizer.localize_in_each(image, camera, [self._scene], depth)[0]
                self._doubt_scene(localization, camera)
            else:
                localization = self._find_scene(image, camera, depth)
            if not self._wanted[1]:
                self.localizer.finish_describing()
            localization = self.localizer.refined(
                localization, image, camera, depth, self._search_of_keyframes()
            )
        except OfvlError as error:
            raise Stop("bad image", str(error)) from None
        found["localization"] = localization
        found["map_frame"] = map_frame(self._parameter("map_frame"), self._scene)
        return localization

    def _enter(self, scene: str) -> None:
        self._scene = scene
        self.localizer.describe_ahead(scene)

    def _search_of_keyframes(self) -> Search:
        """A track or a prior tells places apart that look alike. Without one the image must."""
        _, is_continuous = self._wanted
        if self._prior is not None:
            return "lost"
        if not is_continuous or not self._tracker.has_track or self._tracker.is_contradicted:
            return "always"
        return "never" if self._tracker.is_located else "lost"

    def _doubt_scene(self, localization: Localization, camera: Camera) -> None:
        """A scene that was found must go on fitting what the camera sees; one that was set is not doubted."""
        if self._wanted[0] != AUTO:
            return
        self._search.update([localization], camera)
        if self._scene not in self._search.candidates:
            left = self._scene
            self.start_over()
            raise Stop("searching", f"what the camera sees does not fit {left} any more")

    def _find_scene(
        self, image: NDArray[np.uint8], camera: Camera, depth: NDArray[np.float32] | None
    ) -> Localization:
        candidates = self._search.candidates
        localizations = self.localizer.localize_in_each(image, camera, candidates, depth)
        self._search.update(localizations, camera)
        if self._search.answer is None:
            if self._search.unknown:
                raise Stop("unknown scene", "what the camera sees fits none of the checkpoint's scenes")
            raise Stop("searching", f"testing which of {', '.join(candidates)} it is")
        self._enter(self._search.answer)
        return next(found for found in localizations if found.scene == self._scene)

    # ------------------------------------------------------------------------------- trust and track

    def _track(
        self,
        localization: Localization,
        depth: NDArray[np.float32] | None,
        taken_at: float,
        found: dict[str, Any],
    ) -> dict[str, Any]:
        """What of an Outcome says where the robot is, if the localization may be believed."""
        camera_frame, stamp = found["camera_frame"], found["stamp"]
        base_frame = self._parameter("base_frame") or camera_frame
        camera_from_base = transform_at(self._tree, camera_frame, base_frame, stamp)
        odom_from_base = None
        if self._tree.has_odometry(camera_frame):
            odom_from_base = transform_at(self._tree, self._parameter("odom_frame"), base_frame, stamp)
        if self._prior is not None:
            self._tracker.prior(taken_at, odom_from_base, self._prior)
            self._prior = None
        doubt = distrust(localization, options(TrustOptions, self._parameter))
        fix = None if doubt else _fix(localization, camera_from_base)
        track = self._tracker.update(taken_at, odom_from_base, fix)
        if track.map_from_base is None or fix is None:
            if doubt and self._wanted[0] == AUTO and track.state == "lost":
                self.start_over()
            elif doubt and self._wanted[0] != AUTO and track.state in ("starting", "lost"):
                self._look_around(found, depth)
            state = "rejected" if track.state == "tracking" else track.state
            raise Stop(state, doubt or track.reason or "")
        assert track.covariance is not None
        map_transform = self._map_transform(track, camera_frame, base_frame, stamp)
        is_found, self._was_found = track.is_recovery or not self._was_found, True
        return {
            "pose": Pose(track.map_from_base, track.covariance, fix.map_from_base, fix.covariance),
            "map_transform": map_transform,
            "is_found": is_found,
        }

    def _map_transform(
        self, track: Track, camera_frame: str, base_frame: str, stamp: TimeMessage
    ) -> MapTransform | None:
        """The transform that puts the map where the track says."""
        try:
            child = self._tree.map_child(camera_frame)
        except ConfigError as error:
            raise Stop("no transform", str(error)) from None
        if child is None:
            return None
        if child == self._parameter("odom_frame") and track.map_from_odom is not None:
            return MapTransform(track.map_from_odom, child, lasts=True)
        assert track.map_from_base is not None
        return MapTransform(
            track.map_from_base @ transform_at(self._tree, base_frame, child, stamp), child, lasts=False
        )

    def _look_around(self, found: dict[str, Any], depth: NDArray[np.float32] | None) -> None:
        """Maybe the camera sees another scene than the one that was set. Testing all of them takes long."""
        now, image, camera = time.monotonic(), found["image"], found["camera"]
        if len(self.localizer.scenes) > 1 and now - self._looked_around >= LOOK_AROUND_PERIOD:
            self._looked_around = now
            try:
                seen = self.localizer.localize_in_each(image, camera, self._search.candidates, depth)
            except OfvlError as error:
                raise Stop("bad image", str(error)) from None
            self._search.update(seen, camera)
        if self._search.answer not in (None, self._scene):
            raise Stop(
                "wrong scene",
                f"the images look like '{self._search.answer}': set the parameter scene to it, or to {AUTO}",
            )


def _fix(localization: Localization, camera_from_base: Array) -> Fix:
    """The base's pose by a localization that has one."""
    map_from_camera, covariance = localization.world_from_camera, localization.covariance
    assert map_from_camera is not None and covariance is not None
    return Fix(map_from_camera @ camera_from_base, carried(covariance, map_from_camera, camera_from_base))
