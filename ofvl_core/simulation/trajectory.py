"""Drives through a room: a robot on patrol, lap after lap, no two on the same line.

A lap visits the directions around the room's middle in order. Where it passes in each of them is drawn anew,
so that drives share a route but not a path.
"""

import numpy as np
from numpy.typing import NDArray

from ofvl_core.simulation.freespace import FreeSpace
from ofvl_core.simulation.robot import MAX_SPEED, MAX_TURN, ODOMETRY_RATE, RADIUS, Motion, advance

Array = NDArray[np.float64]
Random = np.random.Generator

MARGIN = 0.25  # metres between the robot's rim and what it passes, by plan
LEAST_MARGIN = 0.1  # where a curve may come nearer than planned
CRUISE, TURN = 0.55, 0.75  # metres and radians a second
ACCELERATION, TURN_ACCELERATION = 0.8, 2.5
SECTORS = 8  # directions around the room's middle in which a lap passes a place
LANE = (0.5, 0.85)  # quantiles of the distance from the middle between which a lap passes
PASSED = 0.3  # metres from a place at which the robot heads for the next
STEP = 1 / ODOMETRY_RATE


class Driver:
    """A robot being driven: collects states and twists."""

    def __init__(self, free: FreeSpace, state: Array) -> None:
        self._free = free
        self.states = [np.asarray(state, float)]
        self.twists: list[Array] = []
        self._speed = self._rate = 0.0

    @property
    def duration(self) -> float:
        """Seconds driven so far."""
        return len(self.twists) * STEP

    def pass_by(self, place: Array) -> None:
        """Curve towards a place (2,) until it is near; turn on the spot where there is no room to curve."""
        while True:
            state = self.states[-1]
            towards = place - state[:2]
            if np.linalg.norm(towards) < PASSED:
                break
            off = _wrapped(float(np.arctan2(towards[1], towards[0]) - state[2]))
            speed = CRUISE * max(0.0, np.cos(off)) ** 3 if abs(off) < np.pi / 3 else 0.0
            if not self._clear_ahead():
                if abs(off) < 0.1:  # facing the place and blocked: the curve led away from the planned line
                    break
                speed = 0.0
            self._step(speed, float(np.clip(1.8 * off, -TURN, TURN)))

    def turn(self, angle: float) -> None:
        """Turn on the spot."""
        target = self.states[-1][2] + angle
        while abs(off := target - self.states[-1][2]) > 0.05:
            self._step(0.0, float(np.clip(1.8 * off, -TURN, TURN)))

    def _clear_ahead(self) -> bool:
        """Whether the robot can still stop before it comes too near to something."""
        x, y, yaw = self.states[-1]
        reach = (self._speed + ACCELERATION * STEP) ** 2 / (2 * ACCELERATION) + 0.05
        ahead = np.linspace(0.3, 1, 4)[:, None] * reach * np.array([np.cos(yaw), np.sin(yaw)])
        places = np.array([x, y]) + ahead
        return bool((self._free.clearance(places) >= RADIUS + LEAST_MARGIN).all())

    def _step(self, speed: float, rate: float) -> None:
        self._speed += np.clip(speed - self._speed, -ACCELERATION * STEP, ACCELERATION * STEP)
        self._rate += np.clip(rate - self._rate, -TURN_ACCELERATION * STEP, TURN_ACCELERATION * STEP)
        self._speed = min(max(self._speed, 0.0), MAX_SPEED)
        self._rate = min(max(self._rate, -MAX_TURN), MAX_TURN)
        twist = np.array([self._speed, self._rate])
        self.twists.append(twist)
        self.states.append(advance(self.states[-1], twist, STEP))


def patrol(
    free: FreeSpace,
    clockwise: bool,
    start: float,
    duration: float,
    rng: Random,
    sector: int | None = None,
) -> Motion:
    """A drive of at least `duration` seconds around the room.

    It begins in the given one of the SECTORS, or in any.
    """
    places = free.places(RADIUS + MARGIN)
    middle = places.mean(axis=0)
    bearings = np.arctan2(*(places - middle).T[::-1])
    sectors = np.floor((bearings + np.pi) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    route = _lane(np.linalg.norm(places - middle, axis=1), sectors)
    places, sectors = places[route], sectors[route]
    onward = -1 if clockwise else 1
    sector = int(rng.integers(SECTORS)) if sector is None else sector
    while not (sectors == sector).any():
        sector = (sector + onward) % SECTORS
    place = _draw(places[sectors == sector], rng)
    heading = np.arctan2(*(place - middle)[::-1]) + onward * np.pi / 2
    driver = Driver(free, np.append(place, heading))
    while driver.duration < duration:
        before = driver.duration
        for _ in range(SECTORS):
            sector = (sector + onward) % SECTORS
            inside = places[sectors == sector]
            inside = inside[free.visible(driver.states[-1][:2], inside, RADIUS + LEAST_MARGIN)]
            if len(inside):
                driver.pass_by(_draw(inside, rng))
        if driver.duration == before:  # no place in sight: look for one elsewhere
            driver.turn(onward * np.pi / 3)
    steps = int(np.ceil(duration / STEP))
    return Motion(start, np.array(driver.states[: steps + 1]), np.array(driver.twists[:steps]))


def _lane(distances: Array, sectors: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Which places, at these distances from the middle, lie in the lane that laps keep to."""
    inside = np.zeros(len(distances), bool)
    for sector in range(SECTORS):
        members = np.flatnonzero(sectors == sector)
        if len(members):
            low, high = np.quantile(distances[members], LANE)
            inside[members] = (distances[members] >= low) & (distances[members] <= high)
    return inside


def _draw(places: Array, rng: Random) -> Array:
    return places[rng.integers(len(places))]


def _wrapped(angle: float) -> float:
    """An angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
