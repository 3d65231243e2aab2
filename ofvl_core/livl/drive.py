"""One recorded drive, as the builder sees it: camera, LiDAR, where they sit, images and scans in order."""

import logging
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets.images import MILLIMETRE, millimetres
from ofvl_core.datasets.registration import DepthRegistration
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array
from ofvl_core.lidar.scan import Scan
from ofvl_core.livl.calibration import Calibration
from ofvl_core.livl.survey import Pair, pairs
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.clock import ordered
from ofvl_core.recording.clouds import scan_from_cloud
from ofvl_core.recording.images import depth_array, rgb_array
from ofvl_core.recording.messages import camera_from_info, frame_name, stamp_ns
from ofvl_core.recording.tf_tree import TfTree
from ofvl_core.recording.topics import choose_topics

logger = logging.getLogger(__name__)

MARK_TOPIC = "/ofvl/mark"
"""On which the recorder notes, as "train" or "test", what a drive is for from then on."""

SPLITS = ("train", "test")


class Stretch(NamedTuple):
    """A part of a drive that is one sequence: stamps from `start` to before `end`, ns."""

    split: str
    start: int
    end: int


class Drive:
    """A bag with a camera and perhaps a LiDAR; a context manager.

    Raises DataError when something needed is missing, naming what the bag holds instead.
    """

    def __init__(
        self, bag: Path, names: dict[str, str], calibration: Calibration | None, lidar: bool
    ) -> None:
        """`names` are topics by role, where the user named them; with `lidar` there must be one."""
        self.bag = bag
        self.recording = Recording(bag)
        try:
            self.topics = choose_topics(self.recording, names, lidar)
            self.tree = TfTree.from_recording(self.recording)
            for parent, child, parent_from_child in calibration.transforms if calibration else []:
                self.tree.set_static(parent, child, parent_from_child)
            self.has_lidar = bool(self.topics.cloud) and self._knows_lidar(lidar)
        except BaseException:
            self.recording.close()
            raise

    def __enter__(self) -> "Drive":
        return self

    def __exit__(self, *_: object) -> None:
        self.recording.close()

    @property
    def name(self) -> str:
        """What people call the drive: the bag's name."""
        return self.bag.stem if self.bag.suffix in (".bag", ".mcap", ".db3") else self.bag.name

    @cached_property
    def camera(self) -> Camera:
        """The colour camera."""
        return camera_from_info(self._first(self.topics.color_info))

    @cached_property
    def camera_frame(self) -> str:
        """The colour camera's optical frame."""
        return self._frame_of(self.topics.color)

    @cached_property
    def lidar_frame(self) -> str:
        """The LiDAR's frame."""
        return self._frame_of(self.topics.cloud)

    @cached_property
    def base_frame(self) -> str:
        """The robot: the root of the static tree that carries the camera."""
        return self.tree.root(self.camera_frame)

    @property
    def image_count(self) -> int:
        """How many colour images were recorded."""
        return self.recording.topics[self.topics.color].count

    @property
    def scan_count(self) -> int:
        """How many revolutions of the LiDAR were recorded."""
        return self.recording.topics[self.topics.cloud].count

    @cached_property
    def registration(self) -> DepthRegistration | None:
        """What brings the depth images to the colour camera; None where they are aligned already."""
        if self.topics.depth_is_aligned:
            return None
        color_from_depth = self.tree.static(self.camera_frame, self._frame_of(self.topics.depth))
        return DepthRegistration(self._depth_camera, self.camera, color_from_depth)

    def read_color(self, message: Any) -> NDArray[np.uint8]:
        """RGB (H, W, 3). Raises DataError when it has not the size that camera_info says."""
        rgb = rgb_array(message)
        self._check_size(self.topics.color, rgb, self.camera)
        return rgb

    def read_depth(self, message: Any) -> NDArray[np.float32]:
        """Metres (h, w) along the colour camera's axis, NaN where unknown, over its whole field of view.

        Raises DataError when the image has not the size that camera_info says.
        """
        depth = depth_array(message)
        self._check_size(self.topics.depth, depth, self._depth_camera)
        if self.registration is None:
            return depth
        registered = self.registration(millimetres(depth))
        return np.where(registered > 0, registered * MILLIMETRE, np.nan).astype(np.float32)

    def images(self) -> Iterator[Pair]:
        """Colour images with their depth, as stamped by the camera."""
        stamped = ordered(self.recording.messages([self.topics.color, self.topics.depth]))
        return pairs((topic == self.topics.depth, stamp, message) for topic, stamp, message in stamped)

    def scans(self) -> Iterator[Scan]:
        """The LiDAR's revolutions."""
        for _, stamp, message in ordered(self.recording.messages([self.topics.cloud])):
            yield scan_from_cloud(message, stamp)

    def stretches(self, split: str, stamps: NDArray[np.int64]) -> list[Stretch]:
        """The sequences in a drive whose images have these stamps: as marked, else all of it for `split`."""
        marks = self._marks() or [(split, 0)]
        starts = [int(stamps[0]), *(start for _, start in marks[1:]), int(stamps[-1]) + 1]
        return [
            Stretch(split, start, end)
            for (split, _), (start, end) in zip(marks, pairwise(starts), strict=True)
            if ((stamps >= start) & (stamps < end)).any()
        ]

    def _marks(self) -> list[tuple[str, int]]:
        """Each mark that an image came after, with that image's stamp."""
        if MARK_TOPIC not in self.recording.topics:
            return []
        marks, newest = [], ""
        for topic, stamp, message in self.recording.messages([MARK_TOPIC, self.topics.color]):
            if topic == MARK_TOPIC:
                newest = str(message.data)
            elif newest in SPLITS:
                marks.append((newest, stamp_ns(message) or stamp))
                newest = ""
        return marks

    def body_from_camera(self, body: str) -> Array:
        """Where the camera sits, seen from another frame. Raises DataError when nothing says so."""
        try:
            return self.tree.static(body, self.camera_frame)
        except DataError as error:
            raise DataError(
                f"{self.bag}: {error}; or give --calibration, see config/camera_lidar.yaml"
            ) from None

    @cached_property
    def _depth_camera(self) -> Camera:
        return camera_from_info(self._first(self.topics.depth_info))

    def _check_size(self, topic: str, image: NDArray, camera: Camera) -> None:
        height, width = image.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise DataError(
                f"{self.bag}: an image of {topic} is {width}x{height} but its camera_info says "
                f"{camera.width}x{camera.height}; record each resolution in a bag of its own"
            )

    def _knows_lidar(self, needed: bool) -> bool:
        """Whether something says where the LiDAR sits. Raises DataError when it does not and is needed."""
        try:
            self.body_from_camera(self.lidar_frame)
        except DataError as error:
            if needed:
                raise
            logger.warning("the LiDAR is left out: %s", error)
            return False
        return True

    def _first(self, topic: str) -> Any:
        message = self.recording.first(topic)
        if message is None:
            raise DataError(f"{self.bag}: no message of {topic} can be read; record it again")
        return message

    def _frame_of(self, topic: str) -> str:
        return frame_name(self._first(topic).header.frame_id)
