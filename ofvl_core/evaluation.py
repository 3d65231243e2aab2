"""Pose errors of a scene and the numbers the field quotes of them.

Conventions, where published evaluations differ: a threshold includes its bounds (ACE's is a strict <); a
median is NumPy's, the mean of the two middle errors of an even number of frames (ACE takes element n // 2);
position and rotation have each their own median; a data set's number is the unweighted mean over its scenes,
as in the paper's tables; a frame without a pose has infinite errors and is never left out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ofvl_core.checkpoint import Manifest
from ofvl_core.covariance import WITHIN_95, normalised_error_squared
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.geometry import Array, pose_error
from ofvl_core.localizer import Localizer
from ofvl_core.trajectory import write_tum

STRICT_M, STRICT_DEG = 0.05, 5.0
"""The field's threshold: a frame counts when it is within 5 cm AND 5 degrees, bounds included."""

THRESHOLDS = ((0.02, 2.0), (0.10, 5.0), (0.25, 2.0), (0.50, 5.0), (5.0, 10.0))
"""What else the field counts, in metres and degrees: indoors the first two, outdoors the others."""


def share_within(errors: Array, metres: float = STRICT_M, degrees: float = STRICT_DEG) -> float:
    """Share of errors (N, 2), metres and degrees, within both bounds."""
    return float(np.mean((errors[:, 0] <= metres) & (errors[:, 1] <= degrees)))


@dataclass(frozen=True)
class Result:
    """One query: its true pose and the estimate, or None and the reason. Poses are of one direction.

    `image` and `seconds` are None where only the poses are known, `normalised_error` (squared: NEES) where
    there is no covariance.
    """

    frame: str
    image: Path | None
    true: Array
    estimated: Array | None
    seconds: float | None
    reason: str | None = None
    normalised_error: float | None = None


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
        return share_within(self.errors, metres, degrees)

    def summary(self, thresholds: Sequence[tuple[float, float]] = THRESHOLDS) -> dict[str, Any]:
        """The scene's row of a results file. A median that falls on a failure is None.

        `nees_within_95` is the share of poses with a normalised error squared that 95 % of honest covariances
        bound, None where there are none; a frame without a pose claims nothing and is left out of it.
        The share within 5 cm and 5 degrees is there whatever the other `thresholds` (metres, degrees) are.
        """
        median_m, median_deg = np.median(self.errors, axis=0)
        nearest_m, nearest_deg = np.median(
            [nearest_view(result.true, self.training_poses) for result in self.results], axis=0
        )
        milliseconds = [
            1000 * result.seconds
            for result in self.results
            if result.estimated is not None and result.seconds is not None
        ]
        p50, p95 = np.percentile(milliseconds, (50, 95)) if milliseconds else (np.inf, np.inf)
        failures = int(np.isinf(self.errors[:, 0]).sum())
        normalised = [
            result.normalised_error for result in self.results if result.normalised_error is not None
        ]
        return {
            "scene": self.scene,
            "frames": len(self.results),
            "poses": len(self.results) - failures,
            "failures": failures,
            "median_m": _finite(median_m),
            "median_deg": _finite(median_deg),
            **{
                threshold_key(metres, degrees): self.within(metres, degrees)
                for metres, degrees in sorted({(STRICT_M, STRICT_DEG), *thresholds})
            },
            "nees_within_95": float(np.mean(np.array(normalised) <= WITHIN_95)) if normalised else None,
            "latency_ms_p50": _finite(p50),
            "latency_ms_p95": _finite(p95),
            "nearest_view_m": _finite(nearest_m),
            "nearest_view_deg": _finite(nearest_deg),
        }


def as_held_out(scene: SceneData, manifest: Manifest) -> SceneData:
    """The scene with the frames in the split `HOLDOUT` that its latest training held out.

    Raises CheckpointError when the checkpoint lacks the scene.
    """
    manifest.scene(scene.name)
    trainings = [training for training in manifest.trainings if scene.name in training.scenes]
    return scene.holding_out(trainings[-1].config.holdout)


def evaluate_scene(
    localizer: Localizer, scene: SceneData, split: str, on_frame: Callable[[], None] = lambda: None
) -> SceneEvaluation:
    """Localize every frame of a split. Raises DataError for an empty split or an unreadable image."""

    def query(frame: Frame) -> Result:
        image = scene.read_color(frame)
        start = time.perf_counter()
        found = localizer.localize(image, scene.camera, scene.name)
        seconds = time.perf_counter() - start
        on_frame()
        true, estimated = frame.world_from_camera, found.world_from_camera
        normalised = None
        if estimated is not None and found.covariance is not None:
            normalised = normalised_error_squared(estimated, found.covariance, true)
        return Result(frame.name, frame.color, true, estimated, seconds, found.reason, normalised)

    results = [query(frame) for frame in scene.frames(split)]
    return SceneEvaluation(scene.name, results, training_poses(scene))


def average(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The unweighted mean over scenes of every number of their summaries; the counts of frames are sums.

    A number that one scene lacks, as the median of a scene where most frames failed, is None.
    """

    def combined(key: str) -> float | None:
        values = [summary[key] for summary in summaries]
        if key in ("frames", "poses", "failures"):
            return sum(values)
        return None if None in values else float(np.mean(values))

    return {"scene": "average"} | {key: combined(key) for key in summaries[0] if key != "scene"}


def cumulative(errors: Array) -> tuple[Array, Array]:
    """The errors (M,) that are finite, ascending, and the share of all N `errors` that are no larger."""
    finite = np.sort(errors[np.isfinite(errors)])
    return finite, np.arange(1, len(finite) + 1) / len(errors)


def threshold_key(metres: float, degrees: float) -> str:
    """What a summary calls the share of frames within a threshold: within_5cm_5deg, within_5m_10deg."""
    distance = f"{metres:g}m" if metres >= 1 else f"{100 * metres:g}cm"
    return f"within_{distance}_{degrees:g}deg"


def write_trajectories(folder: Path, evaluation: SceneEvaluation, frames: Sequence[Frame]) -> None:
    """Write estimate and truth of the `frames` that were evaluated as TUM files, which evo reads.

    Time stamps begin anew with every sequence, so each has its files in `folder`, SCENE.SEQUENCE.estimate.txt
    and SCENE.SEQUENCE.truth.txt. Poses are world_from_camera; the estimate lacks frames without a pose.
    """
    rows = [
        (frame.sequence.replace("/", "-"), frame.timestamp, result)
        for frame, result in zip(frames, evaluation.results, strict=True)
    ]
    for sequence, group in groupby(sorted(rows, key=lambda row: row[:2]), key=lambda row: row[0]):
        queries = [(stamp, result) for _, stamp, result in group]
        stem = f"{evaluation.scene}.{sequence}"
        write_tum(folder / f"{stem}.truth.txt", [(stamp, result.true) for stamp, result in queries])
        found = [(stamp, result.estimated) for stamp, result in queries if result.estimated is not None]
        write_tum(folder / f"{stem}.estimate.txt", found)


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
