"""Pieces of furniture, each built at random.

In a piece's own frame x runs along its width, its back stands on y = 0, its front looks along y, z is up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ofvl_core.geometry import transform
from ofvl_core.simulation import textures
from ofvl_core.simulation.facets import UP, Facet, Painter, box, prism, rectangle

Random = np.random.Generator


@dataclass(frozen=True)
class Piece:
    """Facets in the piece's own frame and the box that they fill, metres."""

    facets: list[Facet]
    width: float
    depth: float
    height: float


def cloth(rng: Random) -> Painter:
    """Plain, striped or checked fabric."""
    base = textures.colour(rng, None, 0.5, rng.uniform(0.35, 0.8))
    if rng.uniform() < 0.4:
        return textures.plain(base, 0.08, 0.04)
    second = textures.colour(rng, None, 0.4, rng.uniform(0.3, 0.9))
    return textures.stripes(base, second, rng.uniform(0.03, 0.12), checked=bool(rng.uniform() < 0.5))


def timber(rng: Random) -> Painter:
    """Wood between pale pine and dark walnut, sometimes painted."""
    if rng.uniform() < 0.3:
        return textures.wood(textures.colour(rng, None, 0.35, 0.75))
    return textures.wood(textures.colour(rng, 0.08, rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.8)))


def ornaments(rng: Random, low: float, high: float, depth: float, top: float, count: int) -> list[Facet]:
    """Vases, boxes, books and pictures on a surface at height `top`, between x = low and x = high."""
    facets: list[Facet] = []
    slots = np.linspace(low, high, count + 1)
    for left, right in pairwise(slots):
        room = min(right - left, depth) * 0.42
        x, y = (left + right) / 2, depth / 2 + rng.uniform(-0.05, 0.05)
        match rng.integers(4):
            case 0:
                paint = textures.plain(textures.colour(rng, None, 0.7, 0.7), 0.12)
                radius = min(room, rng.uniform(0.05, 0.09))
                facets += prism(
                    (x, y, top), radius, radius * rng.uniform(0.5, 1.3), rng.uniform(0.15, 0.35), paint
                )
            case 1:
                half, tall = min(room, 0.14), rng.uniform(0.1, 0.28)
                facets += box((x - half, y - 0.09, top), (x + half, y + 0.09, top + tall), cloth(rng))
            case 2:
                half, tall = min(room, 0.18), rng.uniform(0.2, 0.4)
                wooden = timber(rng)
                facets += box(
                    (x - half, 0.05, top),
                    (x + half, 0.08, top + tall),
                    wooden,
                    front=textures.art,
                    back=wooden,
                )
            case _:
                half = min(room, 0.15)
                edge = textures.plain(textures.colour(rng, 0.12, 0.15, 0.9))
                facets += box(
                    (x - half, y - 0.1, top), (x + half, y + 0.1, top + 0.22), edge, front=textures.spines
                )
    return facets


def bookcase(rng: Random) -> Piece:
    width, depth, height = rng.uniform(0.7, 1.3), 0.32, rng.uniform(1.1, 2.05)
    wooden, board = timber(rng), 0.025
    facets = box((-width / 2, 0, 0), (-width / 2 + board, depth, height), wooden)
    facets += box((width / 2 - board, 0, 0), (width / 2, depth, height), wooden)
    facets += [rectangle((0, 0.01, height / 2), (0, 1, 0), width, height, wooden)]
    shelves = np.linspace(0.06, height - board, round(height / 0.36) + 1)
    for z in shelves:
        facets += box(
            (-width / 2, 0, z), (width / 2, depth, z + board), wooden, without=("left", "right", "back")
        )
    for z, above in pairwise(shelves):
        x, space = -width / 2 + board, above - z - board
        while x < width / 2 - 0.2:
            long = min(rng.uniform(0.15, 0.5), width / 2 - board - x)
            if rng.uniform() < 0.75:
                tall, deep = space * rng.uniform(0.6, 0.92), depth * rng.uniform(0.6, 0.92)
                side = textures.plain(textures.colour(rng, None, 0.5, 0.6))
                facets += box(
                    (x, 0.01, z + board),
                    (x + long - 0.01, deep, z + board + tall),
                    side,
                    front=textures.spines,
                    without=("bottom", "back"),
                )
            elif rng.uniform() < 0.7:
                radius = min(long / 2, rng.uniform(0.05, 0.1))
                paint = textures.plain(textures.colour(rng, None, 0.7, 0.75), 0.12)
                at = (x + long / 2, depth * 0.5, z + board)
                facets += prism(at, radius * 0.7, radius, space * rng.uniform(0.4, 0.8), paint, sides=8)
            x += long
    return Piece(facets, width, depth, height)


