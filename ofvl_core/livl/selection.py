"""Which images of a drive become frames of the data set, and why the others do not."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.spatial.transform import Rotation

from ofvl_core.geometry import Array
from ofvl_core.livl.survey import Survey
from ofvl_core.sharpness import BLURRED as BLUR_LIMIT
from ofvl_core.stamped_path import StampedPath

KEPT = ""
DAMAGED = "damaged"
NO_DEPTH = "no depth"
OUTSIDE = "outside the trajectory"
BLURRED = "blurred"
TOO_CLOSE = "too close to the last"
REASONS = (DAMAGED, NO_DEPTH, OUTSIDE, BLURRED, TOO_CLOSE)
"""In the order in which they are looked for: an image has the first that holds."""

LEAST_DEPTH_SHARE = 0.1
"""Share of pixels that must have depth."""

NEIGHBOURS = 31
"""Images, a second of video, whose median sharpness says what is ordinary at a place."""


@dataclass(frozen=True)
class Spacing:
    """How far, metres or radians, an image must be from the last frame taken to be the next one."""

    metres: float = 0.05
    radians: float = float(np.radians(3.0))


def select(survey: Survey, path: StampedPath, time_offset: float, spacing: Spacing) -> list[str]:
    """For every image of the survey the reason why it is dropped, or KEPT.

    `path` is the trajectory of the camera, on the LiDAR's clock; `time_offset` seconds lead there from the
    camera's stamps.
    """
    stamps = survey.stamps + round(time_offset * 1e9)
    no_depth = survey.depth_share < LEAST_DEPTH_SHARE
    outside = ~path.covers(stamps)
    ordinary = median_filter(survey.sharpness, NEIGHBOURS, mode="nearest")
    blurred = survey.sharpness < BLUR_LIMIT * ordinary
    damaged = survey.sharpness == 0
    reasons = [
        DAMAGED if broken else NO_DEPTH if bare else OUTSIDE if out else BLURRED if soft else KEPT
        for broken, bare, out, soft in zip(damaged, no_depth, outside, blurred, strict=True)
    ]
    _thin(reasons, path.at(stamps), spacing)
    return reasons


def dropped(reasons: list[str]) -> dict[str, int]:
    """How many images were dropped for each reason."""
    counts = Counter(reasons)
    return {reason: counts[reason] for reason in REASONS}


def _thin(reasons: list[str], poses: Array, spacing: Spacing) -> None:
    """Mark those that have hardly moved since the last one kept."""
    last: Array | None = None
    for at in _kept(reasons):
        pose = poses[at]
        if last is not None:
            moved = float(np.linalg.norm(pose[:3, 3] - last[:3, 3]))
            turned = float(Rotation.from_matrix(last[:3, :3].T @ pose[:3, :3]).magnitude())
            if moved < spacing.metres and turned < spacing.radians:
                reasons[at] = TOO_CLOSE
                continue
        last = pose


def _kept(reasons: list[str]) -> NDArray[np.intp]:
    return np.flatnonzero([reason == KEPT for reason in reasons])
