"""A keyframe: a training frame as it is remembered, and as it is written down."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera, resized_pixels
from ofvl_core.depth_holes import nearest_known
from ofvl_core.geometry import Array, apply
from ofvl_core.keyframes.descriptors import Descriptors, Grey, describe
from ofvl_core.resize import input_camera, resize

ROWS = 240
"""Of a keyframe's image, or fewer where the camera has fewer. With 480 poses are no better."""

GRID = 4
"""Pixels of a keyframe a depth. With 8, walls end at the wrong place, and poses 0.3 m off are not mended."""

LANDMARKS = 300
"""Corners of known depth that are kept of a frame, the strongest."""

APART = 9
"""Pixels between two corners, at least."""

WEAKEST = 0.002
"""Strength of a corner relative to the image's strongest: blurred images have few that are strong."""

JUMP = 0.05
"""Relative change of depth around a corner at which it lies on an edge, and belongs to nobody knows what."""

WEBP_QUALITY = 75
"""Half of what JPEG takes, for poses as good."""

STEP = 10
"""Millimetres to which depths are rounded, for two thirds of the space."""


def keyframe_camera(camera: Camera) -> Camera:
    """The camera of the keyframes of a scene that was recorded with `camera`."""
    return input_camera(camera, camera.fy * min(1.0, ROWS / camera.height), GRID)


def grey(image_rgb: NDArray[np.uint8], camera: Camera) -> Grey:
    """An image (H, W, 3) in grey and at the camera's size."""
    return resize(np.asarray(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), np.uint8), camera)


def find_landmarks(image: Grey, depth: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Corners (M, 3) of an image (h, w) at which its depth, of any size, is known: u, v, depth."""
    corners = cv2.goodFeaturesToTrack(image, LANDMARKS, WEAKEST, APART, blockSize=5)
    if corners is None:
        return np.empty((0, 3), np.uint16)
    pixels = np.asarray(corners[:, 0], float)
    scale = np.array(depth.shape[::-1]) / image.shape[::-1]
    column, row = np.rint(resized_pixels(pixels, scale)).astype(np.intp).T
    padded = np.pad(depth.astype(np.float32), 2)
    padded[padded == 0] = np.nan
    down, right = np.indices((5, 5)).reshape(2, 1, -1)
    around = padded[row[:, None] + down[0], column[:, None] + right[0]]
    known = np.isfinite(around).sum(axis=1) > around.shape[1] // 2
    pixels, around = pixels[known], around[known]
    middle = np.nanmedian(around, axis=1) if len(around) else np.empty(0)
    flat = np.nanmax(np.abs(around - middle[:, None]), axis=1, initial=0.0) <= JUMP * middle
    return np.column_stack([pixels, middle])[flat].round().astype(np.uint16)


class Written(NamedTuple):
    """A keyframe on disk: `image` as WebP, `depth` of every fourth pixel as PNG, millimetres, 0 where it is
    unknown."""

    image: bytes
    depth: bytes


def write(image: Grey, depth: NDArray[np.uint16]) -> Written:
    """The image (h, w) and its depth, of any size, written down."""
    height, width = image.shape
    coarse = cv2.resize(depth, (width // GRID, height // GRID), interpolation=cv2.INTER_NEAREST_EXACT)
    largest = np.iinfo(np.uint16).max - STEP // 2
    rounded = (coarse.clip(max=largest) + STEP // 2) // STEP * STEP
    _, webp = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    _, png = cv2.imencode(".png", rounded, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return Written(webp.tobytes(), png.tobytes())


class Features(NamedTuple):
    """`points` (N, 3), metres, in the scene's frame, and `descriptors` (N, 128) of how they look."""

    points: Array
    descriptors: Descriptors


@dataclass(frozen=True, eq=False)
class Keyframe:
    """`image` (h, w) of `camera`, taken at `world_from_camera` (4, 4).

    `pixels` (M, 2), float32, are its landmarks, and `points` (M, 3), metres, in the scene's frame. `surface`
    (h / 4 * w / 4, 3) is what every fourth pixel sees, row by row: where the depth is unknown that of the
    nearest pixel, NaN where no ray leads to a pixel.
    """

    image: Grey
    world_from_camera: Array
    pixels: NDArray[np.float32]
    points: Array
    surface: Array

    @cached_property
    def features(self) -> Features:
        """What of it can be found from elsewhere: more than its landmarks, whose look is of one size.

        Where the depth is unknown too, and on edges: without these fewer images are found.
        """
        pixels, descriptors = describe(self.image, len(self.image))
        if not len(pixels):
            return Features(np.empty((0, 3)), descriptors)
        height, width = (side // GRID for side in self.image.shape)
        u, v = resized_pixels(pixels, 1 / GRID).astype(np.float32).T
        surface = self.surface.reshape(height, width, 3)
        found = cv2.remap(surface, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        points = np.asarray(found, float)[:, 0]
        known = np.isfinite(points).all(axis=1)
        return Features(points[known], descriptors[known])


def read(
    written: Written, landmarks: NDArray[np.uint16], world_from_camera: Array, camera: Camera
) -> Keyframe:
    """The keyframe of `camera` that was written down. Raises ValueError when it is damaged."""
    kinds = cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED
    image, depth = (
        cv2.imdecode(np.frombuffer(content, np.uint8), kind) if content else None
        for content, kind in zip(written, kinds, strict=True)
    )
    coarse = camera.resized(camera.width // GRID, camera.height // GRID)
    if image is None or image.shape != (camera.height, camera.width) or image.dtype != np.uint8:
        raise ValueError("an image is damaged")
    if depth is None or depth.shape != (coarse.height, coarse.width) or depth.dtype != np.uint16:
        raise ValueError("a depth image is damaged")
    landmarks = landmarks[landmarks[:, 2] > 0]
    millimetres = depth.astype(np.float32)
    if depth.any():
        millimetres = nearest_known(millimetres, depth > 0)
    return Keyframe(
        np.asarray(image),
        world_from_camera,
        landmarks[:, :2].astype(np.float32),
        seen_points(landmarks, world_from_camera, camera),
        apply(world_from_camera, _rays_of(coarse) * (millimetres.reshape(-1, 1) / np.float64(1000))),
    )


def seen_points(landmarks: NDArray[np.uint16], world_from_camera: Array, camera: Camera) -> Array:
    """What landmarks (N, 3) are, u, v and millimetres, in the scene's frame (N, 3); NaN without a ray."""
    rays = camera.rays(landmarks[:, :2].astype(float))
    return apply(world_from_camera, rays * (landmarks[:, 2:] / 1000.0))


def known_points(landmarks: NDArray[np.uint16], world_from_camera: Array, camera: Camera) -> Array:
    """`seen_points` of those of a frame's landmarks that are some and have a ray."""
    points = seen_points(landmarks[landmarks[:, 2] > 0], world_from_camera, camera)
    return points[np.isfinite(points).all(axis=1)]


@lru_cache(maxsize=8)
def _rays_of(camera: Camera) -> Array:
    """Viewing rays (h * w, 3) of all pixels."""
    v, u = np.indices((camera.height, camera.width), dtype=float).reshape(2, -1)
    return camera.rays(np.column_stack([u, v]))
