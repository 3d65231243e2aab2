"""Calibration files, and LiDAR points held against depth images."""

from pathlib import Path

import numpy as np
import pytest

from ofvl_core.camera import Camera
from ofvl_core.errors import DataError
from ofvl_core.geometry import apply, invert, transform_from_rotation_vector
from ofvl_core.livl.calibration import read_calibration
from ofvl_core.livl.lidar_on_depth import View, compare

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_template_is_a_calibration():
    calibration = read_calibration(Path(__file__).parents[1] / "config" / "camera_lidar.yaml")
    ((parent, child, parent_from_child),) = calibration.transforms
    assert (parent, child) == ("camera_link", "velodyne")
    np.testing.assert_allclose(parent_from_child[:3, 3], (-0.05, 0, 0.3))
    assert calibration.time_offset is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the file"),
        ("transforms: []", "transforms"),
        (
            "transforms: [{parent: a, child: b, translation: [0, 0], rotation_xyzw: [0, 0, 0, 1]}]",
            "translation",
        ),
        (
            "transforms: [{parent: a, child: b, translation: [0, 0, .nan], rotation_xyzw: [0, 0, 0, 1]}]",
            "trans",
        ),
        ("transforms: [{parent: a, child: b, translation: [0, 0, 0], rotation_xyzw: [0, 0, 0, 2]}]", "unit"),
        ("transforms: [{parent: a, child: b, translation: [0, 0, 0], rpy: [0, 0, 0]}]", "rotation_xyzw"),
        ("{", "YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path, text, named):
    with pytest.raises(DataError, match=named) as raised:
        read_calibration(write(tmp_path / "calibration.yaml", text))
    assert "\n" not in str(raised.value)


def corner_view(yaw: float, random: np.random.Generator) -> View:
    """A camera turned by `yaw` in the corner of a room with a crate, its depth, and a LiDAR's true points."""
    room_from_camera = transform_from_rotation_vector((0, yaw, 0), (0.0, 0.0, 0.0))
    low, high = np.array([-1.5, -1.2, -1.0]), np.array([1.8, 1.0, 2.6])
    crate_low, crate_high = np.array([0.2, 0.2, 1.4]), np.array([0.9, 1.0, 2.0])

    def ranges(directions: np.ndarray) -> np.ndarray:
        turned = directions @ room_from_camera[:3, :3].T
        with np.errstate(divide="ignore"):
            walls = np.where(turned > 0, high / turned, low / turned).min(axis=1)
            first, second = crate_low / turned, crate_high / turned
        near, far = np.minimum(first, second).max(axis=1), np.maximum(first, second).min(axis=1)
        return np.where((near < far) & (near > 0), np.minimum(near, walls), walls)

    rows, columns = np.indices((CAMERA.height, CAMERA.width))
    rays = CAMERA.rays(np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(float))
    depth = ranges(rays).reshape(CAMERA.height, CAMERA.width)
    depth = depth + random.normal(0, 0.002, depth.shape) * depth**2
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-28, 28, 0.3)), np.radians(np.arange(-15, 16, 2.0)))
    beams = np.stack(
        [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)],
        axis=-1,
    ).reshape(-1, 3)
    measured = ranges(beams) + random.normal(0, 0.03, len(beams))
    return View(depth.astype(np.float32), CAMERA, beams * measured[:, None])


def views(error: np.ndarray) -> list[View]:
    """Views whose LiDAR points are carried by a calibration that is wrong by `error`."""
    random = np.random.default_rng(1)
    exact = [corner_view(yaw, random) for yaw in np.radians([-60, -30, 0, 20, 50, 110, 160, 220])]
    return [View(view.depth, view.camera, apply(error, view.points)) for view in exact]


@pytest.mark.parametrize(
    ("turn", "shift"),
    [((0, 0, 0), (0, 0, 0)), ((0.01, -0.02, 0.015), (0.02, -0.01, 0.03)), ((0, 0.06, 0), (0, 0, 0))],
)
def test_a_wrong_calibration_is_measured(turn, shift):
    error = transform_from_rotation_vector(turn, shift)
    agreement = compare(views(error))
    left = agreement.correction @ error
    # Beams within 15 degrees of the horizon meet little that shows their height.
    np.testing.assert_allclose(left[[0, 2], 3], 0, atol=0.01)
    assert abs(left[1, 3]) < 2 * agreement.deviations[4]
    np.testing.assert_allclose(left[:3, :3], np.eye(3), atol=np.radians(0.3))
    assert agreement.doubtful == bool(np.linalg.norm(turn) > 0.018 or np.linalg.norm(shift) > 0.03)


def test_a_calibration_that_is_far_off_is_doubtful():
    assert compare(views(transform_from_rotation_vector((0, 0.5, 0), (0.5, 0, 0)))).doubtful


def test_where_the_lidar_sees_nothing_of_the_image_nothing_is_said():
    behind = [View(view.depth, view.camera, view.points * (1, 1, -1)) for view in views(np.eye(4))]
    assert compare(behind) is None
    assert compare([]) is None


def test_the_correction_is_the_inverse_of_the_error():
    error = transform_from_rotation_vector((0.0, 0.01, 0.0), (0.0, 0.0, 0.02))
    np.testing.assert_allclose(compare(views(error)).correction, invert(error), atol=0.02)
