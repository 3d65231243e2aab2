"""How a camera turned, from what it saw."""

import numpy as np
import pytest
from scenes import render
from scipy.spatial.transform import Rotation

from ofvl_core.camera import Camera
from ofvl_core.geometry import apply, transform_from_rotation_vector
from ofvl_core.livl.visual_rotation import LONGEST_STEP, VisualRotation

CAMERA = Camera(320, 240, 280.0, 282.0, 162.0, 116.0)
PERIOD = 33_333_333


def pose(at: int, rate: float = 0.6) -> np.ndarray:
    """A camera that turns about its upright axis and drives forward, at 30 Hz."""
    return transform_from_rotation_vector((0.02, rate * at / 30, 0.0), (1.6, 1.2, 1.0 + 0.5 * at / 30))


def look(world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth of the room, its walls full of corners."""
    depth = render(CAMERA, world_from_camera).depth
    rows, columns = np.indices(depth.shape)
    rays = CAMERA.rays(np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(float))
    points = apply(world_from_camera, rays * depth.reshape(-1, 1))
    random = np.random.default_rng(0)
    waves, phases = random.normal(0, 14, (60, 3)), random.uniform(0, 6.28, 60)
    pattern = np.sin(points @ waves.T + phases).sum(axis=1)  # never the same twice
    grey = np.clip(128 + 9 * pattern, 0, 255).reshape(depth.shape)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8), depth.astype(np.float32)


@pytest.mark.parametrize("rate", [-0.8, 0.0, 0.4])
def test_turns_are_those_of_the_camera(rate):
    rotation = VisualRotation(CAMERA)
    for at in range(12):
        rotation.add(at * PERIOD, *look(pose(at, rate)))
    turns = rotation.turns
    assert len(turns.starts) == 11
    assert (turns.ends - turns.starts).max() <= LONGEST_STEP * 1e9
    assert (turns.ends - turns.starts).max() == 3 * PERIOD
    for start, end, vector in zip(turns.starts // PERIOD, turns.ends // PERIOD, turns.vectors, strict=True):
        true = Rotation.from_matrix(pose(start, rate)[:3, :3].T @ pose(end, rate)[:3, :3]).as_rotvec()
        np.testing.assert_allclose(vector, true, atol=0.003)


def test_a_gap_is_not_bridged():
    rotation = VisualRotation(CAMERA)
    for at in (0, 1, 10, 11):
        rotation.add(at * PERIOD, *look(pose(at)))
    assert (rotation.turns.starts // PERIOD).tolist() == [0, 10]


def test_where_nothing_can_be_followed_there_is_no_turn():
    rotation = VisualRotation(CAMERA)
    bare = np.full((240, 320, 3), 90, np.uint8)
    for at in range(3):
        rotation.add(at * PERIOD, bare, np.full((240, 320), 2.0, np.float32))
    assert len(rotation.turns.starts) == 0
    color, _ = look(pose(0))
    for at in range(3, 6):
        rotation.add(at * PERIOD, color, np.full((240, 320), np.nan, np.float32))
    assert rotation.turns.vectors.shape == (0, 3)
