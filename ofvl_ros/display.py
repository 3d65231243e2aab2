"""What a localization looks like in RViz: the scene as the network sees it, the cells, the pose."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ofvl_core import drawing
from ofvl_core.camera import Camera
from ofvl_ros.images import rgb_message
from ofvl_ros.messages import pose

if TYPE_CHECKING:  # torch takes seconds to import, in which an interrupt would end in a traceback
    from ofvl_core.localizer import Localization

FRUSTUM_LENGTH = 0.3
"""Metres from the camera to the picture that is drawn for it."""

_FIELDS = ("x", "y", "z", "rgb", "uncertainty", "inlier")
_POINT = np.dtype([(name, "<u4" if name == "rgb" else "<f4") for name in _FIELDS])
"""A point of the cloud. PCL and RViz read a colour from the bytes of what is announced as a float."""

_FRUSTUM_EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1]


def scene_coordinates_cloud(
    localization: Localization, image_rgb: NDArray[np.uint8], frame: str, stamp: Time
) -> PointCloud2:
    """A point for every cell whose scene coordinate is finite, coloured as the image (H, W, 3) is there.

    `uncertainty` is in metres and `inlier` 1 where the cell agrees with the pose, else 0.
    """
    cells = localization.cells
    finite = np.isfinite(cells.scene_coordinates).all(axis=1)
    height, width = image_rgb.shape[:2]
    u, v = np.rint(cells.pixels[finite]).astype(int).T
    colours = image_rgb[v.clip(0, height - 1), u.clip(0, width - 1)].astype(np.uint32)
    points = np.zeros(finite.sum(), _POINT)
    points["x"], points["y"], points["z"] = cells.scene_coordinates[finite].T
    points["rgb"] = colours @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    points["uncertainty"] = cells.uncertainties[finite]
    points["inlier"] = cells.inliers[finite]
    message = PointCloud2(
        header=Header(frame_id=frame, stamp=stamp),
        height=1,
        width=len(points),
        point_step=_POINT.itemsize,
        row_step=points.nbytes,
        is_dense=True,
    )
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(_FIELDS)
    ]
    message.data = array.array("B", points.tobytes())
    return message


def overlay(
    localization: Localization, image_rgb: NDArray[np.uint8], state: str, frame: str, stamp: Time
) -> Image:
    """The picture that `ofvl_core.drawing` makes of the image; `frame` is the camera's."""
    return rgb_message(drawing.picture(localization, image_rgb, state), frame, stamp)


def markers(
    localization: Localization | None, camera: Camera | None, state: str, frame: str, stamp: Time
) -> MarkerArray:
    """The camera at its pose, the ellipsoid that holds it with 95 %, and its scene and `state` as text.

    Without a localization or its pose they are taken away.
    """
    header = Header(frame_id=frame, stamp=stamp)
    kinds = {"camera": Marker.LINE_LIST, "covariance": Marker.SPHERE, "state": Marker.TEXT_VIEW_FACING}
    made = {name: Marker(header=header, ns=name, type=kind) for name, kind in kinds.items()}
    result = MarkerArray(markers=list(made.values()))
    if (
        localization is None
        or camera is None
        or localization.world_from_camera is None
        or localization.covariance is None
    ):
        for marker in result.markers:
            marker.action = Marker.DELETE
        return result
    world_from_camera = localization.world_from_camera

    made["camera"].pose = pose(world_from_camera)
    made["camera"].scale.x = 0.01
    made["camera"].color = ColorRGBA(r=0.2, g=0.8, b=1.0, a=1.0)
    corners = [Point(x=x, y=y, z=z) for x, y, z in drawing.frustum(camera, FRUSTUM_LENGTH).tolist()]
    made["camera"].points = [corners[index] for index in _FRUSTUM_EDGES]

    half_axes, directions = drawing.ellipsoid(localization.covariance[:3, :3])
    world_from_ellipsoid = world_from_camera.copy()
    world_from_ellipsoid[:3, :3] = directions
    made["covariance"].pose = pose(world_from_ellipsoid)
    scale = made["covariance"].scale
    scale.x, scale.y, scale.z = np.maximum(2 * half_axes, 1e-3).tolist()  # RViz refuses bodies without volume
    made["covariance"].color = ColorRGBA(r=1.0, g=0.8, b=0.2, a=0.4)

    made["state"].pose.position = pose(world_from_camera).position
    made["state"].pose.position.z += FRUSTUM_LENGTH
    made["state"].scale.z = 0.1
    made["state"].color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    made["state"].text = f"{localization.scene}: {state}"
    return result
