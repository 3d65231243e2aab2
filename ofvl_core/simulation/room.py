"""A furnished room, drawn at random: walls with doors, windows and pictures, furniture, light."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import transform
from ofvl_core.simulation import textures
from ofvl_core.simulation.facets import Facet, Painter, box, rectangle
from ofvl_core.simulation.freespace import RESOLUTION, FreeSpace
from ofvl_core.simulation.furniture import ALONG_WALLS, FREE_STANDING, Piece, choose

Array = NDArray[np.float64]
Random = np.random.Generator

HEIGHT = 2.6
PASSAGE = 0.45  # metres: what a robot in the room needs on either side of its middle


@dataclass(frozen=True)
class Light:
    """A lit rectangle: corner (3,), two edges (3,), and its strength as red, green, blue (3,)."""

    corner: Array
    edges: tuple[Array, Array]
    strength: Array


@dataclass(frozen=True)
class Room:
    """A room of `length` x `width` x HEIGHT metres; the origin is the middle of its floor, z is up.

    The first `fixtures` of the facets are what it was built with: shell, doors, windows, what stands along
    the walls. The others are free-standing furniture and pictures.
    """

    length: float
    width: float
    facets: list[Facet]
    fixtures: int
    lights: list[Light]
    free: FreeSpace


@dataclass
class Wall:
    """One wall: x runs along it from its middle, y into the room. `taken` are (x0, x1, z0, z1) rectangles."""

    world_from_wall: Array
    length: float
    taken: list[tuple[float, float, float, float]]

    def fits(self, x0: float, x1: float, z0: float, z1: float, gap: float) -> bool:
        """Whether a rectangle lies on the wall and keeps clear of all that is there."""
        if x0 < -self.length / 2 or x1 > self.length / 2:
            return False
        return all(
            x1 + gap <= a or b + gap <= x0 or z1 + gap <= low or high + gap <= z0
            for a, b, low, high in self.taken
        )


def build(rng: Random, loose: Random | None = None) -> Room:
    """Draw a room of 4.2 to 5.2 by 3.5 to 4.2 metres.

    `loose`, by default `rng` itself, draws all that is no fixture: rooms that differ in it alone are twins.
    """
    length, width = rng.uniform(4.2, 5.2), rng.uniform(3.5, 4.2)
    walls = [
        Wall(_placed(x * length / 2, y * width / 2, np.arctan2(-y, -x) - np.pi / 2), span, [])
        for x, y, span in ((-1, 0, width), (1, 0, width), (0, -1, length), (0, 1, length))
    ]
    facets = _shell(rng, length, width, walls)
    lights = _ceiling_lights(rng, length, width, facets)
    for number, wall in enumerate(rng.permutation(np.array(walls, object))):
        if number == 0:
            _door(rng, wall, facets)
        elif number < 3:
            _window(rng, wall, facets, lights)
    footprints: list[Array] = []
    for wall in walls:
        _furnish_wall(rng, wall, (length, width), facets, footprints)
    fixtures = len(facets)
    loose = loose or rng
    _furnish_middle(loose, (length, width), facets, footprints)
    for wall in walls:
        _hang_pictures(loose, wall, facets)
    return Room(length, width, facets, fixtures, lights, FreeSpace(length, width, footprints))


def _placed(x: float, y: float, yaw: float) -> Array:
    return transform((x, y, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))


def _shell(rng: Random, length: float, width: float, walls: list[Wall]) -> list[Facet]:
    floor: Painter
    if rng.uniform() < 0.6:
        floor = textures.planks(textures.colour(rng, 0.08, 0.45, rng.uniform(0.45, 0.75)))
    else:
        floor = textures.tiles(textures.colour(rng, None, 0.2, 0.8), textures.colour(rng, None, 0.3, 0.55))
    ceiling = textures.plaster(textures.colour(rng, 0.12, 0.06, 0.93), textures.colour(rng, None, 0.14, 0.84))
    facets = [
        rectangle((0, 0, 0), (0, 0, 1), length, width, floor),
        rectangle((0, 0, HEIGHT), (0, 0, -1), length, width, ceiling, density=150),
    ]
    hue = rng.uniform()
    for number, wall in enumerate(walls):
        near = hue + 0.25 * number
        base = textures.colour(rng, near, rng.uniform(0.12, 0.34), rng.uniform(0.78, 0.92))
        second = textures.colour(
            rng, near + rng.uniform(0.05, 0.2), rng.uniform(0.15, 0.4), rng.uniform(0.66, 0.88)
        )
        paint = textures.plaster(base, second)
        if rng.uniform() < 0.4:
            paint = textures.wallpaper(base, second, textures.colour(rng, near + 0.4, 0.5, 0.6))
        facets.append(
            rectangle((0, 0, HEIGHT / 2), (0, 1, 0), wall.length, HEIGHT, paint).moved(wall.world_from_wall)
        )
        board = textures.plain(textures.colour(rng, near, 0.15, 0.9))
        low, high = (-wall.length / 2, 0, 0), (wall.length / 2, 0.015, 0.09)
        _add(facets, box(low, high, board, without=("bottom", "back", "left", "right")), wall.world_from_wall)
    return facets


def _ceiling_lights(rng: Random, length: float, width: float, facets: list[Facet]) -> list[Light]:
    lights = []
    for x in (-length / 4, length / 4):
        at = np.array([x + rng.uniform(-0.4, 0.4), rng.uniform(-0.15, 0.15) * width, HEIGHT])
        long, wide = rng.uniform(0.6, 1.1), rng.uniform(0.3, 0.6)
        shine = textures.plain(np.array([1.0, 0.98, 0.92], np.float32), 0.01, 0.0)
        metal = textures.plain(textures.colour(rng, None, 0.3, 0.6))
        low, high = at + np.array([-long / 2, -wide / 2, -0.06]), at + np.array([long / 2, wide / 2, 0])
        facets += box(low, high, metal, without=("top", "bottom"))
        facets.append(rectangle(at - np.array([0, 0, 0.06]), (0, 0, -1), long, wide, shine, glows=True))
        strength = rng.uniform(2.1, 2.7) * np.array([1.0, 0.96, 0.9]) / (long * wide)
        edges = (np.array([long, 0, 0]), np.array([0, wide, 0]))
        lights.append(Light(low - np.array([0, 0, 0.005]), edges, strength))
    return lights


def _door(rng: Random, wall: Wall, facets: list[Facet]) -> None:
    x = rng.uniform(-0.5, 0.5) * (wall.length - 1.2)
    painted = textures.door(textures.colour(rng, None, 0.4, 0.6))
    frame = textures.plain(textures.colour(rng, None, 0.1, 0.9))
    case = box((x - 0.5, 0, 0), (x + 0.5, 0.025, 2.1), frame, without=("back", "bottom"))
    leaf = rectangle((x, 0.03, 1.01), (0, 1, 0), 0.86, 2.02, painted)
    _add(facets, [*case, leaf], wall.world_from_wall)
    wall.taken.append((x - 0.5, x + 0.5, 0.0, 2.1))


def _window(rng: Random, wall: Wall, facets: list[Facet], lights: list[Light]) -> None:
    wide, low, high = rng.uniform(1.1, 1.8), rng.uniform(0.85, 1.0), rng.uniform(1.9, 2.2)
    x = rng.uniform(-0.5, 0.5) * (wall.length - wide - 0.8)
    white = textures.plain(np.full(3, 0.92, np.float32))
    half = wide / 2 + 0.06
    parts = box((x - half, 0, low - 0.06), (x + half, 0.16, low), white, without=("back",))
    pane = rectangle((x, 0.012, (low + high) / 2), (0, 1, 0), wide, high - low, textures.window, glows=True)
    hem, span = rng.uniform(0.25, 0.4), wide / 2 + 0.1
    fabric = textures.stripes(
        textures.colour(rng, None, 0.5, 0.6), textures.colour(rng, None, 0.4, 0.8), rng.uniform(0.03, 0.09)
    )
    for side in (-1, 1):
        left, right = sorted((x + side * span, x + side * (span - hem)))
        parts += box((left, 0.03, low - 0.35), (right, 0.09, high + 0.12), fabric, without=())
    _add(facets, [*parts, pane], wall.world_from_wall)
    turn = wall.world_from_wall[:3, :3]
    corner = turn @ np.array([x - wide / 2, 0.1, low]) + wall.world_from_wall[:3, 3]
    edges = (turn @ np.array([wide, 0, 0]), np.array([0, 0, high - low]))
    strength = rng.uniform(1.0, 1.5) * np.array([0.9, 0.95, 1.05]) / (wide * (high - low))
    lights.append(Light(corner, edges, strength))
    wall.taken.append((x - span - 0.06, x + span + 0.06, low - 0.35, high + 0.12))


def _furnish_wall(
    rng: Random, wall: Wall, room: tuple[float, float], facets: list[Facet], footprints: list[Array]
) -> None:
    x = -wall.length / 2 + rng.uniform(0.02, 0.3)
    while x < wall.length / 2 - 0.4:
        piece = choose(rng, ALONG_WALLS)
        world_from_piece = wall.world_from_wall @ transform((x + piece.width / 2, 0.02, 0), (0, 0, 0, 1))
        outline = _outline(piece, world_from_piece)
        on_wall = (x, x + piece.width, 0.0, piece.height)
        if wall.fits(*on_wall, gap=0.03) and _acceptable(room, footprints, outline):
            _add(facets, piece.facets, world_from_piece)
            footprints.append(outline)
            wall.taken.append(on_wall)
            x += piece.width + rng.uniform(0.05, 0.5)
        else:
            x += 0.15


def _furnish_middle(
    rng: Random, room: tuple[float, float], facets: list[Facet], footprints: list[Array]
) -> None:
    long, wide = rng.uniform(1.4, 2.2), rng.uniform(1.0, 1.5)
    carpet = rectangle((0, 0, 0.006), (0, 0, 1), long, wide, textures.rug(rng.uniform()))
    _add(facets, [carpet], _placed(rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)))
    wanted = 2 if room[0] * room[1] < 26 else 3
    for _ in range(30):
        piece = choose(rng, FREE_STANDING)
        x, y = rng.uniform(-0.5, 0.5, 2) * (np.array(room) - 1.0)
        middle_from_back = transform((0, -piece.depth / 2, 0), (0, 0, 0, 1))
        world_from_piece = _placed(x, y, rng.uniform(-np.pi, np.pi)) @ middle_from_back
        outline = _outline(piece, world_from_piece)
        if _acceptable(room, footprints, outline):
            _add(facets, piece.facets, world_from_piece)
            footprints.append(outline)
            wanted -= 1
        if wanted == 0:
            break


def _outline(piece: Piece, world_from_piece: Array) -> Array:
    x, y = piece.width / 2, piece.depth
    corners = np.array([[-x, 0], [x, 0], [x, y], [-x, y]])
    return corners @ world_from_piece[:2, :2].T + world_from_piece[:2, 3]


def _acceptable(room: tuple[float, float], footprints: list[Array], new: Array) -> bool:
    """Whether a new footprint is inside, touches no other, and leaves one wide region to drive in."""
    if (np.abs(new) > np.array(room) / 2).any():
        return False
    samples = np.stack(np.meshgrid(np.linspace(0, 1, 12), np.linspace(0, 1, 12)), axis=-1).reshape(-1, 2)
    inside = new[0] + samples[:, :1] * (new[1] - new[0]) + samples[:, 1:] * (new[3] - new[0])
    empty_walls = FreeSpace(room[0] + 2, room[1] + 2, footprints)
    if footprints and empty_walls.clearance(inside).min() < 0.05:
        return False
    free = FreeSpace(*room, [*footprints, new])
    area = len(free.places(PASSAGE)) * RESOLUTION**2
    return free.connected(PASSAGE) and area > 0.2 * room[0] * room[1]


def _hang_pictures(rng: Random, wall: Wall, facets: list[Facet]) -> None:
    for _ in range(40):
        wide, tall = rng.uniform(0.25, 1.0), rng.uniform(0.25, 0.75)
        x, z = rng.uniform(-0.5, 0.5) * (wall.length - wide - 0.1), rng.uniform(0.75, 2.2)
        where = (x - wide / 2, x + wide / 2, z - tall / 2, z + tall / 2)
        if z + tall / 2 > HEIGHT - 0.15 or not wall.fits(*where, gap=0.07):
            continue
        low, high = (where[0], 0.0, where[2]), (where[1], 0.025, where[3])
        edge = textures.plain(textures.colour(rng, None, 0.4, 0.4))
        image = textures.art if rng.uniform() < 0.7 else textures.notice
        _add(facets, box(low, high, edge, front=image, without=("back",)), wall.world_from_wall)
        wall.taken.append(where)


def _add(facets: list[Facet], new: list[Facet], world_from_item: Array) -> None:
    facets += [facet.moved(world_from_item) for facet in new]
