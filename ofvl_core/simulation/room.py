"""A furnished room, drawn at random: walls with doors, windows and pictures, furniture, light."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import transform
from ofvl_core.simulation import textures
from ofvl_core.simulation.facets import Facet, Painter, box, rectangle
from ofvl_core.simulation.freespace import RESOLUTION, FreeSpace
from ofvl_core.simulation.furniture import ALONG_WALLS, FREE_STANDING, Catalogue, Piece, choose

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
    """A room of `length` x `width` metres, of any height; the origin is the middle of its floor, z is up.

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
    height: float = HEIGHT
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

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
    walls = walls_around(length, width, HEIGHT)
    facets = painted_shell(rng, length, width, walls)
    lights = [
        ceiling_light(rng, x + rng.uniform(-0.4, 0.4), rng.uniform(-0.15, 0.15) * width, HEIGHT, facets)
        for x in (-length / 4, length / 4)
    ]
    for number, wall in enumerate(rng.permutation(np.array(walls, object))):
        if number == 0:
            hang_door(rng, wall, facets)
        elif number < 3:
            put_window(rng, wall, facets, lights)
    footprints: list[Array] = []
    for wall in walls:
        furnish_wall(rng, wall, (length, width), ALONG_WALLS, facets, footprints)
    fixtures = len(facets)
    loose = loose or rng
    lay_rug(loose, facets)
    furnish_middle(loose, (length, width), FREE_STANDING, 2 if length * width < 26 else 3, facets, footprints)
    for wall in walls:
        hang_pictures(loose, wall, facets)
    return Room(length, width, facets, fixtures, lights, FreeSpace(length, width, footprints))


def walls_around(length: float, width: float, height: float) -> list[Wall]:
    """The bare walls behind, ahead, to the right and to the left of who looks along x."""
    return [
        Wall(placed(x * length / 2, y * width / 2, np.arctan2(-y, -x) - np.pi / 2), span, height)
        for x, y, span in ((-1, 0, width), (1, 0, width), (0, -1, length), (0, 1, length))
    ]


def placed(x: float, y: float, yaw: float) -> Array:
    """world_from_item of what stands on the floor."""
    return transform((x, y, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))


def painted_shell(rng: Random, length: float, width: float, walls: list[Wall]) -> list[Facet]:
    """Floor, ceiling and walls of a room to live in, with skirting boards."""
    height = walls[0].height
    floor: Painter
    if rng.uniform() < 0.6:
        floor = textures.planks(textures.colour(rng, 0.08, 0.45, rng.uniform(0.45, 0.75)))
    else:
        floor = textures.tiles(textures.colour(rng, None, 0.2, 0.8), textures.colour(rng, None, 0.3, 0.55))
    ceiling = textures.plaster(textures.colour(rng, 0.12, 0.06, 0.93), textures.colour(rng, None, 0.14, 0.84))
    facets = [
        rectangle((0, 0, 0), (0, 0, 1), length, width, floor),
        rectangle((0, 0, height), (0, 0, -1), length, width, ceiling, density=150),
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
            rectangle((0, 0, height / 2), (0, 1, 0), wall.length, height, paint).moved(wall.world_from_wall)
        )
        board = textures.plain(textures.colour(rng, near, 0.15, 0.9))
        low, high = (-wall.length / 2, 0, 0), (wall.length / 2, 0.015, 0.09)
        add(facets, box(low, high, board, without=("bottom", "back", "left", "right")), wall.world_from_wall)
    return facets


def ceiling_light(rng: Random, x: float, y: float, height: float, facets: list[Facet]) -> Light:
    """Hang a flat lamp under the ceiling."""
    at = np.array([x, y, height])
    long, wide = rng.uniform(0.6, 1.1), rng.uniform(0.3, 0.6)
    shine = textures.plain(np.array([1.0, 0.98, 0.92], np.float32), 0.01, 0.0)
    metal = textures.plain(textures.colour(rng, None, 0.3, 0.6))
    low, high = at + np.array([-long / 2, -wide / 2, -0.06]), at + np.array([long / 2, wide / 2, 0])
    facets += box(low, high, metal, without=("top", "bottom"))
    facets.append(rectangle(at - np.array([0, 0, 0.06]), (0, 0, -1), long, wide, shine, glows=True))
    strength = rng.uniform(2.1, 2.7) * np.array([1.0, 0.96, 0.9]) / (long * wide)
    edges = (np.array([long, 0, 0]), np.array([0, wide, 0]))
    return Light(low - np.array([0, 0, 0.005]), edges, strength)


