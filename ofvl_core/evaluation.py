"""Pose errors of a scene and the numbers the field quotes of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ofvl_core.datasets import Frame, SceneData
from ofvl_core.datasets.images import read_color
from ofvl_core.geometry import Array, pose_error
from ofvl_core.localizer import Localizer

STRICT_M, STRICT_DEG = 0.05, 5.0
"""The field's threshold: a frame counts when it is within 5 cm AND 5 degrees, bounds included."""


@dataclass(frozen=True)
class Result:
    """One query: its true pose and the estimate, or None and the reason. Poses are of one direction."""

    frame: str
    image: Path
    true: Array
    estimated: Array | None
    seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class SceneEvaluation:
    """All queries of a scene; `training_poses` (N, 4, 4) say how far the queries were from known views."""

    scene: str
    results: list[Result]
    training_poses: Array
    errors: Array = field(init=False)
    """(N, 2): metres and degrees, infinite where there is no pose: a failure is never left out."""

    def __post_init__(self) -> None:
        errors = [
            (np.inf, np.inf) if result.estimated is None else pose_error(result.estimated, result.true)
            for result in self.results
        ]
        object.__setattr__(self, "errors", np.array(errors).reshape(-1, 2))

    def within(self, metres: float, degrees: float) -> float:
        """Share of frames within both bounds."""
        return float(np.mean((self.errors[:, 0] <= metres) & (self.errors[:, 1] <= degrees)))

    def summary(self) -> dict[str, Any]:
        """The scene's row of a results file. A median that falls on a failure is None."""
        median_m, median_deg = np.median(self.errors, axis=0)
        nearest_m, nearest_deg = np.median(
            [nearest_view(result.true, self.training_poses) for result in self.results], axis=0
        )
        milliseconds = [1000 * result.seconds for result in self.results if result.estimated is not None]
        p50, p95 = np.percentile(milliseconds, (50, 95)) if milliseconds else (np.inf, np.inf)
        failures = int(np.isinf(self.errors[:, 0]).sum())
        return {
            "scene": self.scene,
            "frames": len(self.results),
            "poses": len(self.results) - failures,
            "failures": failures,
            "median_m": _finite(median_m),
            "median_deg": _finite(median_deg),
            "within_5cm_5deg": self.within(STRICT_M, STRICT_DEG),
            "latency_ms_p50": _finite(p50),
            "latency_ms_p95": _finite(p95),
            "nearest_view_m": _finite(nearest_m),
            "nearest_view_deg": _finite(nearest_deg),
        }


def evaluate_scene(
    localizer: Localizer, scene: SceneData, split: str, on_frame: Callable[[], None] = lambda: None
) -> SceneEvaluation:
    """Localize every frame of a split. Raises DataError for an empty split or an unreadable image."""

    def query(frame: Frame) -> Result:
        image = read_color(frame.color, scene.camera)
        start = time.perf_counter()
        found = localizer.localize(image, scene.camera, scene.name)
        seconds = time.perf_counter() - start
        on_frame()
        return Result(
            frame.name, frame.color, frame.world_from_camera, found.world_from_camera, seconds, found.reason
        )

    results = [query(frame) for frame in scene.frames(split)]
    return SceneEvaluation(scene.name, results, training_poses(scene))


def training_poses(scene: SceneData) -> Array:
    """world_from_camera (N, 4, 4) of the training split, which may be empty."""
    return np.array([frame.world_from_camera for frame in scene.splits["train"]]).reshape(-1, 4, 4)


def nearest_view(pose: Array, others: Array) -> tuple[float, float]:
    """Metres and degrees from `pose` to the most similar of `others` (N, 4, 4); infinite without any.

    Most similar is the one with the least sum of distance / 5 cm and angle / 5 degrees: the closest in
    space alone may look the other way.
    """
    if not len(others):
        return np.inf, np.inf
    distances = np.linalg.norm(others[:, :3, 3] - pose[:3, 3], axis=1)
    traces = np.einsum("nij,ij->n", others[:, :3, :3], pose[:3, :3])
    angles = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
    nearest = np.argmin(distances / STRICT_M + angles / STRICT_DEG)
    return float(distances[nearest]), float(angles[nearest])


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
