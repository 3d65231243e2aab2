"""The pinhole camera, and which pixel a network cell stands for.

Pixel convention: OpenCV's and ROS's, a pixel's centre has integer coordinates, so the image spans
-0.5 to width - 0.5. COLMAP's convention is half a pixel larger.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from ofvl_core.errors import ConfigError

Array = NDArray[np.float64]

UNDISTORTION = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-6)
"""Steps and pixels at which undoing a distortion ends: OpenCV's five steps are centimetres off at the rim."""

UNDISTORTED_PIXELS = 0.01
"""A ray that projects this close to its pixel is that pixel's."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics of an image: size and focal lengths in pixels, distortion in OpenCV's order.

    `distortion` is () or k1 k2 p1 p2 [k3 [k4 k5 k6]]: ROS's plumb_bob and rational_polynomial.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if self.width <= 0 or self.height <= 0 or self.fx <= 0 or self.fy <= 0:
            raise ConfigError(
                f"camera intrinsics are not set (size {self.width}x{self.height}, focal lengths "
                f"{self.fx:g}, {self.fy:g}): give the calibrated values in pixels"
            )
        if not np.isfinite(numbers).all():
            raise ConfigError("camera intrinsics hold NaN or infinity: give the calibrated values in pixels")

    @property
    def matrix(self) -> Array:
        """3x3 calibration matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> "Camera":
        """The camera of the same image resized: a pixel centre c moves to (c + 0.5) s - 0.5."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def zoomed(self, scale: float) -> "Camera":
        """The same camera with `scale` times its focal lengths."""
        return replace(self, fx=self.fx * scale, fy=self.fy * scale)

    @property
    def focal(self) -> float:
        """Mean focal length, pixels: what turns an error on the plane z = 1 into pixels."""
        return (self.fx + self.fy) / 2

    @cached_property
    def field_radius(self) -> float:
        """Distance from the optical axis, on the plane z = 1, up to which the lens model is one to one.

        Beyond the first turning point or pole of its radial polynomials, which were fitted to what the image
        shows, a pixel stands for no ray at all. Infinite without such a point.
        """
        k1, k2, _, _, k3, k4, k5, k6 = (*self.distortion, *[0.0] * 8)[:8]
        squared = Polynomial([0.0, 1.0])  # of the radius r; the lens shows it at r * above(r^2) / below(r^2)
        above, below = Polynomial([1.0, k1, k2, k3]), Polynomial([1.0, k4, k5, k6])
        slope = above * below + 2 * squared * (above.deriv() * below - above * below.deriv())
        roots = np.concatenate([slope.trim().roots(), below.trim().roots()])
        turns = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
        return float(np.sqrt(turns.min())) if len(turns) else np.inf

    def rays(self, pixels: Array) -> Array:
        """Viewing rays (N, 3) with z = 1, in the optical frame, of pixels (N, 2). Undoes the distortion.

        NaN where no ray leads to a pixel: outside `field_radius`.
        """
        pixels = np.asarray(pixels, float)
        if not any(self.distortion) or not len(pixels):
            return np.column_stack([(pixels - (self.cx, self.cy)) / (self.fx, self.fy), np.ones(len(pixels))])
        unturned = np.eye(3)
        normalised = cv2.undistortPointsIter(
            pixels[:, None], self.matrix, np.array(self.distortion), unturned, unturned, UNDISTORTION
        )[:, 0]
        rays = np.column_stack([np.asarray(normalised, float), np.ones(len(pixels))])
        reached = np.abs(self.project(rays) - pixels).max(axis=1) < UNDISTORTED_PIXELS
        rays[~reached | (np.hypot(rays[:, 0], rays[:, 1]) > self.field_radius)] = np.nan
        return rays

    def project(self, points_in_camera: Array) -> Array:
        """Pixels (N, 2) of points (N, 3) in the optical frame, distorted as the real image is."""
        if any(self.distortion):
            zero = np.zeros(3)
            points = np.asarray(points_in_camera, float)[:, None]
            pixels, _ = cv2.projectPoints(points, zero, zero, self.matrix, np.array(self.distortion))
            return np.asarray(pixels, float)[:, 0]
        normalised = points_in_camera[:, :2] / points_in_camera[:, 2:]
        return normalised * (self.fx, self.fy) + (self.cx, self.cy)


def cell_pixels(width: int, height: int, stride: int) -> Array:
    """Pixel (u, v) of every network cell of a width x height image, (rows * columns, 2), row by row.

    Cell i stands for pixel stride * i + stride // 2, as in the authors' code (8 i + 4). Training samples
    its targets at these pixels and pose estimation hands the same ones to PnP: no other place may
    compute them.
    """
    u = np.arange(width // stride, dtype=float) * stride + stride // 2
    v = np.arange(height // stride, dtype=float) * stride + stride // 2
    return np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)


def resized_pixels(pixels: Array, scale: Array | float) -> Array:
    """Where `pixels` (..., 2) are in the same image, `scale` times as large: see `Camera.resized`."""
    return (pixels + 0.5) * scale - 0.5
