"""Do depth, poses and intrinsics fit one another? A frame's depth, carried into another, must meet its depth.

Poses in the wrong direction, axes or unit make the surfaces miss one another. So the usual mistakes are tried
one by one: the one without which the surfaces meet has been made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets.described import OPENCV_FROM_OPENGL
from ofvl_core.datasets.scene import Frame
from ofvl_core.geometry import Array, apply, invert, pose_error
from ofvl_core.realsense import BODY_FROM_OPTICAL

MIN_METRES, MIN_DEGREES = 0.15, 8.0
"""Motion between two frames that tells right from wrong poses."""
WINDOW = 60
"""Frames in which that motion is looked for."""
STRIDE = 4
"""Every so many pixels a depth is carried over, in both directions."""
MIN_SEEN = 0.1
"""Share of the carried points that must land in the other image: else the frames do not overlap."""
MIN_MEETINGS = 30
NO_OVERLAP = 1.0
"""Disagreement of two frames whose surfaces never meet though a few frames apart."""

FITS = 0.02
"""Relative disagreement that noise of the sensor and drift of the poses explain."""
CLEARLY_BETTER = 0.6
"""A mistake has been made when undoing it leaves at most this share of the disagreement."""

UNDONE_IN_POSES: dict[str, Callable[[Array], Array]] = {
    "poses are world to camera": invert,
    "the camera's axes are OpenGL's (y up, z backward)": lambda pose: pose @ OPENCV_FROM_OPENGL,
    "poses are world to camera and the camera's axes OpenGL's (y up, z backward)": lambda pose: (
        invert(pose) @ OPENCV_FROM_OPENGL
    ),
    "the camera's axes are a robot's (x forward, z up)": lambda pose: pose @ BODY_FROM_OPTICAL,
}
"""Mistakes and what turns the poses with them into world_from_camera."""

DEPTH_FACTORS = (0.01, 0.1, 0.2, 0.25, 4.0, 5.0, 10.0, 100.0, 1000.0)
"""By how much depth may be too small against the poses: 0.2 where TUM's fifths of a millimetre pass for
millimetres, 1000 where the poses are in millimetres."""


@dataclass(frozen=True)
class Agreement:
    """How well surfaces meet: medians over pairs of frames of the relative difference of their depths."""

    as_given: float
    mistake: str | None
    """The mistake that explains the disagreement, None where there is none or none is known."""
    without_mistake: float

    @property
    def fits(self) -> bool:
        """Whether the poses, depths and intrinsics agree as they are."""
        return self.mistake is None and self.as_given <= FITS


def telling_pairs(frames: list[Frame], count: int) -> Iterator[tuple[Frame, Frame]]:
    """Up to `count` pairs of one sequence, far enough apart to tell right from wrong and no further."""
    for at in np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)):
        first = frames[at]
        for second in frames[at + 1 : at + 1 + WINDOW]:
            if second.sequence != first.sequence:
                break
            metres, degrees = pose_error(first.world_from_camera, second.world_from_camera)
            if metres > MIN_METRES or degrees > MIN_DEGREES:
                yield first, second
                break


def agreement(camera: Camera, pairs: list[tuple[Frame, Frame]], depths: dict[str, NDArray]) -> Agreement:
    """Agreement of frames in pairs; `depths` holds the depth of each by its name, in millimetres.

    `camera` is that of the depth images, whatever their resolution. There must be a pair.
    """

    def disagreement(undo: Callable[[Array], Array], factor: float = 1.0) -> float:
        each = [
            _disagreement(
                camera,
                depths[first.name] * (factor / 1000),
                depths[second.name] * (factor / 1000),
                invert(undo(second.world_from_camera)) @ undo(first.world_from_camera),
            )
            for first, second in pairs
        ]
        return float(np.median(each))

    as_given = disagreement(lambda pose: pose)
    without = {mistake: disagreement(undo) for mistake, undo in UNDONE_IN_POSES.items()}
    for factor in DEPTH_FACTORS:
        wrong, other = ("small", "large") if factor > 1 else ("large", "small")
        times = f"{max(factor, 1 / factor):g} times too"
        mistake = f"depth is {times} {wrong}, or the poses' positions are {times} {other}"
        without[mistake] = disagreement(lambda pose: pose, factor)
    best = min(without, key=without.__getitem__)
    explained = as_given > FITS / 2 and without[best] < min(FITS, CLEARLY_BETTER * as_given)
    return Agreement(as_given, best if explained else None, without[best] if explained else as_given)


def _disagreement(camera: Camera, first: Array, second: Array, second_from_first: Array) -> float:
    """Median relative difference between one frame's depth (h, w), metres, carried over, and the other's."""
    height, width = first.shape
    camera = camera.resized(width, height)
    v, u = np.mgrid[0:height:STRIDE, 0:width:STRIDE].reshape(2, -1)
    known = first[v, u] > 0
    u, v = u[known], v[known]
    points = apply(second_from_first, camera.rays(np.stack([u, v], axis=1)) * first[v, u, None])
    ahead = points[points[:, 2] > 0]
    columns, rows = np.rint(camera.project(ahead)).T
    seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    measured = second[rows[seen].astype(int), columns[seen].astype(int)]
    carried = ahead[seen, 2][measured > 0]
    measured = measured[measured > 0]
    if seen.sum() < MIN_SEEN * len(points) or len(measured) < MIN_MEETINGS:
        return NO_OVERLAP
    return float(np.median(np.abs(measured - carried) / measured))
