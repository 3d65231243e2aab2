"""Depth seen from the colour camera: what a sensor beside it measured, carried over (registration)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array

NOTHING = np.iinfo(np.uint16).max
"""Depth buffer before any surface is drawn into it."""


@dataclass(frozen=True, eq=False)
class DepthRegistration:
    """Where depth was measured: its own pinhole camera, and color_from_depth (4, 4) between the sensors."""

    depth_camera: Camera
    color_camera: Camera
    color_from_depth: Array

    @cached_property
    def camera(self) -> Camera:
        """The registered depth's camera: the colour image's field of view, never finer than the sensor.

        Neighbouring measurements then fall at most one pixel apart, so that drawing each into its nearest
        pixel leaves no gaps in a surface.
        """
        color, depth = self.color_camera, self.depth_camera
        return color.resized(
            min(color.width, int(color.width * depth.fx / color.fx)),
            min(color.height, int(color.height * depth.fy / color.fy)),
        )

    @cached_property
    def _rays_in_color(self) -> Array:
        depth = self.depth_camera
        v, u = np.indices((depth.height, depth.width)).reshape(2, -1)
        return depth.rays(np.stack([u, v], axis=1)) @ self.color_from_depth[:3, :3].T

    def __call__(self, depth: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Millimetres (h, w) along the colour camera's axis, 0 where unknown, from the sensor's (H, W).

        Each measurement is drawn into the nearest pixel; where several meet, the nearest surface stays.
        """
        measured = np.flatnonzero(depth)
        points = self._rays_in_color[measured] * depth.ravel()[measured, None]
        points += 1000 * self.color_from_depth[:3, 3]
        points = points[(points[:, 2] >= 1) & (points[:, 2] < NOTHING - 0.5)]
        u, v = np.rint(self.camera.project(points)).T
        width, height = self.camera.width, self.camera.height
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixels = v[inside].astype(np.intp) * width + u[inside].astype(np.intp)
        buffer = np.full(height * width, NOTHING, np.uint16)
        np.minimum.at(buffer, pixels, np.rint(points[inside, 2]).astype(np.uint16))
        buffer[buffer == NOTHING] = 0
        return buffer.reshape(height, width)
