"""The pose solver, beside OpenCV's.

Correspondences are made up: cells 1 to 4 m away, each coordinate of their points wrong by 3 cm (a standard
deviation), those of outliers by another metre. Numbers of cells are those of inputs of 160x120, 320x240 and
640x480 pixels. A cell agrees with a pose within the 3 pixels that are our default, or at 640x480 also within
10, as in the published code: at 3 noise moves most inliers further than that.

Opponents get the same cells and tolerance. They are OpenCV's classic RANSAC with 256 AP3P hypotheses and a
Levenberg-Marquardt refinement on the inliers, and its USAC with the MAGSAC score as it comes. All that ours
does counts.

Goal: at 20 % inliers never more than 20 ms on two cores, no less accurate than with a local optimisation
within RANSAC, which took most of the time before. Three refinements afterwards, each on the cells that the
one before leaves near agreement, do more for accuracy, and RANSAC tells hypotheses apart by 1000 cells as
well as by all.
"""

import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np
import typer
from harness import Array, Table, Timing, interleaved, write
from numpy.random import Generator

from ofvl_core import geometry
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.correspondences import Correspondences
from ofvl_core.pose import PoseOptions, estimate_pose

CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
STRIDE = 8
NOISE_M, OUTLIER_M = 0.03, 1.0
NEAREST_M, FARTHEST_M = 1.0, 4.0

INPUTS = ((160, 120, 3.0), (320, 240, 3.0), (640, 480, 3.0), (640, 480, 10.0))
"""Width, height, and the tolerance in pixels of that size."""

SHARES = (0.9, 0.5, 0.2)
"""Of inliers."""

HARDEST, GOAL_MS = 0.2, 20.0
OURS = "ours"
WARM_UP = 3


class Problem(NamedTuple):
    """What cells see, the tolerance and focal length in pixels, and where they see it from."""

    cells: Correspondences
    focal: float
    tolerance: float
    world_from_camera: Array


class Contestant:
    """A solver that gets the next problem in every call; `errors` are (metres, degrees) of each."""

    def __init__(self, solve: Callable[[Problem], Array | None], problems: Iterable[Problem]):
        self._solve, self._problems = solve, iter(problems)
        self._answers: list[tuple[Problem, Array | None]] = []

    def __call__(self) -> None:
        """Solve the next problem."""
        problem = next(self._problems)
        self._answers.append((problem, self._solve(problem)))

    @property
    def errors(self) -> Array:
        """Of the answers after warming up (rounds, 2): metres and degrees, infinite without a pose."""
        return np.array(
            [
                (np.inf, np.inf) if pose is None else geometry.pose_error(pose, problem.world_from_camera)
                for problem, pose in self._answers[WARM_UP:]
            ]
        )


def make_problem(random: Generator, width: int, height: int, tolerance: float, share: float) -> Problem:
    """Cells of which a `share` are inliers, seen by a random camera."""
    camera = CAMERA.resized(width, height)
    rays = camera.rays(cell_pixels(width, height, STRIDE))
    pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
    points = geometry.apply(pose, rays * random.uniform(NEAREST_M, FARTHEST_M, (len(rays), 1)))
    points += random.normal(scale=NOISE_M, size=points.shape)
    outliers = random.random(len(points)) >= share
    points[outliers] += random.normal(scale=OUTLIER_M, size=(outliers.sum(), 3))
    cells = Correspondences(rays[:, :2], points, np.full(len(points), NOISE_M))
    return Problem(cells, camera.focal, tolerance, pose)


def ours(problem: Problem) -> Array | None:
    """`estimate_pose`, whole."""
    options = PoseOptions(inlier_pixels=problem.tolerance)
    return estimate_pose(problem.cells, problem.focal, options).world_from_camera


