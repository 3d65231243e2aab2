"""What a shot must have to be of use: pixels, a camera, and transforms at its stamp; or why it is of none."""

from typing import NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from tf2_ros import TransformException

from ofvl_core.camera import Camera
from ofvl_core.errors import OfvlError
from ofvl_core.geometry import Array
from ofvl_ros.frames import CameraTree
from ofvl_ros.images import depth_array, rgb_array
from ofvl_ros.inputs import Shot
from ofvl_ros.messages import camera_from_info


class Stop(Exception):  # noqa: N818  no error: it ends the work on an image
    """Nothing more can be made of this image: the state that a node is in for it, and the reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason


class View(NamedTuple):
    """A shot decoded: RGB image (H, W, 3), its camera, and depth (H', W') in metres where there is some."""

    image: NDArray[np.uint8]
    camera: Camera
    depth: NDArray[np.float32] | None


def require_frame(shot: Shot) -> str:
    """The camera's optical frame. Raises Stop where the image does not name it."""
    frame: str = shot.image.header.frame_id
    if not frame:
        raise Stop("bad image", "the image's header names no frame: set the camera driver's frame_id")
    return frame


def decode(shot: Shot, info: CameraInfo | None) -> View:
    """The shot as arrays, of the camera that `info` describes. Raises Stop where either makes no sense."""
    if info is None:
        raise Stop("no camera_info", "images arrive without: remap camera_info to the camera's")
    try:
        camera = camera_from_info(info)
    except OfvlError as error:
        raise Stop("no camera_info", str(error)) from None
    try:
        return View(rgb_array(shot.image), camera, None if shot.depth is None else depth_array(shot.depth))
    except OfvlError as error:
        raise Stop("bad image", str(error)) from None


def transform_at(tree: CameraTree, target: str, source: str, stamp: Time) -> Array:
    """target_from_source at a stamp. Raises Stop where tf does not know it."""
    try:
        return tree.transform(target, source, stamp)
    except TransformException as error:
        raise Stop(
            "no transform",
            f"tf does not lead from '{source}' to '{target}' at the image's stamp ({error}): start the "
            "robot's tf, check its stamps, or for a camera alone set base_frame to ''",
        ) from None
