"""Training views from where no camera was: a frame's image carried along its depth to a moved camera.

A warp of the image alone shows a scene from the places of its frames and no other, but a robot comes by
elsewhere. The frame's points are splatted into the moved camera, the nearest one a splat; every pixel there
then finds its colour where its point lies in the frame. What no point fell on, because the frame did not
see it or not how far it is, takes the depth of what is next to it: a picture, but no target.
"""

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ofvl_core.camera import Camera, cell_pixels, resized_pixels
from ofvl_core.depth_holes import nearest_known
from ofvl_core.geometry import Array, apply, invert, transform_from_rotation_vector
from ofvl_core.training.config import Augmentation
from ofvl_core.training.packed import PackedFrames

SPLAT = 2
"""Pixels of the network's input a splat. The frame gives four points a splat, so that few stay empty."""

NEAREST = 0.1
"""Points closer than this to the moved camera, metres, are cut off."""

LENS_STEP = 2
"""Pixels between the entries of a lens's table of rays."""

AGREEMENT = 0.03
"""A cell is a target when depth by splats and depth in the frame are this alike, relative to either."""

Plane = NDArray[np.floating[Any]]
"""One of a picture's coordinates, in float32: half the time of float64."""


def random_motion(frames: PackedFrames, index: int, ranges: Augmentation, random: Generator) -> Array:
    """camera_from_moved (4, 4): a random move along every axis and a random turn to the side, up and down.

    It moves no farther than the camera roamed: where that turned on the spot, views from half a metre beside
    it teach what nobody asks for, in place of what is asked for.
    """
    depths = frames.depths[index, ::8, ::8]
    distance = float(np.median(depths[depths > 0])) / 1000 if depths.any() else 0.0
    turn = np.append(random.uniform(-1, 1, 2) * np.radians(ranges.tilt_deg), 0.0)
    move = random.uniform(-1, 1, 3) * min(ranges.translation * distance, frames.roamed)
    return transform_from_rotation_vector(turn, move)


def synthesise(
    frames: PackedFrames,
    index: int,
    stored_from_input: Array,
    camera_from_moved: Array,
    fill: NDArray[np.integer],
    stride: int,
) -> tuple[NDArray[np.uint8], Array, NDArray[np.bool_]]:
    """What the moved camera sees of frame `index` through the warp (2, 3).

    The image (H, W, 3) of the network's input, of the colour `fill` (3,) where the frame shows nothing; the
    cells' scene coordinates (3, h, w), metres, and which are valid (h, w).
    """
    camera, stored = frames.input_camera, frames.camera
    height, width = frames.depths.shape[1:]
    step = max(1, width // camera.width)
    depths = frames.depths[index, ::step, ::step]
    rays = _rays_of(stored, width, height, step)
    points = _carried(invert(camera_from_moved), *(rays * (depths * np.float32(1e-3))))
    splats, is_target = _splat(points, depths > 0, stored, stored_from_input, camera)
    dense = cv2.resize(splats, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST)
    seen_at = _source_pixels(np.asarray(dense, np.float32), stored, stored_from_input, camera_from_moved)
    image = cv2.remap(
        frames.images[index],
        *seen_at,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill.tolist(),
    )
    coordinates, valid = _cells(
        frames, index, stored_from_input, camera_from_moved, splats, is_target, stride
    )
    return np.asarray(image, np.uint8), coordinates, valid


@lru_cache(maxsize=8)
def _rays_of(camera: Camera, width: int, height: int, step: int) -> Plane:
    """Rays (3, h, w) of every `step`-th pixel of the camera's image at another size; NaN where none leads."""
    return _ray_table(camera.resized(width, height), range(0, width, step), range(0, height, step))


@lru_cache(maxsize=8)
def _rays_around(camera: Camera) -> Plane:
    """Rays (3, h, w) of every `LENS_STEP`-th pixel of the image and as far again to every side of it."""
    sides = (range(-side, 2 * side, LENS_STEP) for side in (camera.width, camera.height))
    return _ray_table(camera, *sides)


def _ray_table(camera: Camera, columns: range, rows: range) -> Plane:
    u, v = np.meshgrid(columns, rows)
    rays = camera.rays(np.stack([u, v], axis=-1).reshape(-1, 2))
    return rays.T.astype(np.float32).reshape(3, *u.shape)


def _carried(a_from_b: Array, x: Plane, y: Plane, z: Plane) -> list[Plane]:
    """Points given by their coordinates in b, carried to a."""
    rows = a_from_b[:3].astype(np.float32)
    return [row[0] * x + row[1] * y + row[2] * z + row[3] for row in rows]


def _projected(camera: Camera, x: Plane, y: Plane, z: Plane) -> tuple[Plane, Plane]:
    """Pixels (u, v) of points in front of the camera."""
    if any(camera.distortion):
        points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1, dtype=np.float64)
        u, v = camera.project(points).T.astype(np.float32).reshape(2, *x.shape)
        return u, v
    inverse = 1 / z
    return x * inverse * np.float32(camera.fx) + np.float32(camera.cx), (
        y * inverse * np.float32(camera.fy) + np.float32(camera.cy)
    )