def hang_door(rng: Random, wall: Wall, facets: list[Facet]) -> None:
    """A door somewhere in a wall."""
    x = rng.uniform(-0.5, 0.5) * (wall.length - 1.2)
    painted = textures.door(textures.colour(rng, None, 0.4, 0.6))
    frame = textures.plain(textures.colour(rng, None, 0.1, 0.9))
    case = box((x - 0.5, 0, 0), (x + 0.5, 0.025, 2.1), frame, without=("back", "bottom"))
    leaf = rectangle((x, 0.03, 1.01), (0, 1, 0), 0.86, 2.02, painted)
    add(facets, [*case, leaf], wall.world_from_wall)
    wall.taken.append((x - 0.5, x + 0.5, 0.0, 2.1))


def put_window(rng: Random, wall: Wall, facets: list[Facet], lights: list[Light]) -> None:
    """A window with curtains somewhere in a wall, and the light that falls in."""
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
    add(facets, [*parts, pane], wall.world_from_wall)
    turn = wall.world_from_wall[:3, :3]
    corner = turn @ np.array([x - wide / 2, 0.1, low]) + wall.world_from_wall[:3, 3]
    edges = (turn @ np.array([wide, 0, 0]), np.array([0, 0, high - low]))
    strength = rng.uniform(1.0, 1.5) * np.array([0.9, 0.95, 1.05]) / (wide * (high - low))
    lights.append(Light(corner, edges, strength))
    wall.taken.append((x - span - 0.06, x + span + 0.06, low - 0.35, high + 0.12))


def furnish_wall(
    rng: Random,
    wall: Wall,
    room: tuple[float, float],
    catalogue: Catalogue,
    facets: list[Facet],
    footprints: list[Array],
) -> None:
    """Stand furniture along a wall, from one end to the other."""
    x = -wall.length / 2 + rng.uniform(0.02, 0.3)
    while x < wall.length / 2 - 0.4:
        piece = choose(rng, catalogue)
        world_from_piece = wall.world_from_wall @ transform((x + piece.width / 2, 0.02, 0), (0, 0, 0, 1))
        on_wall = (x, x + piece.width, 0.0, piece.height)
        if wall.fits(*on_wall, gap=0.03) and stand(piece, world_from_piece, room, facets, footprints):
            wall.taken.append(on_wall)
            x += piece.width + rng.uniform(0.05, 0.5)
        else:
            x += 0.15


def lay_rug(rng: Random, facets: list[Facet]) -> None:
    """A rug near the room's middle."""
    long, wide = rng.uniform(1.4, 2.2), rng.uniform(1.0, 1.5)
    carpet = rectangle((0, 0, 0.006), (0, 0, 1), long, wide, textures.rug(rng.uniform()))
    add(facets, [carpet], placed(rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)))


def furnish_middle(
    rng: Random,
    room: tuple[float, float],
    catalogue: Catalogue,
    wanted: int,
    facets: list[Facet],
    footprints: list[Array],
) -> None:
    """Stand up to `wanted` pieces of furniture anywhere."""
    for _ in range(30):
        piece = choose(rng, catalogue)
        x, y = rng.uniform(-0.5, 0.5, 2) * (np.array(room) - 1.0)
        middle_from_back = transform((0, -piece.depth / 2, 0), (0, 0, 0, 1))
        world_from_piece = placed(x, y, rng.uniform(-np.pi, np.pi)) @ middle_from_back
        if stand(piece, world_from_piece, room, facets, footprints):
            wanted -= 1
        if wanted == 0:
            break


def stand(
    piece: Piece,
    world_from_piece: Array,
    room: tuple[float, float],
    facets: list[Facet],
    footprints: list[Array],
) -> bool:
    """Put a piece somewhere if it may stand there, and say whether it may."""
    outline = _outline(piece, world_from_piece)
    acceptable = _acceptable(room, footprints, outline)
    if acceptable:
        add(facets, piece.facets, world_from_piece)
        footprints.append(outline)
    return acceptable


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


def hang_pictures(rng: Random, wall: Wall, facets: list[Facet]) -> None:
    """Framed pictures and notices wherever a wall has room for them."""
    for _ in range(40):
        wide, tall = rng.uniform(0.25, 1.0), rng.uniform(0.25, 0.75)
        x, z = rng.uniform(-0.5, 0.5) * (wall.length - wide - 0.1), rng.uniform(0.75, 2.2)
        where = (x - wide / 2, x + wide / 2, z - tall / 2, z + tall / 2)
        if z + tall / 2 > wall.height - 0.15 or not wall.fits(*where, gap=0.07):
            continue
        low, high = (where[0], 0.0, where[2]), (where[1], 0.025, where[3])
        edge = textures.plain(textures.colour(rng, None, 0.4, 0.4))
        image = textures.art if rng.uniform() < 0.7 else textures.notice
        add(facets, box(low, high, edge, front=image, without=("back",)), wall.world_from_wall)
        wall.taken.append(where)


def add(facets: list[Facet], new: list[Facet], world_from_item: Array) -> None:
    """Append an item's facets, which are given in its own frame."""
    facets += [facet.moved(world_from_item) for facet in new]
