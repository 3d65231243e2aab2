"""Data sets made by the tests: of random pixels, and views of a room in which geometry can be checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ofvl_core import geometry
from ofvl_core.camera import Camera

MATRIX = "60 0 39.5\n0 60 29.5\n0 0 1\n"


def write_scene(root: Path, frames: int = 4, sequences: int = 2, color: str = "png") -> Path:
    """A scene of random images, 80x60, sequence 1 for training and the last one for testing."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "camera-intrinsics.txt").write_text(MATRIX)
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text(f"sequence{sequences}\n")
    for sequence in range(1, sequences + 1):
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir()
        for number in range(frames):
            stem = folder / f"frame-{number:06d}"
            cv2.imwrite(f"{stem}.color.{color}", random.integers(0, 255, (60, 80, 3), np.uint8))
            cv2.imwrite(f"{stem}.depth.png", random.integers(500, 4000, (60, 80), np.uint16))
            pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
            np.savetxt(f"{stem}.pose.txt", pose)
    return root


ROOM = np.array([[0.0, 0.0, 0.0], [4.0, 2.6, 5.0]])
CRATES = np.array([[[0.4, 1.5, 3.2], [1.3, 2.6, 4.0]], [[2.4, 1.1, 2.9], [3.0, 2.6, 3.5]]])
"""Low and high corner of the room, whose y points down as a camera's does, and of what stands in it."""


@dataclass(frozen=True)
class View:
    """RGB image (H, W, 3) and depth (H, W) in metres."""

    color: np.ndarray
    depth: np.ndarray

    def millimetres(self, unit: float = 0.001) -> np.ndarray:
        return np.rint(self.depth / unit).astype(np.uint16)


def render(camera: Camera, world_from_camera: np.ndarray) -> View:
    """What a camera in the room sees, exactly."""
    rows, columns = np.indices((camera.height, camera.width)).reshape(2, -1)
    rays = camera.rays(np.stack([columns, rows], axis=1)) @ world_from_camera[:3, :3].T
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    origin = world_from_camera[:3, 3]
    depth = np.maximum((ROOM[0] - origin) / rays, (ROOM[1] - origin) / rays).min(axis=1)
    for low, high in CRATES:
        crossings = np.sort(np.stack([(low - origin) / rays, (high - origin) / rays]), axis=0)
        enters, leaves = crossings[0].max(axis=1), crossings[1].min(axis=1)
        depth = np.where((enters < leaves) & (enters > 0) & (enters < depth), enters, depth)
    color = paint(origin + rays * depth[:, None])
    shape = (camera.height, camera.width)
    return View(color.reshape(*shape, 3), depth.reshape(shape))


def paint(points: np.ndarray) -> np.ndarray:
    """RGB of points (N, 3) of the room: smooth, but crates differ from walls."""
    crate = distance_to_crates(points) < 1e-3
    waves = np.stack([np.sin(points @ axis) for axis in ((2, 1, 0), (0, 2, 1), (1, 0, 2))], axis=1)
    return np.rint(np.where(crate[:, None], 60, 180) + 40 * waves).astype(np.uint8)


def distance_to_crates(points: np.ndarray) -> np.ndarray:
    outside = np.maximum(np.maximum(CRATES[:, 0] - points[:, None], points[:, None] - CRATES[:, 1]), 0)
    return np.linalg.norm(outside, axis=2).min(axis=1)


def distance_to_surfaces(points: np.ndarray) -> np.ndarray:
    """Metres (N,) from points to the nearest wall or crate."""
    walls = np.minimum(np.abs(points - ROOM[0]), np.abs(points - ROOM[1])).min(axis=1)
    return np.minimum(walls, distance_to_crates(points))


def walk(frames: int, start: float = 0.0) -> list[np.ndarray]:
    """world_from_camera along a way through the room, about 9 cm and 4 degrees a frame."""
    poses = []
    for step in start + np.arange(frames):
        turn = geometry.transform_from_rotation_vector(
            (0.1 * np.sin(0.4 * step), 0.5 * np.sin(0.14 * step), 0.06 * np.cos(0.5 * step)), (0, 0, 0)
        )
        turn[:3, 3] = 1.6 + 0.6 * np.cos(0.12 * step), 1.2 + 0.1 * np.sin(0.5 * step), 1.0 + 0.04 * step
        poses.append(turn)
    return poses


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB or depth image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def write_views(
    folder: Path, camera: Camera, poses: Sequence[np.ndarray], first: int = 0, suffix: str = "png"
) -> None:
    """Frames of the room as frame-NNNNNN.*, depth registered to colour."""
    for number, pose in enumerate(poses, first):
        view = render(camera, pose)
        write_image(folder / f"frame-{number:06d}.color.{suffix}", view.color)
        write_image(folder / f"frame-{number:06d}.depth.png", view.millimetres())
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)


ROOM_CAMERA = Camera(160, 120, 140.0, 141.0, 81.0, 58.0)


def write_room(root: Path, frames: int = 12) -> Path:
    """A scene of the room in this project's own layout: two sequences, the second for testing."""
    for sequence, start in ((1, 0.0), (2, 0.5)):
        write_views(root / f"seq-{sequence:02d}", ROOM_CAMERA, walk(frames, start))
    np.savetxt(root / "camera-intrinsics.txt", ROOM_CAMERA.matrix)
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root


def lifted(scene, frame) -> tuple[np.ndarray, np.ndarray]:
    """World points (N, 3) of a frame's depth as its data set is read, and the image's RGB there (N, 3)."""
    color, depth = scene.read_color(frame), scene.read_depth(frame)
    height, width = depth.shape
    rows, columns = np.nonzero(depth)
    camera = scene.camera.resized(width, height)
    points = camera.rays(np.stack([columns, rows], axis=1)) * (depth[rows, columns, None] / 1000)
    scale_x, scale_y = scene.camera.width / width, scene.camera.height / height
    at_x = np.rint((columns + 0.5) * scale_x - 0.5).astype(int)
    at_y = np.rint((rows + 0.5) * scale_y - 0.5).astype(int)
    return geometry.apply(frame.world_from_camera, points), color[at_y, at_x]


def misfit(scene, frame) -> tuple[float, float]:
    """How far most of a frame's points are from the room's surfaces, metres, and its colours from theirs."""
    points, colors = lifted(scene, frame)
    difference = np.abs(colors.astype(int) - paint(points)).max(axis=1)
    return float(np.quantile(distance_to_surfaces(points), 0.95)), float(np.quantile(difference, 0.9))
