"""Four places of the sizes that the paper recorded: a laboratory, a hall and two parking decks.

The paper's scenes (OFVL-MS's LIVL data set): K544 (12 x 9 m), Floor5 (12 x 5 m), Parking_lot1 (8 x 6 m) and
Parking_lot2 (8 x 8 m).
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ofvl_core.simulation import furniture, textures
from ofvl_core.simulation.facets import UP, Facet, Painter, box, rectangle
from ofvl_core.simulation.freespace import FreeSpace
from ofvl_core.simulation.room import (
    Light,
    Room,
    Wall,
    add,
    ceiling_light,
    furnish_middle,
    furnish_wall,
    hang_door,
    hang_pictures,
    painted_shell,
    placed,
    put_window,
    stand,
    walls_around,
)

Array = NDArray[np.float64]
Random = np.random.Generator
Builder = Callable[[Random, Random | None], Room]

LABORATORY_HEIGHT, HALL_HEIGHT, DECK_HEIGHT = 3.2, 3.0, 2.9
BEAM = 0.25  # metres that a deck's beams are high
BAY, BAY_DEPTH = 2.4, 2.6  # metres from one bay's line to the next, and the lines' length
PILLAR = 0.35  # metres
FLOOR_DENSITY, WALL_DENSITY, CEILING_DENSITY = 240.0, 200.0, 100.0  # texels per metre of a parking deck
MARKING = 0.004  # metres that paint lies above what it is painted on


def laboratory(rng: Random, loose: Random | None = None) -> Room:
    """K544: benches, desks and shelves along the walls of 12 x 9 m, more in the middle, two pillars."""
    size, footprints = (12.0, 9.0), list[Array]()
    walls, facets, lights = _storey(rng, size, LABORATORY_HEIGHT, (3, 2))
    for x in (-2.3, 2.3):
        paint = textures.plaster(textures.colour(rng, None, 0.2, 0.85), textures.colour(rng, None, 0.3, 0.7))
        column = furniture.pillar(0.45, LABORATORY_HEIGHT, paint)
        stand(column, placed(x, rng.uniform(-0.6, 0.6), 0.0), size, facets, footprints)
    for wall in walls:
        furnish_wall(rng, wall, size, furniture.LABORATORY_WALLS, facets, footprints)
    fixtures, loose = len(facets), loose or rng
    furnish_middle(loose, size, furniture.LABORATORY_MIDDLE, 4, facets, footprints)
    for wall in walls:
        hang_pictures(loose, wall, facets)
    return Room(*size, facets, fixtures, lights, FreeSpace(*size, footprints))


def hall(rng: Random, loose: Random | None = None) -> Room:
    """Floor5: 12 x 5 m with doors, lockers and seats along the walls and little in the middle."""
    size, footprints = (12.0, 5.0), list[Array]()
    walls, facets, lights = _storey(rng, size, HALL_HEIGHT, (4, 1))
    for wall in walls:
        furnish_wall(rng, wall, size, furniture.HALL_WALLS, facets, footprints)
    fixtures, loose = len(facets), loose or rng
    furnish_middle(loose, size, furniture.HALL_MIDDLE, 1, facets, footprints)
    for wall in walls:
        hang_pictures(loose, wall, facets)
    return Room(*size, facets, fixtures, lights, FreeSpace(*size, footprints))


def small_deck(rng: Random, loose: Random | None = None) -> Room:
    """Parking_lot1: 8 x 6 m, bays along one wall."""
    return _deck(rng, loose or rng, (8.0, 6.0), sides=1)


def square_deck(rng: Random, loose: Random | None = None) -> Room:
    """Parking_lot2: 8 x 8 m, bays along two walls."""
    return _deck(rng, loose or rng, (8.0, 8.0), sides=2)


BUILDERS: dict[str, Builder] = {
    "K544": laboratory,
    "Floor5": hall,
    "Parking_lot1": small_deck,
    "Parking_lot2": square_deck,
}
"""The paper's names of the four, in its order."""


def _storey(
    rng: Random, size: tuple[float, float], height: float, lamps: tuple[int, int]
) -> tuple[list[Wall], list[Facet], list[Light]]:
    """Walls, surfaces and lights of an unfurnished storey with `lamps` columns and rows of lamps."""
    walls = walls_around(*size, height)
    facets = painted_shell(rng, *size, walls)
    lights = [ceiling_light(rng, x, y, height, facets) for x, y in _grid(size, lamps)]
    behind, ahead, right, left = walls
    for wall in (behind, right):
        hang_door(rng, wall, facets)
    for wall in (ahead, left):
        put_window(rng, wall, facets, lights)
    return walls, facets, lights


