"""Planar pieces of a scene and the solids made of them.

Every surface is a planar convex polygon with a picture on it. A facet's picture lies in a rectangle
spanned by `right` and `down` as seen from outside, so pictures are painted the way they are looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Picture = NDArray[np.float32]
# (random generator, height and width in texels, texels per metre) -> RGB picture in 0..1, (height, width, 3)
Painter = Callable[[np.random.Generator, int, int, float], Picture]

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Facet:
    """A planar convex polygon.

    `corner` (3,) is the top left of its bounding rectangle, `right` and `down` (3,) are unit vectors,
    `outline` (K, 2) holds the polygon's corners in metres along them. `density` is in texels per metre.
    A facet that `glows` shows its picture at full brightness, whatever light falls on it.
    """

    corner: Array
    right: Array
    down: Array
    outline: Array
    paint: Painter
    density: float = 300.0
    glows: bool = False

    @property
    def normal(self) -> Array:
        """Unit vector (3,) out of the surface, towards whoever sees the picture upright."""
        return np.cross(self.down, self.right)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the bounding rectangle, metres."""
        width, height = self.outline.max(axis=0)
        return float(width), float(height)

    @property
    def vertices(self) -> Array:
        """The polygon's corners (K, 3)."""
        return self.corner + self.outline[:, :1] * self.right + self.outline[:, 1:] * self.down

    def moved(self, b_from_a: Array) -> "Facet":
        """The facet, given in frame a, in frame b."""
        rotation = b_from_a[:3, :3]
        return replace(
            self,
            corner=rotation @ self.corner + b_from_a[:3, 3],
            right=rotation @ self.right,
            down=rotation @ self.down,
        )


def rectangle(
    centre: ArrayLike,
    normal: ArrayLike,
    width: float,
    height: float,
    paint: Painter,
    *,
    density: float = 300.0,
    glows: bool = False,
) -> Facet:
    """A rectangle that faces `normal`; its picture is upright, or has x to the right where it lies flat."""
    outward = np.asarray(normal, float)
    flat = abs(outward @ UP) > 0.999
    right = np.array([1.0, 0.0, 0.0]) if flat else np.cross(UP, outward)
    right /= np.linalg.norm(right)
    down = np.cross(right, outward)
    corner = np.asarray(centre, float) - right * width / 2 - down * height / 2
    outline = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    return Facet(corner, right, down, outline, paint, density, glows)


# Outward normals of a box's faces; "front" is the side that looks into the room.
BOX_NORMALS = {
    "front": (0, 1, 0),
    "back": (0, -1, 0),
    "left": (-1, 0, 0),
    "right": (1, 0, 0),
    "top": (0, 0, 1),
    "bottom": (0, 0, -1),
}


def box(
    low: ArrayLike,
    high: ArrayLike,
    paint: Painter,
    *,
    without: Sequence[str] = ("bottom",),
    glows: bool = False,
    **faces: Painter,
) -> list[Facet]:
    """An axis-aligned box between two corners (3,). `front=`, `top=` and so on paint single faces."""
    lower, upper = np.asarray(low, float), np.asarray(high, float)
    centre, extent = (lower + upper) / 2, upper - lower
    facets = []
    for name, direction in BOX_NORMALS.items():
        if name in without:
            continue
        normal = np.array(direction, float)
        width = extent[1] if normal[0] else extent[0]
        height = extent[1] if normal[2] else extent[2]
        at = centre + normal * extent / 2
        facets.append(rectangle(at, normal, width, height, faces.get(name, paint), glows=glows))
    return facets


def prism(
    centre: ArrayLike,
    bottom_radius: float,
    top_radius: float,
    height: float,
    paint: Painter,
    *,
    sides: int = 10,
    glows: bool = False,
) -> list[Facet]:
    """An upright round body, as `sides` flat facets and a top. `centre` (3,) is the middle of its base."""
    base = np.asarray(centre, float)
    facets = []
    for side in range(sides):
        angle = 2 * np.pi * (side + 0.5) / sides
        half = np.pi / sides
        lower, upper = 2 * np.sin(half) * bottom_radius, 2 * np.sin(half) * top_radius
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.array([-np.sin(angle), np.cos(angle), 0.0])
        down = outward * np.cos(half) * (bottom_radius - top_radius) - UP * height
        slant = float(np.linalg.norm(down))
        width = max(lower, upper)
        corner = base + outward * np.cos(half) * top_radius + UP * height - right * width / 2
        outline = np.array(
            [
                [(width - upper) / 2, 0.0],
                [(width + upper) / 2, 0.0],
                [(width + lower) / 2, slant],
                [(width - lower) / 2, slant],
            ]
        )
        facets.append(Facet(corner, right, down / slant, outline, paint, glows=glows))
    angles = 2 * np.pi * np.arange(sides) / sides
    circle = top_radius * (1 + np.stack([np.cos(angles), np.sin(angles)], axis=1))
    lid = rectangle(base + UP * height, UP, 2 * top_radius, 2 * top_radius, paint, glows=glows)
    return [*facets, replace(lid, outline=circle)]
