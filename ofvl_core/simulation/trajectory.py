"""Drives through a room: some that see as much as they can, for training, and some that just wander.

A drive is a chain of moves: turn or curve towards a place in sight and drive there, or turn on the spot.
A surveying robot takes the move that shows it most of what it has not yet seen, for the time it takes;
"seen" is counted on a random sample of poses in the free space, each covered by the views near it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
NEAR_PLACE, NEAR_HEADING = 0.45, np.radians(20)  # how far a view covers its neighbours
CLEAR_VIEW = 0.8  # metres: nearer to what it looks at a pose is not worth a view
SET_OFF = 1.0  # seconds that a move costs for starting and stopping
STEP = 1 / ODOMETRY_RATE
VIEW_STEPS = 12  # steps after which a driver counts what it sees as another view


class Coverage:
    """How well a sample of poses (x, y, yaw) has been seen, 0 to 1 each, and by which `views` (N, 3)."""

    def __init__(self, free: FreeSpace, rng: Random, count: int = 1500) -> None:
        places = free.places(RADIUS + MARGIN)
        headings = rng.uniform(-np.pi, np.pi, count)
        targets = np.column_stack([places[rng.integers(len(places), size=count)], headings])
        ahead = targets[:, :2] + CLEAR_VIEW * np.stack([np.cos(targets[:, 2]), np.sin(targets[:, 2])], axis=1)
        self._targets = targets[free.clearance(ahead) > 0]
        self._seen = np.zeros(len(self._targets))
        self.views = np.empty((0, 3))

    def gain(self, views: Array) -> float:
        """How much views (N, 3) would add."""
        return float(np.maximum(_nearness(views, self._targets).max(axis=0) - self._seen, 0).sum())

    def add(self, views: Array) -> None:
        """Count views (N, 3) as seen."""
        self._seen = np.maximum(self._seen, _nearness(views, self._targets).max(axis=0))
        self.views = np.concatenate([self.views, views])

    def least_seen(self) -> Array:
        """The pose (3,) that is farthest from all views."""
        return self._targets[int(np.argmin(self._seen))]


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

    def go_to(self, place: Array) -> None:
        """Curve towards a place (2,) and drive there, turning on the spot where there is no room to curve."""
        while True:
            state = self.states[-1]
            towards = place - state[:2]
            remaining = float(np.linalg.norm(towards))
            if remaining < 0.08:
                break
            off = float(_wrapped(np.arctan2(towards[1], towards[0]) - state[2]))
            speed = CRUISE * max(0.0, np.cos(off)) ** 3 if abs(off) < np.pi / 3 else 0.0
            speed = min(speed, np.sqrt(2 * ACCELERATION * remaining))
            if not self._clear_ahead():
                if abs(off) < 0.1:  # facing the place and blocked: the curve led away from the planned line
                    break
                speed = 0.0
            self._step(speed, float(np.clip(1.8 * off, -TURN, TURN)))
        self._halt()

    def turn(self, angle: float) -> None:
        """Turn on the spot."""
        target = self.states[-1][2] + angle
        while abs(off := target - self.states[-1][2]) > 0.05:
            self._step(0.0, float(np.clip(1.8 * off, -TURN, TURN)))
        self._halt()

    def _halt(self) -> None:
        while self._speed > 0 or abs(self._rate) > 0:
            self._step(0.0, 0.0)

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


def survey(free: FreeSpace, coverage: Coverage, start: float, duration: float, rng: Random) -> Motion:
    """A drive of at least `duration` seconds that adds as much as it can to `coverage`."""
    driver = Driver(free, coverage.least_seen())
    coverage.add(driver.states[-1][None])
    while driver.duration < duration:
        before = len(driver.states)
        moves = _moves(free, driver.states[-1], rng)
        max(moves, key=lambda move: coverage.gain(move.views) / move.seconds).make(driver)
        coverage.add(np.array(driver.states[before::VIEW_STEPS]))
    return _finished(driver, start, duration)


def wander(free: FreeSpace, coverage: Coverage, start: float, duration: float, rng: Random) -> Motion:
    """A drive of at least `duration` seconds at random, rather near what `coverage` has seen than not, and
    rather where it has not been itself."""
    places = free.places(RADIUS + MARGIN)
    starts = np.column_stack([places[rng.integers(len(places), size=40)], rng.uniform(-np.pi, np.pi, 40)])
    driver = Driver(free, starts[np.argmax(_nearness(starts, coverage.views).max(axis=1))])
    while driver.duration < duration:
        own = np.array(driver.states[::VIEW_STEPS])
        moves = _moves(free, driver.states[-1], rng)
        moves.sort(key=lambda move: _familiarity(move.views, coverage.views) - _familiarity(move.views, own))
        moves[-1 - int(rng.integers(max(1, len(moves) // 4)))].make(driver)
    return _finished(driver, start, duration)


def _finished(driver: Driver, start: float, duration: float) -> Motion:
    steps = int(np.ceil(duration / STEP))
    return Motion(start, np.array(driver.states[: steps + 1]), np.array(driver.twists[:steps]))


@dataclass(frozen=True)
class Move:
    """Something to do next, roughly what it will show, (N, 3), and how long it takes."""

    make: Callable[[Driver], None]
    views: Array
    seconds: float


def _moves(free: FreeSpace, state: Array, rng: Random) -> list[Move]:
    """Moves to choose from: drives to random places in sight, and turns on the spot."""
    moves = []
    places = free.places(RADIUS + MARGIN)
    candidates = places[rng.integers(len(places), size=60)]
    candidates = candidates[free.visible(state[:2], candidates, RADIUS + LEAST_MARGIN)]
    for place in candidates:
        towards = place - state[:2]
        distance, heading = float(np.linalg.norm(towards)), float(np.arctan2(towards[1], towards[0]))
        if distance < 0.5:
            continue
        turn = float(_wrapped(heading - state[2]))
        line = state[:2] + np.arange(0, distance, 0.25)[:, None] / distance * towards
        views = np.concatenate([_sweep(state, turn), np.column_stack([line, np.full(len(line), heading)])])
        seconds = SET_OFF + abs(turn) / TURN + distance / CRUISE
        moves.append(Move(partial(Driver.go_to, place=place), views, seconds))
    for turn in np.radians([-180, -120, -60, 60, 120, 180]):
        make = partial(Driver.turn, angle=turn)
        moves.append(Move(make, _sweep(state, turn), SET_OFF + abs(turn) / TURN))
    return moves


def _sweep(state: Array, turn: float) -> Array:
    """States (N, 3) on the way of a turn on the spot."""
    headings = state[2] + np.append(np.arange(0, abs(turn), np.radians(12)) * np.sign(turn), turn)
    return np.column_stack([np.tile(state[:2], (len(headings), 1)), headings])


def _nearness(views: Array, others: Array) -> Array:
    """How well each of views (N, 3) covers each of the others (M, 3), (N, M) from 0 to 1."""
    away = np.linalg.norm(views[:, None, :2] - others[None, :, :2], axis=2) / NEAR_PLACE
    turned = _wrapped(views[:, None, 2] - others[None, :, 2]) / NEAR_HEADING
    return np.exp(-(away**2) - turned**2)


def _familiarity(views: Array, others: Array) -> float:
    """How well views (N, 3) are covered by others (M, 3), from 0 to 1 on average."""
    return float(_nearness(views, others).max(axis=1).mean())


def _wrapped(angle: Array | float) -> Array:
    """An angle in [-pi, pi)."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi
