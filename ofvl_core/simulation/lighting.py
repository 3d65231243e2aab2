"""Static light on every surface: area lights with soft shadows, and ambient light dimmed in corners."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.simulation.facets import Facet
from ofvl_core.simulation.room import Light

Array32 = NDArray[np.float32]
# (origins, directions) -> distance in lengths of the direction, infinite without a hit
Distances = Callable[[Array32, Array32], Array32]

CELL = 0.08  # metres between light samples on a surface
AMBIENT = 0.42
BRIGHTEST = 1.25  # of 1, which shows a picture as it was painted
REACH = 1.2  # metres: what is nearer than this dims the ambient light
LIGHT_SAMPLES = 16
AMBIENT_SAMPLES = 24


def bake(
    facets: Sequence[Facet], lights: Sequence[Light], distances: Distances, rng: np.random.Generator
) -> list[Array32]:
    """Light on each facet's rectangle, RGB (rows, columns, 3); 1 shows the picture as it was painted."""
    shapes = [_cells(facet) for facet in facets]
    points, normals = [], []
    for facet, (rows, columns) in zip(facets, shapes, strict=True):
        width, height = facet.size
        x = ((np.arange(columns) + 0.5) / columns * width)[None, :, None]
        y = ((np.arange(rows) + 0.5) / rows * height)[:, None, None]
        on_surface = facet.corner + x * facet.right + y * facet.down
        points.append((on_surface + 0.004 * facet.normal).reshape(-1, 3))
        normals.append(np.broadcast_to(facet.normal, (rows * columns, 3)))
    at = np.concatenate(points).astype(np.float32)
    normal = np.concatenate(normals).astype(np.float32)
    total = np.float32(AMBIENT) * _openness(at, normal, distances, rng)[:, None].repeat(3, axis=1)
    for light in lights:
        total += _direct(at, normal, light, distances, rng)
    pieces = np.split(total, np.cumsum([rows * columns for rows, columns in shapes])[:-1])
    maps = []
    for piece, (rows, columns) in zip(pieces, shapes, strict=True):
        grid = piece.reshape(rows, columns, 3)
        smooth = cv2.GaussianBlur(grid, (3, 3), 0.8, borderType=cv2.BORDER_REPLICATE)
        maps.append(np.minimum(smooth, np.float32(BRIGHTEST)))
    return maps


def _cells(facet: Facet) -> tuple[int, int]:
    """Rows and columns of the grid on which a facet's light is sampled; what glows needs none."""
    if facet.glows:
        return 1, 1
    width, height = facet.size
    return max(2, round(height / CELL)), max(2, round(width / CELL))


def _direct(
    at: Array32, normal: Array32, light: Light, distances: Distances, rng: np.random.Generator
) -> Array32:
    """What a light adds at points (N, 3) with these normals (N, 3), as RGB (N, 3)."""
    first, second = light.edges
    facing = np.cross(first, second)
    facing = facing / np.linalg.norm(facing)
    area = float(np.linalg.norm(np.cross(first, second)))
    side = int(np.sqrt(LIGHT_SAMPLES))
    received = np.zeros(len(at), np.float32)
    for i in range(side):
        for j in range(side):
            jitter = rng.uniform(size=(2, len(at), 1)).astype(np.float32)
            a, b = (i + jitter[0]) / side, (j + jitter[1]) / side
            towards = (light.corner + a * first + b * second - at).astype(np.float32)
            squared = (towards**2).sum(1)
            falling = np.maximum((towards * normal).sum(1), 0)
            leaving = np.abs(towards @ facing.astype(np.float32))
            lit = (falling > 0) & (distances(at, towards) > 0.99)
            received += np.where(lit, falling * leaving / np.maximum(squared, 0.09) ** 2, 0)
    return (received * np.float32(area / side**2))[:, None] * light.strength.astype(np.float32)


def _openness(at: Array32, normal: Array32, distances: Distances, rng: np.random.Generator) -> Array32:
    """Share of the sky above each point that nothing near hides, (N,)."""
    open_share = np.zeros(len(at), np.float32)
    for _ in range(AMBIENT_SAMPLES):
        # A unit vector added to the normal is distributed as the light that a matt surface scatters.
        sphere = rng.standard_normal((len(at), 3), dtype=np.float32)
        direction = normal + 0.999 * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
        direction *= REACH / np.linalg.norm(direction, axis=1, keepdims=True)
        open_share += np.minimum(distances(at, direction), 1.0)
    return open_share / np.float32(AMBIENT_SAMPLES)