def _carcass(width: float, depth: float, height: float, base: textures.Colour, front: Painter) -> list[Facet]:
    """A wooden body against a wall, centred, whose front is what it is known by."""
    return box(
        (-width / 2, 0, 0),
        (width / 2, depth, height),
        textures.wood(base),
        front=front,
        without=("bottom", "back"),
    )


def cabinet(rng: Random) -> Piece:
    width, depth, height = rng.uniform(0.8, 1.6), rng.uniform(0.4, 0.5), rng.uniform(0.6, 1.0)
    base = textures.colour(rng, None if rng.uniform() < 0.4 else 0.08, 0.45, rng.uniform(0.4, 0.8))
    front = textures.drawers(base, int(rng.integers(2, 4)), int(rng.integers(2, 4)))
    facets = _carcass(width, depth, height, base, front)
    facets += ornaments(rng, -width / 2 + 0.05, width / 2 - 0.05, depth, height, int(rng.integers(2, 5)))
    return Piece(facets, width, depth, height + 0.4)


def wardrobe(rng: Random) -> Piece:
    width, depth, height = rng.uniform(0.9, 1.4), 0.55, rng.uniform(1.8, 2.15)
    base = textures.colour(rng, None if rng.uniform() < 0.5 else 0.08, 0.4, rng.uniform(0.4, 0.85))
    front = textures.drawers(base, 1, int(rng.integers(2, 4)))
    if rng.uniform() < 0.5:
        front = textures.drawers(base, 2, 2)
    facets = _carcass(width, depth, height, base, front)
    for _ in range(int(rng.integers(0, 3))):
        x, z = rng.uniform(-width / 2 + 0.2, width / 2 - 0.2), rng.uniform(0.8, height - 0.3)
        facets += [rectangle((x, depth + 0.003, z), (0, 1, 0), 0.21, 0.3, textures.notice, density=400)]
    return Piece(facets, width, depth, height)


def sofa(rng: Random) -> Piece:
    width, depth, seat, height = rng.uniform(1.3, 2.1), rng.uniform(0.75, 0.9), 0.42, rng.uniform(0.75, 0.9)
    fabric, cushion, arm, back = cloth(rng), cloth(rng), 0.18, 0.2
    half = width / 2
    facets = box((-half, 0, 0.05), (half, back, height), fabric, without=("bottom", "back"))
    facets += box((-half, back, 0.05), (half, depth - 0.03, seat - 0.14), fabric, without=("bottom", "back"))
    for side in (-1, 1):
        low, high = sorted((side * half, side * (half - arm)))
        facets += box((low, 0, 0.05), (high, depth, 0.6), fabric, without=("bottom", "back"))
    seats = round((width - 2 * arm) / 0.65)
    edges = np.linspace(-half + arm, half - arm, seats + 1)
    for left, right in pairwise(edges):
        facets += box((left + 0.005, back, seat - 0.14), (right - 0.005, depth, seat), cushion)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-half + arm + 0.22, half - arm - 0.22), back + rng.uniform(0.0, 0.05)
        facets += box((x - 0.2, y, seat), (x + 0.2, y + 0.13, seat + 0.36), cloth(rng))
    return Piece(facets, width, depth, height)


