"""A scene that rays can be cast into: one triangle mesh, and the picture on every surface."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from ofvl_core.simulation import lighting
from ofvl_core.simulation.atlas import Atlas
from ofvl_core.simulation.facets import Facet
from ofvl_core.simulation.room import Light
from ofvl_core.simulation.seeding import LIGHT, PAINT, stream

Array32 = NDArray[np.float32]
Triangles = NDArray[np.int32]

GAMMA = 2.2


@dataclass(frozen=True)
class Hits:
    """First hits of N rays: distance in lengths of the direction (infinite: none) and triangle (-1: none)."""

    distance: Array32
    triangle: Triangles


class World:
    """The surfaces of a scene. What a sensor makes of them is the sensor's business.

    `mesh` is the whole scene, `normals` (3, T) are its triangles' unit normals and `facet_of_triangle` (T,)
    says which facet a triangle is a part of.
    """

    def __init__(self, facets: Sequence[Facet]) -> None:
        self.mesh, self.facet_of_triangle = _triangulate(facets)
        self.normals = np.ascontiguousarray(self.mesh.face_normals.T, np.float32)
        self._scene = EmbreeScene()
        self._geometry = TriangleMesh(self._scene, self.mesh.triangles.astype(np.float32))

    def cast(self, origin: Array32, directions: Array32) -> Hits:
        """First hits of rays (N, 3) from one origin (3,), or from N origins (N, 3), in the world frame."""
        origins = np.ascontiguousarray(np.broadcast_to(origin, directions.shape), np.float32)
        result = self._scene.run(origins, np.ascontiguousarray(directions, np.float32), output=True)
        distance = np.where(result["primID"] < 0, np.float32(np.inf), result["tfar"])
        return Hits(distance, result["primID"])


class Scenery:
    """What the surfaces of a world look like: painted, lit, and ready to be sampled."""

    def __init__(
        self,
        world: World,
        facets: Sequence[Facet],
        lights: Sequence[Light],
        seed: int,
        scene: int,
        painted_as: Sequence[int] = (),
    ) -> None:
        """`seed` and `scene` choose the random streams: the same two paint the same pictures.

        The first facets are painted as in the scenes that `painted_as` names, one for each.
        """

        def distances(origins: Array32, directions: Array32) -> Array32:
            return world.cast(origins, directions).distance

        light = lighting.bake(facets, lights, distances, stream(seed, scene, LIGHT))
        looks = [*painted_as, *[scene] * (len(facets) - len(painted_as))]
        pictures = [
            _paint(facet, light[i], stream(seed, looks[i], PAINT, i)) for i, facet in enumerate(facets)
        ]
        self._atlas = Atlas(pictures)
        self._facet_of_triangle = world.facet_of_triangle
        of_triangle = [facets[i] for i in world.facet_of_triangle]
        density = np.array([facet.density for facet in of_triangle])
        corner = np.array([facet.corner for facet in of_triangle])
        self._density = density.astype(np.float32)
        # A point's position on its picture, in texels: axis . point + offset.
        self._axes, self._offsets = [], []
        for direction in ("right", "down"):
            axis = np.array([getattr(facet, direction) for facet in of_triangle]) * density[:, None]
            self._axes.append(np.ascontiguousarray(axis.T, np.float32))
            self._offsets.append(-(axis * corner).sum(axis=1).astype(np.float32))

    def look(self, triangle: Triangles, points: Sequence[Array32], patch: Array32) -> Array32:
        """Colours (rows, columns, 3), 0..255, of surface points.

        `triangle` (rows, columns) is where they lie, `points` are their x, y and z in the world, and `patch`
        is the size in metres of the surface that a colour is to average, all (rows, columns).
        """
        x, y = (
            along(axis, triangle, points) + offset.take(triangle)
            for axis, offset in zip(self._axes, self._offsets, strict=True)
        )
        level = np.log2(np.maximum(patch * self._density.take(triangle), 1e-6))
        return self._atlas.sample(self._facet_of_triangle.take(triangle), x, y, level)


def along(axes: Array32, triangle: Triangles, vectors: Sequence[Array32]) -> Array32:
    """Scalar products of the triangles' axes, the columns of (3, T), and vectors given as x, y and z."""
    x, y, z = (axis.take(triangle) * component for axis, component in zip(axes, vectors, strict=True))
    return x + y + z


def _triangulate(facets: Sequence[Facet]) -> tuple[trimesh.Trimesh, Triangles]:
    """The mesh of convex polygons as fans, and the facet of every triangle (T,)."""
    vertices, faces, owners, first = [], [], [], 0
    for number, facet in enumerate(facets):
        corners = facet.vertices
        vertices.append(corners)
        for i in range(1, len(corners) - 1):
            faces.append((first, first + i, first + i + 1))
            owners.append(number)
        first += len(corners)
    mesh = trimesh.Trimesh(np.concatenate(vertices), np.array(faces), process=False)
    return mesh, np.array(owners, np.int32)


def _paint(facet: Facet, light: Array32, rng: np.random.Generator) -> NDArray[np.uint8]:
    width, height = (max(2, round(side * facet.density)) for side in facet.size)
    picture = facet.paint(rng, height, width, facet.density)
    if not facet.glows:
        picture = picture * cv2.resize(light ** np.float32(1 / GAMMA), (width, height))
    return np.clip(255 * picture + 0.5, 0, 255).astype(np.uint8)