def _mapped(affine: Array, u: Plane, v: Plane) -> tuple[Plane, Plane]:
    (a, b, c), (d, e, f) = affine.astype(np.float32)
    return a * u + b * v + c, d * u + e * v + f


def _splat(
    points: list[Plane],
    known: NDArray[np.bool_],
    stored: Camera,
    stored_from_input: Array,
    camera: Camera,
) -> tuple[Plane, NDArray[np.bool_]]:
    """Depths of the splats (H / SPLAT, W / SPLAT) and whether a point that is known fell on them."""
    width, height = camera.width // SPLAT, camera.height // SPLAT
    in_front = known & (points[2] > NEAREST)
    x, y, z = (part[in_front] for part in points)
    input_from_stored = np.asarray(cv2.invertAffineTransform(stored_from_input), float)
    column, row = _mapped(input_from_stored, *_projected(stored, x, y, z))
    half = np.float32(0.5)  # the nearest splat's number is what truncates here
    column, row = (column + half) / SPLAT, (row + half) / SPLAT
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    places = row[inside].astype(np.int64) * width + column[inside].astype(np.int64)
    nearest = np.full(width * height, np.inf, np.float32)
    np.minimum.at(nearest, places, z[inside])
    depth = nearest.reshape(height, width)
    hit = np.isfinite(depth)
    if not hit.any():
        depth[:] = 1.0
    elif not hit.all():
        depth = nearest_known(depth, hit)
    depth = np.asarray(cv2.medianBlur(depth, 3))  # what is behind shows through where points are sparse
    return depth, hit


def _source_pixels(
    depth: Plane, stored: Camera, stored_from_input: Array, camera_from_moved: Array
) -> tuple[Plane, Plane]:
    """Where in the stored image the points lie (u, v) that the moved camera sees at `depth` (H, W)."""
    height, width = depth.shape
    u, v = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    column, row = _mapped(stored_from_input, u, v)
    if any(stored.distortion):
        at = (column + stored.width) / LENS_STEP, (row + stored.height) / LENS_STEP
        x, y = (
            cv2.remap(ray, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=math.nan)
            for ray in _rays_around(stored)[:2]
        )
    else:
        x, y = (column - stored.cx) * np.float32(1 / stored.fx), (row - stored.cy) * np.float32(1 / stored.fy)
    x, y, z = _carried(camera_from_moved, x * depth, y * depth, depth)
    hidden = ~(z >= NEAREST)  # or where no ray leads
    x[hidden], y[hidden], z[hidden] = 0.0, 0.0, NEAREST
    u, v = _projected(stored, x, y, z)
    u[hidden] = -1e4
    return u, v


def _cells(
    frames: PackedFrames,
    index: int,
    stored_from_input: Array,
    camera_from_moved: Array,
    splats: NDArray[np.float32],
    is_target: NDArray[np.bool_],
    stride: int,
) -> tuple[Array, NDArray[np.bool_]]:
    """Scene coordinates (3, h, w) that project exactly onto the cells' pixels, and where they are valid.

    The splat's depth says where in the frame a cell's point is; the depth measured there says how far.
    """
    camera, stored = frames.input_camera, frames.camera
    cells = cell_pixels(camera.width, camera.height, stride)
    column, row = np.rint(resized_pixels(cells, 1 / SPLAT)).astype(np.intp).T
    depth, valid = splats[row, column].astype(float), is_target[row, column].copy()
    rays = stored.rays(cells @ stored_from_input[:, :2].T + stored_from_input[:, 2])
    valid &= np.isfinite(rays[:, 0])
    rays = np.nan_to_num(rays)
    in_camera = apply(camera_from_moved, rays * depth[:, None])
    valid &= in_camera[:, 2] > NEAREST
    pixels = stored.project(np.where(valid[:, None], in_camera, (0.0, 0.0, 1.0)))
    height, width = frames.depths.shape[1:]
    scale = np.array([width / stored.width, height / stored.height])
    column, row = np.rint(resized_pixels(pixels, scale)).astype(np.int64).T
    valid &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = frames.depths[index, row.clip(0, height - 1), column.clip(0, width - 1)] / 1000.0
    in_camera *= (there / np.where(valid, in_camera[:, 2], 1.0))[:, None]
    found = apply(invert(camera_from_moved), in_camera)[:, 2]
    valid &= (there > 0) & (np.abs(found - depth) < AGREEMENT * depth)
    points = apply(frames.world_from_camera[index] @ camera_from_moved, rays * found[:, None])
    shape = camera.height // stride, camera.width // stride
    return points.T.reshape(3, *shape), valid.reshape(shape)
