"""Messages that show a localization in RViz."""

import array
from dataclasses import replace

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField
from test_drawing import CAMERA, localization
from visualization_msgs.msg import Marker, MarkerArray

from ofvl_core import drawing
from ofvl_core.geometry import apply, transform_from_rotation_vector
from ofvl_core.localizer import Localization
from ofvl_ros import display
from ofvl_ros.images import rgb_array
from ofvl_ros.messages import pose_matrix

STAMP = Time(sec=5, nanosec=6)


def image(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def column(cloud: PointCloud2, name: str, kind: str = "<f4") -> np.ndarray:
    """One field of a cloud, found as its readers do: by name, offset and step."""
    (field,) = [field for field in cloud.fields if field.name == name]
    assert (field.datatype, field.count) == (PointField.FLOAT32, 1)
    assert cloud.row_step == cloud.point_step * cloud.width == len(cloud.data)
    points = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.width * cloud.height, cloud.point_step)
    return np.ascontiguousarray(points[:, field.offset : field.offset + 4]).view(kind)[:, 0]


def seen() -> Localization:
    """A localization, on an image of 64x48, with a pose and a covariance that mean something."""
    shown = localization(64, 48, 8)
    root = np.random.default_rng(2).normal(size=(6, 6)) / 10
    pose = transform_from_rotation_vector((0.3, -0.2, 0.1), (1.0, 2.0, 3.0))
    return replace(shown, world_from_camera=pose, covariance=root @ root.T)


def test_the_cloud_holds_each_cell_in_the_colour_of_its_pixel() -> None:
    shown, pixels = seen(), image()
    cloud = display.scene_coordinates_cloud(shown, pixels, "map", STAMP)
    assert (cloud.header.frame_id, cloud.header.stamp, cloud.height) == ("map", STAMP, 1)
    assert cloud.is_dense and not cloud.is_bigendian
    assert isinstance(cloud.data, array.array)
    for axis, name in enumerate("xyz"):
        np.testing.assert_allclose(column(cloud, name), shown.cells.scene_coordinates[:, axis], rtol=1e-6)
    np.testing.assert_allclose(column(cloud, "uncertainty"), shown.cells.uncertainties, rtol=1e-6)
    np.testing.assert_array_equal(column(cloud, "inlier"), shown.cells.inliers)
    u, v = np.rint(shown.cells.pixels).astype(int).T
    blue, green, red, _ = column(cloud, "rgb", "<u4").view(np.uint8).reshape(-1, 4).T
    np.testing.assert_array_equal(np.stack([red, green, blue], axis=1), pixels[v, u])


def test_only_finite_coordinates_enter_the_cloud() -> None:
    shown = seen()
    shown.cells.scene_coordinates[[0, 3], [1, 2]] = np.nan, np.inf
    cloud = display.scene_coordinates_cloud(shown, image(), "map", STAMP)
    assert cloud.width == len(shown.cells.pixels) - 2
    assert np.isfinite(column(cloud, "x")).all()
    shown.cells.scene_coordinates[:] = np.nan
    assert display.scene_coordinates_cloud(shown, image(), "map", STAMP).width == 0


def test_cells_beyond_the_image_take_the_colour_of_its_rim() -> None:
    shown, pixels = seen(), image()
    shown.cells.pixels[0] = (63.9, 47.9)
    shown.cells.pixels[1] = (-3.0, -3.0)
    colours = column(display.scene_coordinates_cloud(shown, pixels, "map", STAMP), "rgb", "<u4")
    rim = [int.from_bytes(bytes(pixels[v, u]), "big") for v, u in ((47, 63), (0, 0))]
    np.testing.assert_array_equal(colours[:2], rim)


def test_the_overlay_is_the_picture() -> None:
    message = display.overlay(seen(), image(), "localized", "camera", STAMP)
    assert (message.header.frame_id, message.header.stamp) == ("camera", STAMP)
    np.testing.assert_array_equal(rgb_array(message), drawing.picture(seen(), image(), "localized"))


def named(markers: MarkerArray) -> dict[str, Marker]:
    return {marker.ns: marker for marker in markers.markers}


def test_markers_show_where_the_camera_is_and_how_surely() -> None:
    shown = seen()
    sent = display.markers(shown, CAMERA, "localized", "map", STAMP)
    markers = deserialize_message(serialize_message(sent), MarkerArray)
    for marker in markers.markers:
        assert (marker.header.frame_id, marker.header.stamp, marker.action) == ("map", STAMP, Marker.ADD)
        assert marker.color.a > 0
        position = marker.pose.position
        np.testing.assert_allclose((position.x, position.y), shown.world_from_camera[:2, 3])
        np.testing.assert_allclose(np.linalg.norm(pose_matrix(marker.pose)[:3, :3], axis=0), 1)
    camera, covariance, state = (named(markers)[name] for name in ("camera", "covariance", "state"))

    lines = np.array([(point.x, point.y, point.z) for point in camera.points])
    assert len(lines) % 2 == 0
    np.testing.assert_allclose(pose_matrix(camera.pose), shown.world_from_camera, atol=1e-12)
    assert {tuple(corner) for corner in lines} == set(map(tuple, drawing.frustum(CAMERA, 0.3).tolist()))

    # The ellipsoid's own points lie where the covariance says that 95 % end.
    axes = np.diag([covariance.scale.x, covariance.scale.y, covariance.scale.z]) / 2
    rim = apply(pose_matrix(covariance.pose), axes) - shown.world_from_camera[:3, 3]
    distances = np.einsum("ni,ij,nj->n", rim, np.linalg.inv(shown.covariance[:3, :3]), rim)
    np.testing.assert_allclose(distances, 7.815, atol=0.001)

    assert state.text == "room: localized"
    assert state.pose.position.z > shown.world_from_camera[2, 3]


def test_a_certain_pose_is_still_drawn() -> None:
    certain = replace(seen(), covariance=np.zeros((6, 6)))
    scale = named(display.markers(certain, CAMERA, "localized", "map", STAMP))["covariance"].scale
    assert min(scale.x, scale.y, scale.z) > 0


def test_lost_the_markers_go() -> None:
    shown = {(marker.ns, marker.id) for marker in display.markers(seen(), CAMERA, "", "map", STAMP).markers}
    for lost in (None, replace(seen(), world_from_camera=None, covariance=None)):
        markers = display.markers(lost, CAMERA, "lost", "map", STAMP).markers
        assert {(marker.ns, marker.id) for marker in markers} == shown
        assert {marker.action for marker in markers} == {Marker.DELETE}