def desk(rng: Random) -> Piece:
    width, depth, height = rng.uniform(1.1, 1.6), rng.uniform(0.55, 0.7), 0.74
    wooden = timber(rng)
    facets = box((-width / 2, 0, height - 0.04), (width / 2, depth, height), wooden, without=("back",))
    chest = width / 2 - 0.42
    base = textures.colour(rng, None, 0.4, 0.65)
    facets += box(
        (chest, 0, 0),
        (width / 2 - 0.02, depth - 0.03, height - 0.04),
        textures.wood(base),
        front=textures.drawers(base, 3, 1),
        without=("top", "bottom", "back"),
    )
    facets += box((-width / 2, 0.02, 0), (-width / 2 + 0.05, depth - 0.02, height - 0.04), wooden)
    x, dark = rng.uniform(-width / 4, width / 5), textures.plain(np.full(3, 0.1, np.float32))
    facets += box((x - 0.03, 0.15, height), (x + 0.03, 0.18, height + 0.15), dark)
    facets += box((x - 0.29, 0.17, height + 0.1), (x + 0.29, 0.20, height + 0.44), dark)
    facets += [rectangle((x, 0.203, height + 0.27), (0, 1, 0), 0.58, 0.34, textures.screen, glows=True)]
    facets += ornaments(rng, x + 0.3, width / 2, depth, height, 1)
    return Piece(facets, width, depth, height + 0.5)


def bed(rng: Random) -> Piece:
    width, depth = rng.uniform(1.2, 1.6), 2.0
    wooden, blanket = timber(rng), cloth(rng)
    facets = box((-width / 2, 0, 0), (width / 2, 0.06, 0.95), wooden)
    facets += box((-width / 2, 0.06, 0.08), (width / 2, depth, 0.3), wooden, without=("bottom", "back"))
    facets += box((-width / 2 + 0.02, 0.06, 0.3), (width / 2 - 0.02, depth - 0.02, 0.5), cloth(rng))
    facets += box((-width / 2, 0.7, 0.28), (width / 2, depth + 0.01, 0.53), blanket)
    for x in (-width / 4, width / 4):
        facets += box((x - 0.26, 0.08, 0.5), (x + 0.26, 0.45, 0.63), cloth(rng))
    return Piece(facets, width, depth + 0.01, 0.95)


def plant(rng: Random) -> Piece:
    pot, tall = rng.uniform(0.14, 0.19), rng.uniform(0.9, 1.5)
    facets = prism(
        (0, 0.3, 0), pot * 0.75, pot, 0.32, textures.plain(textures.colour(rng, None, 0.6, 0.6), 0.12)
    )
    facets += prism(
        (0, 0.3, 0.3), 0.03, 0.02, tall - 0.5, textures.wood(textures.colour(rng, 0.08, 0.5, 0.35))
    )
    hue = rng.uniform(0.22, 0.4)
    for _ in range(26):
        direction = rng.normal(0, 1, 3) * (1, 1, 0.5)
        direction /= np.linalg.norm(direction)
        along = direction + UP * 0.6
        along /= np.linalg.norm(along)
        across = np.cross(along, rng.normal(0, 1, 3))
        across /= np.linalg.norm(across)
        long, wide = rng.uniform(0.14, 0.2), rng.uniform(0.08, 0.12)
        middle = np.array([0, 0.3, tall - 0.25]) + direction * rng.uniform(0.03, 0.13)
        corner = middle - across * wide / 2
        outline = np.array([[0.5, 0], [1, 0.35], [0.85, 0.75], [0.5, 1], [0.15, 0.75], [0, 0.35]]) * (
            wide,
            long,
        )
        green = textures.plain(textures.colour(rng, hue, 0.65, rng.uniform(0.3, 0.65)), 0.1)
        facets.append(Facet(corner, across, along, outline, green))
    return Piece(facets, 0.6, 0.6, tall + 0.15)


