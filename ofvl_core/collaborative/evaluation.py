"""How good a trained model is at its three tasks, on frames that training never saw.

Depth and odometry are measured along the split `ODOMETRY`, whose places are new to the model, relocalization
in the split `RELOCALIZATION`, whose places it knows.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.collaborative.estimator import Estimate, Estimator
from ofvl_core.collaborative.splits import ODOMETRY, RELOCALIZATION
from ofvl_core.collaborative.video import View, runs
from ofvl_core.collaborative.yardsticks import AHEAD, essential_motion, repeated, straight_line
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.datasets.images import MILLIMETRE
from ofvl_core.depth_metrics import INDOORS, DepthErrors, DepthProtocol, depth_errors, mean_errors
from ofvl_core.errors import DataError
from ofvl_core.evaluation import Result, SceneEvaluation, training_poses
from ofvl_core.geometry import Array
from ofvl_core.odometry_metrics import SNIPPET, chained, motions_between, snippet_errors
from ofvl_core.path_errors import PathErrors, evo_is_there, path_errors

logger = logging.getLogger(__name__)

NETWORK = "network"
STRAIGHT = "straight ahead"
REPEATED = "last true motion again"
ESSENTIAL = "essential matrix"
"""What odometry is measured of; the others are yardsticks, and `REPEATED` is told what no odometry knows."""

EXAMPLES = 4
"""Frames of a scene that are kept as pictures."""


@dataclass(frozen=True, eq=False)
class Example:
    """A frame's RGB image (H, W, 3) and what the model sees in it within `seconds`.

    `true_depth` (h, w) is in metres along the same view, 0 where unknown, None without a depth image.
    """

    frame: Frame
    image: NDArray[np.uint8]
    estimate: Estimate
    seconds: float
    true_depth: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Depth:
    """Errors of the images that have a depth image; `left_out` had one without a pixel that counts."""

    errors: list[DepthErrors]
    left_out: int

    def summary(self) -> dict[str, Any]:
        """Means over images; `scale_deviation` is the standard deviation of the logarithm of their scales."""
        scales = np.log([each.scale for each in self.errors])
        return {
            "images": len(self.errors),
            "left_out": self.left_out,
            **asdict(mean_errors(self.errors)),
            "scale_deviation": float(np.std(scales)),
        }


@dataclass(frozen=True, eq=False)
class DrivenPath:
    """A stretch without a gap: `true` poses (N, 4, 4) and, by method, `estimated` ones in its first frame."""

    name: str
    true: Array
    estimated: dict[str, Array]
    errors: dict[str, PathErrors]


@dataclass(frozen=True, eq=False)
class Odometry:
    """Errors of all snippets by method, metres, and the paths that they were cut from."""

    snippets: dict[str, Array]
    paths: list[DrivenPath]

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over snippets of every method, and the errors of every path."""
        return {
            "snippets": {
                method: {
                    "count": len(errors),
                    "mean_m": float(np.mean(errors)),
                    "deviation_m": float(np.std(errors)),
                }
                for method, errors in self.snippets.items()
                if len(errors)
            },
            "paths": [
                {
                    "name": path.name,
                    "errors": {method: asdict(errors) for method, errors in path.errors.items()},
                }
                for path in self.paths
            ],
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The three tasks in one scene; None where it has no frames for one, or the model was not taught it."""

    scene: str
    depth: Depth | None
    odometry: Odometry | None
    relocalization: SceneEvaluation | None
    examples: list[Example]

    def summary(self) -> dict[str, Any]:
        """Plain numbers, None where there are none: metres, degrees, shares."""
        return {
            "scene": self.scene,
            "depth": self.depth and self.depth.summary(),
            "odometry": self.odometry and self.odometry.summary(),
            "relocalization": self.relocalization and _poses_summary(self.relocalization),
        }


def evaluate(
    estimator: Estimator,
    scene: SceneData,
    protocol: DepthProtocol = INDOORS,
    on_frame: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Let the model see every frame of the two splits once, in order, and compare.

    Depth counts as `protocol` says. Raises DataError when both splits are empty, or for an unreadable image.
    """
    ahead, known = (scene.splits.get(split, []) for split in (ODOMETRY, RELOCALIZATION))
    of_both = {frame.color for frame in ahead}
    others = [frame for frame in known if frame.color not in of_both]
    if not ahead and not known:
        raise DataError(
            f"{scene.root}: neither the {ODOMETRY} nor the {RELOCALIZATION} split has frames; hold some out"
        )
    pictured = set(np.linspace(0, len(ahead or others) - 1, EXAMPLES).round().astype(int).tolist())
    follows = np.zeros(len(ahead) + len(others), bool)
    follows[runs(ahead, 2)[:, 1]] = True
    motions = {method: np.full((len(ahead), 4, 4), np.nan) for method in (NETWORK, ESSENTIAL)}
    errors: list[DepthErrors | None] = []
    results: dict[Path, Result] = {}
    examples: list[Example] = []
    previous = np.empty((0, 0, 3), np.uint8)
    for index, frame in enumerate([*ahead, *others]):
        example = look_at(estimator, scene, frame, scene.name, follows[index])
        if follows[index]:
            guess = essential_motion(previous, example.image, scene.camera)
            motions[ESSENTIAL][index] = AHEAD if guess is None else guess
            motions[NETWORK][index] = example.estimate.previous_from_current
        if index < len(ahead) and example.true_depth is not None:
            errors.append(depth_errors(example.estimate.depth, example.true_depth, protocol))
        if index in pictured:
            examples.append(example)
        pose = example.estimate.world_from_camera
        results[frame.color] = Result(frame.name, frame.color, frame.world_from_camera, pose, example.seconds)
        previous = example.image
        on_frame()
    counted = [each for each in errors if each is not None]
    located = [results[frame.color] for frame in known]
    relocalizes = any(result.estimated is not None for result in located)
    return Evaluation(
        scene.name,
        Depth(counted, len(errors) - len(counted)) if counted else None,
        _odometry(ahead, follows[: len(ahead)], motions),
        SceneEvaluation(scene.name, located, training_poses(scene)) if relocalizes else None,
        examples,
    )


def look_at(
    estimator: Estimator, scene: SceneData, frame: Frame, known_scene: str, follows: bool = False
) -> Example:
    """What the model sees in a frame, maybe of a place new to it, as if it were in its `known_scene`.

    `follows` says that the frame comes right after the one that the model saw last.
    """
    image = scene.read_color(frame)
    if not follows:
        estimator.reset()
    start = time.perf_counter()
    estimate = estimator.estimate(image, scene.camera, known_scene)
    seconds = time.perf_counter() - start
    return Example(frame, image, estimate, seconds, _measured_depth(scene, frame))


def _measured_depth(scene: SceneData, frame: Frame) -> NDArray[np.float32] | None:
    """In metres, 0 where unknown, as a camera without distortion would measure it: the estimate's view."""
    if frame.depth is None:
        return None
    depth = scene.read_depth(frame)
    if any(scene.camera.distortion):
        measuring = scene.camera.resized(depth.shape[1], depth.shape[0])
        view = View(replace(measuring, distortion=()), np.eye(3), mirrored=False)
        columns, rows = np.moveaxis(view.stored_pixels(measuring), -1, 0)
        depth = np.asarray(cv2.remap(depth, columns, rows, cv2.INTER_NEAREST, borderValue=0.0), np.uint16)
    return np.asarray(np.float32(MILLIMETRE) * depth, np.float32)


def _odometry(frames: list[Frame], follows: NDArray[np.bool_], motions: dict[str, Array]) -> Odometry | None:
    """`motions` (F, 4, 4) by method are those from the frame before, of frames that follow one."""
    snippets = runs(frames, SNIPPET)
    if not len(snippets):
        return None
    true = np.array([frame.world_from_camera for frame in frames])
    guessed = snippets[follows[snippets[:, 0]]]  # the others have no motion before them
    before = motions_between(true)[guessed[:, 0] - 1]
    errors = {
        method: snippet_errors(true[snippets], chained(estimated[snippets[:, 1:]]))
        for method, estimated in motions.items()
    }
    errors[STRAIGHT] = snippet_errors(true[snippets], chained(straight_line(len(snippets), SNIPPET)))
    errors[REPEATED] = snippet_errors(true[guessed], chained(repeated(before, SNIPPET)))
    if not evo_is_there():
        logger.info("errors of whole paths are left out: they need evo (pip install evo)")
        return Odometry(errors, [])
    stretches = np.split(np.arange(len(frames)), np.flatnonzero(~follows)[1:])
    paths = [_path(frames, true, motions, stretch) for stretch in stretches if len(stretch) >= SNIPPET]
    return Odometry(errors, paths)


def _path(
    frames: list[Frame], true: Array, motions: dict[str, Array], stretch: NDArray[np.intp]
) -> DrivenPath:
    estimated = {method: chained(each[stretch[1:]]) for method, each in motions.items()}
    errors = {method: path_errors(true[stretch], poses) for method, poses in estimated.items()}
    errors[ESSENTIAL] = replace(errors[ESSENTIAL], ape_se3_m=None, rpe_se3_m=None)  # its unit is no metre
    name = f"{frames[stretch[0]].name} to {frames[stretch[-1]].name}"
    return DrivenPath(name, true[stretch], estimated, errors)


def _poses_summary(evaluation: SceneEvaluation) -> dict[str, Any]:
    """A scene's row of a results file and, as published for regressed poses, the means of their errors."""
    metres, degrees = np.mean(evaluation.errors, axis=0)
    means = {"mean_m": metres, "mean_deg": degrees}
    return evaluation.summary() | {
        key: float(value) if np.isfinite(value) else None for key, value in means.items()
    }