def _grid(size: tuple[float, float], counts: tuple[int, int]) -> Array:
    """Centres (N, 2) of equal parts of a rectangle around the origin."""
    axes = [((np.arange(count) + 0.5) / count - 0.5) * side for side, count in zip(size, counts, strict=True)]
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def _deck(rng: Random, loose: Random, size: tuple[float, float], sides: int) -> Room:
    """A parking deck with bays along `sides` of its long walls; the parked cars are the loose part."""
    footprints: list[Array] = []
    walls = walls_around(*size, DECK_HEIGHT)
    stripe = textures.road_paint(textures.colour(rng, None, 0.65, 0.6))
    facets = _bare_shell(rng, size, walls, stripe)
    lights = [ceiling_light(rng, x, y, DECK_HEIGHT - BEAM, facets) for x, y in _grid(size, (2, 2))]
    behind, ahead, right, left = walls
    hang_door(rng, ahead, facets)
    door_left, door_right, _, door_top = ahead.taken[0]
    _sign(rng, ahead, (door_left + door_right) / 2, door_top + 0.25, "EXIT", facets)
    for wall in (behind, right, left):
        rail = box((-wall.length / 2, 0, 0.35), (wall.length / 2, 0.06, 0.5), textures.hazard)
        add(facets, rail, wall.world_from_wall)
    spots = []
    for row, wall in enumerate((left, right)[:sides]):
        bays = int(wall.length // BAY)
        lines = np.linspace(-bays / 2, bays / 2, bays + 1) * BAY
        _mark_bays(wall, lines, facets)
        for number, (start, end) in enumerate(pairwise(lines)):
            _sign(rng, wall, (start + end) / 2, 1.95, f"{'AB'[row]}{number + 1}", facets)
            spots.append(wall.world_from_wall @ placed((start + end) / 2, 0.25, 0.0))
        for line in lines[1:-1]:
            paint = textures.banded(
                textures.colour(rng, 0.1, 0.06, 0.6), textures.colour(rng, 0.13, 0.75, 0.8), 0.1, 1.0
            )
            column = furniture.pillar(PILLAR, DECK_HEIGHT, paint)
            stand(column, wall.world_from_wall @ placed(line, 0.6, 0.0), size, facets, footprints)
    for _ in range(2):
        x, y = rng.uniform(-0.3, 0.3, 2) * size
        add(facets, _arrow(), placed(x, y, rng.uniform(-np.pi, np.pi)))
    fixtures = len(facets)
    for world_from_spot in loose.permutation(np.array(spots))[:sides]:
        stand(furniture.car(loose), world_from_spot, size, facets, footprints)
    return Room(*size, facets, fixtures, lights, FreeSpace(*size, footprints))


def _bare_shell(rng: Random, size: tuple[float, float], walls: list[Wall], stripe: Painter) -> list[Facet]:
    """Floor, ceiling with beams, and walls of concrete, with a painted stripe around them."""
    length, width = size
    floor = textures.concrete(textures.colour(rng, 0.1, 0.06, 0.55))
    ceiling = textures.concrete(textures.colour(rng, 0.1, 0.05, 0.7))
    facets = [
        rectangle((0, 0, 0), UP, length, width, floor, density=FLOOR_DENSITY),
        rectangle((0, 0, DECK_HEIGHT), -UP, length, width, ceiling, density=CEILING_DENSITY),
    ]
    for wall in walls:
        cast = textures.formwork(textures.colour(rng, 0.1, 0.05, 0.66))
        face = (0, 1, 0)
        pieces = [
            rectangle((0, 0, DECK_HEIGHT / 2), face, wall.length, DECK_HEIGHT, cast, density=WALL_DENSITY),
            rectangle((0, MARKING, 1.2), face, wall.length, 0.22, stripe, density=WALL_DENSITY),
        ]
        add(facets, pieces, wall.world_from_wall)
    for x in np.arange(-length / 2 + BAY / 2, length / 2, BAY):
        low, high = (x - 0.12, -width / 2, DECK_HEIGHT - BEAM), (x + 0.12, width / 2, DECK_HEIGHT)
        facets += box(low, high, ceiling, without=("top", "front", "back"), bottom=ceiling)
    return facets


def _mark_bays(wall: Wall, lines: Array, facets: list[Facet]) -> None:
    white = textures.road_paint(np.full(3, 0.88, np.float32))
    for x in lines:
        line = rectangle((x, BAY_DEPTH / 2, MARKING), UP, 0.1, BAY_DEPTH, white)
        add(facets, [line], wall.world_from_wall)


def _sign(rng: Random, wall: Wall, x: float, z: float, text: str, facets: list[Facet]) -> None:
    ink, ground = np.full(3, 0.95, np.float32), textures.colour(rng, None, 0.6, 0.4)
    paint = textures.lettering(text, ink, ground)
    plate = box((x - 0.22, 0, z - 0.15), (x + 0.22, 0.02, z + 0.15), textures.plain(ground), front=paint)
    add(facets, plate, wall.world_from_wall)


def _arrow() -> list[Facet]:
    """A driver's arrow on the floor, along x."""
    white = textures.road_paint(np.full(3, 0.85, np.float32))
    shaft = rectangle((-0.3, 0, MARKING), UP, 0.9, 0.12, white)
    head = rectangle((0.4, 0, MARKING), UP, 0.5, 0.4, white)
    return [shaft, replace(head, outline=np.array([[0.0, 0.0], [0.5, 0.2], [0.0, 0.4]]))]