def classic(problem: Problem) -> Array | None:
    """RANSAC over AP3P, then Levenberg-Marquardt on the inliers."""
    points, pixels, matrix = _pinhole(problem)
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points, pixels, matrix, None, None, None, False, 256, problem.tolerance, 0.9999, None,
        cv2.SOLVEPNP_AP3P,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < 4:
        return None
    chosen = inliers[:, 0]
    rotation, translation = cv2.solvePnPRefineLM(
        points[chosen], pixels[chosen], matrix, None, rotation, translation
    )
    return _pose(rotation, translation)


def magsac(problem: Problem) -> Array | None:
    """USAC by the flag for MAGSAC, with as many iterations and as much confidence as ours."""
    points, pixels, matrix = _pinhole(problem)
    options = PoseOptions()
    found, rotation, translation, _ = cv2.solvePnPRansac(
        points, pixels, matrix, None, None, None, False, options.max_iterations, problem.tolerance,
        options.confidence, None, cv2.USAC_MAGSAC,
    )  # fmt: skip
    return _pose(rotation, translation) if found else None


SOLVERS = {OURS: ours, "classic RANSAC, AP3P and LM": classic, "USAC, MAGSAC": magsac}


def measure(
    width: int, height: int, tolerance: float, share: float, rounds: int
) -> tuple[dict[str, Timing], dict[str, Contestant]]:
    """Solve `rounds` problems of one kind by every solver in turn."""
    random = np.random.default_rng(0)
    problems = [make_problem(random, width, height, tolerance, share) for _ in range(WARM_UP + rounds)]
    contestants = {name: Contestant(solve, problems) for name, solve in SOLVERS.items()}
    return interleaved(contestants, rounds, WARM_UP), contestants


def main(rounds: int = 250) -> None:
    """Solve ROUNDS problems of each kind by every solver; results go to pose_solver.json."""
    rows: list[list[str | float | int | None]] = []
    hardest: list[Array] = []
    for width, height, tolerance in INPUTS:
        cells = (width // STRIDE) * (height // STRIDE)
        for share in SHARES:
            timings, contestants = measure(width, height, tolerance, share, rounds)
            for name, timing in timings.items():
                metres, degrees = np.median(contestants[name].errors, axis=0)
                worst = float(timing.milliseconds.max())
                rows.append(
                    [cells, tolerance, f"{100 * share:.0f} %", name, timing.median, timing.p95, worst,
                     100 * float(metres), float(degrees)]
                )  # fmt: skip
            if share == HARDEST:
                hardest.append(timings[OURS].milliseconds)
    times = np.concatenate(hardest)
    figures = {
        "trials": len(times),
        "median_ms": np.median(times),
        "p999_ms": np.percentile(times, 99.9),
        "max_ms": times.max(),
        "goal_ms": GOAL_MS,
    }
    columns = ["cells", "pixels", "inliers", "solver", "median ms", "p95", "max", "median cm", "degrees"]
    verdict = "met" if times.max() <= GOAL_MS else f"missed by {times.max() - GOAL_MS:.1f} ms"
    goal: list[str | float | int | None] = [
        len(times), float(np.median(times)), float(np.percentile(times, 99.9)), float(times.max()), GOAL_MS,
        verdict,
    ]  # fmt: skip
    goal_columns = ["trials", "median ms", "p99.9", "max", "goal: never above", ""]
    write(
        "pose_solver",
        " ".join(["benchmarks/pose_solver.py", *sys.argv[1:]]),
        [Table("", columns, rows), Table("Ours at 20 % inliers, all sizes", goal_columns, [goal])],
        figures,
    )


def _pinhole(problem: Problem) -> tuple[Array, Array, Array]:
    """Points, pixels about the principal point, and the camera's matrix."""
    cells, focal = problem.cells, problem.focal
    return cells.points, cells.rays * focal, np.diag([focal, focal, 1.0])


def _pose(rotation_vector: Array, translation: Array) -> Array | None:
    """world_from_camera of OpenCV's answer, None where that is not finite."""
    if not (np.isfinite(rotation_vector).all() and np.isfinite(translation).all()):
        return None
    return geometry.invert(
        geometry.transform_from_rotation_vector(rotation_vector.ravel(), translation.ravel())
    )


if __name__ == "__main__":
    typer.run(main)
