"""How much too sure covariances are, and how well images fit, found on frames that no training has seen.

Errors of neighbouring cells are alike, so their number overstates what is known: the covariance of
`covariance.pose_covariance` is too small by a factor. A scene that holds out enough frames has a factor of
its own; one that all scenes of a training give together serves the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import chdtri, ndtri

from ofvl_core.covariance import WITHIN_95, normalised_error_squared
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array

if TYPE_CHECKING:  # they hold calibrations
    from ofvl_core.checkpoint import Manifest
    from ofvl_core.localizer import Localization, Localizer

MATCHED = 0.9
"""The quantile at which the frames' errors are brought to the chi-square's. A few frames, seen badly, are
far worse than the rest; matching all of them would make every other covariance useless."""

FEWEST = 20
"""Frames with a pose; with 12 of one room, one calibration in four was too sure of its poses there."""


class Inflation(BaseModel):
    """The factor `inflation` on covariances, with which a share `within_95` of so many `poses` had a
    normalised error squared of at most 12.59."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inflation: float = Field(gt=0, allow_inf_nan=False)
    poses: int = Field(ge=0)
    within_95: float = Field(ge=0, le=1)

    @staticmethod
    def of(errors: Array) -> Inflation:
        """That of normalised errors squared (N,)."""
        inflation = inflation_of(errors)
        return Inflation(
            inflation=inflation, poses=len(errors), within_95=float(np.mean(errors / inflation <= WITHIN_95))
        )


class Calibration(Inflation):
    """What `frames` held-out frames say of a scene, or of all scenes of a training.

    `inflation`, `poses` and `within_95` are of the poses found in them. `inlier_share` is the 5 % quantile of
    the share of cells that agree with the pose, `uncertainty` the 95 % quantile of the agreeing cells' median
    uncertainty, metres: 95 % of images of a known place do better. All this is of the network's own poses;
    `refined` is of those that keyframes refined, None where they were few.
    """

    frames: int = Field(ge=0)
    inlier_share: float = Field(ge=0, le=1)
    uncertainty: float = Field(gt=0, allow_inf_nan=False)
    refined: Inflation | None = None

    @property
    def of_refined(self) -> float:
        """The factor on covariances of poses that keyframes refined."""
        return UNCALIBRATED_REFINED if self.refined is None else self.refined.inflation

    @property
    def is_calibrated(self) -> bool:
        """Whether it was measured; else it is `UNCALIBRATED`."""
        return self.frames > 0


UNCALIBRATED = Calibration(
    inflation=15.0, frames=0, poses=0, within_95=0.0, inlier_share=0.09, uncertainty=0.12
)
"""Stands for the calibration of a checkpoint that has none: inflation and uncertainty are twice, the share of
inliers is half of what five simulated rooms gave."""

UNCALIBRATED_REFINED = 500.0
"""Stands for the inflation of refined poses where there is none: recordings gave 60 to 700."""


def calibrated(
    localizer: Localizer,
    scenes: Sequence[SceneData],
    split: str,
    on_frame: Callable[[], None] = lambda: None,
) -> Manifest:
    """The localizer's manifest, in which the `scenes` are calibrated on a split's frames.

    The trainings that they come from are calibrated on all their scenes that are given, together, and a scene
    of which `FEWEST` frames have a pose on its own besides. `on_frame` is called for every frame. Raises
    DataError for an empty split, an unreadable image, or when fewer than `FEWEST` frames of a training's
    scenes have a pose; CheckpointError for a scene that the localizer does not know.
    """
    manifest = localizer.manifest
    together: dict[int, list[str]] = {}
    measured = {}
    for scene in scenes:
        measured[scene.name] = _measure(localizer, scene, split, on_frame)
        holders = [number for number, record in enumerate(manifest.trainings) if scene.name in record.scenes]
        together.setdefault(max(holders), []).append(scene.name)
    trainings = list(manifest.trainings)
    for number, names in together.items():
        frames = sum(measured[name].frames for name in names)
        of_poses, of_refined = (
            np.concatenate([getattr(measured[name], part) for name in names])
            for part in ("of_poses", "of_refined")
        )
        if len(of_poses) < FEWEST:
            raise DataError(
                f"{len(of_poses)} of the {frames} {split} frames of {', '.join(names)} have a pose, and "
                f"{FEWEST} are needed to calibrate; train longer or give more frames"
            )
        calibration = _calibration(_Measured(frames, of_poses, of_refined))
        trainings[number] = trainings[number].model_copy(update={"calibration": calibration})
    own = {
        name: _calibration(found) if len(found.of_poses) >= FEWEST else None
        for name, found in measured.items()
    }
    records = [
        record.model_copy(update={"calibration": own[record.name]}) if record.name in own else record
        for record in manifest.scenes
    ]
    return manifest.model_copy(update={"trainings": trainings, "scenes": records})


class _Measured(NamedTuple):
    """What a calibration is made of. `of_poses` (N, 3) are of those of the `frames` that have a pose:
    normalised error squared without inflation, share of cells that agree, and uncertainty, metres.
    `of_refined` (M,) are normalised errors squared without inflation of those that keyframes refined."""

    frames: int
    of_poses: Array
    of_refined: Array


def _measure(localizer: Localizer, scene: SceneData, split: str, on_frame: Callable[[], None]) -> _Measured:
    applied = localizer.manifest.calibration(scene.name)
    rows, of_refined = [], []
    for frame in scene.frames(split):
        image = scene.read_color(frame)
        (found,) = localizer.localize_in_each(image, scene.camera, [scene.name])
        refined = localizer.refined(found, image, scene.camera)
        on_frame()
        error = _uninflated(found, applied.inflation, frame)
        if error is not None:
            rows.append((error, found.inlier_share, found.uncertainty))
        error = None if refined is found else _uninflated(refined, applied.of_refined, frame)
        if error is not None:
            of_refined.append(error)
    return _Measured(len(scene.frames(split)), np.array(rows).reshape(-1, 3), np.array(of_refined))


def _uninflated(found: Localization, applied: float, frame: Frame) -> float | None:
    """Normalised error squared without the inflation that was `applied`; None without a pose."""
    if found.world_from_camera is None or found.covariance is None:
        return None
    covariance = found.covariance / applied
    return normalised_error_squared(found.world_from_camera, covariance, frame.world_from_camera)


def _calibration(measured: _Measured) -> Calibration:
    errors, shares, uncertainties = measured.of_poses.T
    return Calibration(
        **Inflation.of(errors).model_dump(),
        frames=measured.frames,
        inlier_share=float(np.quantile(shares, 0.05)),
        uncertainty=float(np.quantile(uncertainties, 0.95)),
        refined=Inflation.of(measured.of_refined) if len(measured.of_refined) >= FEWEST else None,
    )


def inflation_of(errors: Array) -> float:
    """The factor on covariances that brings normalised errors squared (N,) to chi-square at `MATCHED`.

    Their quantile is that of a log-normal distribution of their mean and deviation: from a few dozen frames,
    neighbours in time, it varies half as much as the one in their order.
    """
    logs = np.log(errors)
    quantile = np.exp(logs.mean() + ndtri(MATCHED) * logs.std(ddof=1))
    return float(quantile / chdtri(6, 1 - MATCHED))