def lamp(rng: Random) -> Piece:
    tall = rng.uniform(1.3, 1.65)
    metal = textures.plain(textures.colour(rng, None, 0.3, rng.uniform(0.2, 0.8)))
    facets = prism((0, 0.22, 0), 0.16, 0.15, 0.03, metal)
    facets += prism((0, 0.22, 0.03), 0.022, 0.022, tall - 0.25, metal, sides=6)
    shade = textures.plain(textures.colour(rng, 0.12, 0.3, 0.92), 0.06)
    facets += prism((0, 0.22, tall - 0.25), 0.2, 0.13, 0.27, shade, sides=12, glows=True)
    return Piece(facets, 0.44, 0.44, tall + 0.02)


def boxes(rng: Random) -> Piece:
    """A stack of cardboard boxes."""
    width, depth, z = rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.5), 0.0
    facets: list[Facet] = []
    for _ in range(int(rng.integers(1, 4))):
        inset, tall = rng.uniform(0, 0.08, 2), rng.uniform(0.22, 0.38)
        card = textures.plain(textures.colour(rng, rng.choice([0.08, rng.uniform()]), 0.5, 0.65), 0.06)
        label = textures.notice if rng.uniform() < 0.6 else textures.art
        low = (-width / 2 + inset[0], 0.02 + inset[1], z)
        facets += box(low, (width / 2 - inset[1], depth - inset[0], z + tall), card, front=label)
        z += tall
    return Piece(facets, width, depth, z)


def coffee_table(rng: Random) -> Piece:
    return table(rng, rng.uniform(0.7, 1.0), rng.uniform(0.45, 0.6), rng.uniform(0.38, 0.46))


def dining_table(rng: Random) -> Piece:
    return table(rng, rng.uniform(0.9, 1.3), rng.uniform(0.7, 0.85), 0.73)


def table(rng: Random, width: float, depth: float, height: float) -> Piece:
    wooden, leg = timber(rng), 0.06
    facets = box((-width / 2, 0, height - 0.04), (width / 2, depth, height), wooden, without=())
    for x in (-width / 2 + 0.03, width / 2 - 0.03 - leg):
        for y in (0.03, depth - 0.03 - leg):
            facets += box((x, y, 0), (x + leg, y + leg, height - 0.04), wooden, without=("top", "bottom"))
    facets += ornaments(rng, -width / 2 + 0.1, width / 2 - 0.1, depth, height, int(rng.integers(1, 4)))
    return Piece(facets, width, depth, height + 0.35)


def chair(rng: Random) -> Piece:
    wooden, leg, half = timber(rng), 0.045, 0.21
    facets = box((-half, 0, 0.42), (half, 0.42, 0.47), wooden, without=(), top=cloth(rng))
    for x in (-half, half - leg):
        facets += box((x, 0, 0), (x + leg, leg, 0.42), wooden, without=("top", "bottom"))
        facets += box((x, 0.42 - leg, 0), (x + leg, 0.42, 0.42), wooden, without=("top", "bottom"))
        facets += box((x, 0, 0.47), (x + leg, 0.03, 0.9), wooden)
    facets += box((-half, 0.002, 0.62), (half, 0.028, 0.88), wooden, front=cloth(rng), without=())
    return Piece(facets, 2 * half, 0.42, 0.9)


def ottoman(rng: Random) -> Piece:
    width, depth, height = rng.uniform(0.45, 0.7), rng.uniform(0.45, 0.6), rng.uniform(0.38, 0.46)
    return Piece(
        box((-width / 2, 0, 0), (width / 2, depth, height), cloth(rng), top=cloth(rng)), width, depth, height
    )


