"""A place of a seed: how it is built, what it looks like, and where the robot drives in it."""

from dataclasses import dataclass
from functools import lru_cache

from ofvl_core.simulation import room
from ofvl_core.simulation.places import Builder
from ofvl_core.simulation.robot import Motion
from ofvl_core.simulation.seeding import LAYOUT, LOOSE, MOTION, stream
from ofvl_core.simulation.trajectory import SECTORS, patrol
from ofvl_core.simulation.world import Scenery, World

PAUSE = 10.0  # seconds between sequences
GOLDEN = 5  # sectors of a lap, of SECTORS: steps of it spread any number of drives over the lap


@dataclass(frozen=True)
class Place:
    """The `scene` of a `seed`, built and painted like the place `twin_of` if that is another."""

    seed: int
    scene: int
    twin_of: int
    build: Builder = room.build

    def design(self) -> room.Room:
        """The place's surfaces, lights and free space."""
        is_twin = self.twin_of != self.scene
        loose = stream(self.seed, self.scene, LOOSE) if is_twin else None
        return self.build(stream(self.seed, self.twin_of, LAYOUT), loose)


@lru_cache(maxsize=1)
def built(place: Place) -> tuple[World, Scenery]:
    """What can be seen in a place; the last one is kept."""
    design = place.design()
    world = World(design.facets)
    painted_as = [place.twin_of] * design.fixtures
    return world, Scenery(world, design.facets, design.lights, place.seed, place.scene, painted_as)


def drives(place: Place, sequences: int, duration: float, *, spread: bool = False) -> list[Motion]:
    """Drives of at least `duration` seconds: one route, another path each time.

    They begin anywhere on the route or, if `spread`, far from one another.
    """
    free, seed, scene = place.design().free, place.seed, place.scene
    clockwise = bool(stream(seed, scene, MOTION).integers(2))
    return [
        patrol(
            free,
            clockwise,
            PAUSE + sequence * (duration + PAUSE),
            duration,
            stream(seed, scene, MOTION, sequence),
            GOLDEN * sequence % SECTORS if spread else None,
        )
        for sequence in range(sequences)
    ]
