"""A D435-like camera: what it sees of a world, and what its electronics make of it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.simulation.world import Scenery, World, along

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]

D435_COLOUR = Camera(width=640, height=480, fx=615.3, fy=615.1, cx=321.7, cy=238.4)

NEAR, FAR = 0.28, 6.0  # metres: the depth range
DEPTH_NOISE = 0.0018  # metres of spread at one metre; it grows with the square of the range
BASELINE = 0.05  # metres between the two infrared imagers: what only one of them sees has no depth
GRAZING = 0.12  # cosine of incidence under which the matcher fails
LOST_SHARE = 0.004  # single pixels without depth for no visible reason
LOST_PATCHES = 2.3  # of unit noise, smooth over PATCH pixels: above it depth is missing too
PATCH = 16
VIGNETTING = 0.14  # light lost in the image's corners
EXPOSURE_TARGET = 135.0
EXPOSURE_CONTROL = 0.7  # 1 would bring every image to the target
COLOUR_NOISE = 1.6  # grey values, at mid brightness
SHARPNESS = 0.55  # pixels: the lens's blur


@dataclass(frozen=True)
class View:
    """An ideal image: RGB colour (rows, columns, 3) in 0..255, depth along the optical axis in metres, and
    the cosine between ray and surface normal, (rows, columns)."""

    colour: Array32
    depth: Array32
    incidence: Array32


class RgbdCamera:
    """Colour and registered depth from one optical centre."""

    def __init__(self, camera: Camera = D435_COLOUR) -> None:
        self.camera = camera
        rows, columns = np.indices((camera.height, camera.width))
        rays = camera.rays(np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(float))
        self._rays = rays.astype(np.float32).reshape(*rows.shape, 3)
        self._ray_length = np.linalg.norm(rays, axis=1).astype(np.float32).reshape(rows.shape)
        squared_radius = self._ray_length**2 - 1
        self._vignette = (1 - np.float32(VIGNETTING) * squared_radius / squared_radius.max())[..., None]

    def view(self, world: World, scenery: Scenery, world_from_camera: Array) -> View:
        """The ideal image from a pose (optical frame). The scene must be closed: every ray hits something."""
        shape = (self.camera.height, self.camera.width)
        rotation = world_from_camera[:3, :3].astype(np.float32)
        origin = world_from_camera[:3, 3].astype(np.float32)
        directions = np.asarray(cv2.transform(self._rays, rotation), np.float32)
        hits = world.cast(origin, directions.reshape(-1, 3))
        triangle = hits.triangle.reshape(shape)
        # Rays have z = 1, so a distance in ray lengths is the depth.
        depth = hits.distance.reshape(shape)
        components = [np.asarray(component, np.float32) for component in cv2.split(directions)]
        points = [start + depth * component for start, component in zip(origin, components, strict=True)]
        towards = np.maximum(np.abs(along(world.normals, triangle, components)), 1e-4)
        # Area of surface that a pixel covers: depth^2 / (fx fy |normal . ray|).
        patch = np.asarray(depth / np.sqrt(self.camera.fx * self.camera.fy * towards), np.float32)
        return View(scenery.look(triangle, points, patch), depth, towards / self._ray_length)

    def capture(
        self, world: World, scenery: Scenery, exposure: list[Array], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """RGB image (rows, columns, 3) and depth in millimetres (rows, columns), 0 where there is none.

        `exposure` holds world_from_camera at an odd number of instants while the shutter is open; the
        depth is that of the middle one.
        """
        views = [self.view(world, scenery, world_from_camera) for world_from_camera in exposure]
        colour = views[0].colour if len(views) == 1 else np.mean([view.colour for view in views], axis=0)
        middle = views[len(views) // 2]
        return self._expose(colour, rng), self._measure_depth(middle, rng)

    def _expose(self, colour: Array32, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Lens blur, vignetting, automatic exposure and noise."""
        image = cv2.GaussianBlur(colour, (3, 3), SHARPNESS) * self._vignette
        gain = (EXPOSURE_TARGET / max(float(image.mean()), 1.0)) ** EXPOSURE_CONTROL
        image *= np.float32(gain)
        shot = np.sqrt(image * np.float32(1 / EXPOSURE_TARGET) + np.float32(0.2))
        image += rng.standard_normal(image.shape, dtype=np.float32) * shot * np.float32(COLOUR_NOISE)
        return np.clip(image + 0.5, 0, 255).astype(np.uint8)

    def _measure_depth(self, view: View, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Noise that grows with the square of the range, and holes where a stereo camera has them."""
        shape = view.depth.shape
        spread = np.float32(DEPTH_NOISE) * view.depth**2
        noisy = view.depth + spread * rng.standard_normal(shape, dtype=np.float32)
        holes = (noisy < NEAR) | (noisy > FAR) | (view.incidence < GRAZING)
        holes |= self._hidden_from_second_imager(view.depth)
        holes |= rng.random(shape, dtype=np.float32) < LOST_SHARE
        coarse = rng.standard_normal((shape[0] // PATCH + 2, shape[1] // PATCH + 2), dtype=np.float32)
        patches = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
        holes |= patches > LOST_PATCHES
        return np.where(holes, 0, np.round(1000 * np.minimum(noisy, FAR))).astype(np.uint16)

    def _hidden_from_second_imager(self, depth: Array32) -> NDArray[np.bool_]:
        """Pixels that a nearer surface to their right hides from an imager BASELINE to the right."""
        columns = np.arange(self.camera.width, dtype=np.float32)
        seen_at = columns - np.float32(self.camera.fx * BASELINE) / depth
        nearer = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
        return seen_at > nearer + 0.5