def workbench(rng: Random) -> Piece:
    """A laboratory's bench, whose back is a board full of tools and papers."""
    width, depth, height = rng.uniform(1.4, 2.0), 0.75, 0.85
    piece = table(rng, width, depth, height)
    board = textures.plain(textures.colour(rng, None, 0.3, 0.6))
    facets = box((-width / 2, 0, height), (width / 2, 0.03, height + 0.5), board, front=textures.notice)
    return Piece([*piece.facets, *facets], width, depth, height + 0.5)


def pillar(side: float, height: float, paint: Painter) -> Piece:
    """A square column that carries the ceiling."""
    facets = box((-side / 2, 0, 0), (side / 2, side, height), paint, without=("top", "bottom"))
    return Piece(facets, side, side, height)


def car(rng: Random) -> Piece:
    """A small car, parked with its tail to the back."""
    width, depth, height = rng.uniform(1.45, 1.6), rng.uniform(2.7, 3.1), rng.uniform(1.4, 1.55)
    lacquer = textures.plain(textures.colour(rng, None, rng.choice([0.1, 0.7]), rng.uniform(0.3, 0.85)), 0.03)
    dark = textures.plain(textures.colour(rng, None, 0.1, 0.12))
    half, belt, hood = width / 2, 0.55 * height, depth - rng.uniform(0.6, 0.8)
    facets = box((-half, 0, 0.2), (half, depth, belt), lacquer, without=())
    facets += box((-half + 0.08, 0.1, belt), (half - 0.08, hood, height), textures.glazing, top=lacquer)
    facets += [rectangle((0, depth + 0.004, 0.38), (0, 1, 0), 0.52, 0.12, textures.notice)]
    for x in (-half + 0.2, half - 0.2):
        lens = textures.plain(textures.colour(rng, 0.12, 0.1, 0.95), 0.02)
        facets += [rectangle((x, depth + 0.004, belt - 0.14), (0, 1, 0), 0.26, 0.14, lens)]
    radius, thick = 0.27, 0.17
    for side in (-1, 1):
        axle = side * (half - thick + 0.02)
        for y in (0.5, depth - 0.5):
            lying = transform((axle, y, radius), (0, side * np.sqrt(0.5), 0, np.sqrt(0.5)))
            facets += [facet.moved(lying) for facet in prism((0, 0, 0), radius, radius, thick, dark)]
    return Piece(facets, width, depth, height)


Catalogue = dict[Callable[[Random], Piece], float]
"""Makers of pieces, with how often each is chosen."""

# What stands along walls and what stands free in rooms to live in.
ALONG_WALLS: Catalogue = {
    bookcase: 3.0,
    cabinet: 3.0,
    wardrobe: 1.5,
    sofa: 2.0,
    desk: 1.5,
    bed: 0.7,
    plant: 1.5,
    lamp: 1.0,
    boxes: 1.0,
    chair: 1.0,
}
FREE_STANDING: Catalogue = {
    coffee_table: 2.0,
    dining_table: 1.0,
    chair: 1.5,
    ottoman: 1.5,
}
# What a laboratory and a hall have instead.
LABORATORY_WALLS: Catalogue = {
    workbench: 3.0,
    desk: 2.5,
    bookcase: 2.5,
    cabinet: 1.5,
    wardrobe: 1.5,
    boxes: 1.0,
    plant: 0.5,
}
LABORATORY_MIDDLE: Catalogue = {workbench: 2.0, dining_table: 2.0, chair: 2.0, boxes: 1.0, cabinet: 1.0}
HALL_WALLS: Catalogue = {wardrobe: 2.0, cabinet: 1.5, sofa: 1.0, plant: 1.5, bookcase: 0.7, boxes: 0.5}
HALL_MIDDLE: Catalogue = {ottoman: 1.5, coffee_table: 1.0, plant: 1.0}


def choose(rng: Random, catalogue: Catalogue) -> Piece:
    """Build a random piece of a catalogue."""
    makers, weights = list(catalogue), np.array(list(catalogue.values()))
    return makers[int(rng.choice(len(makers), p=weights / weights.sum()))](rng)
