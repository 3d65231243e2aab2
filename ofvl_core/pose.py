"""Camera pose from what every cell is said to see (paper Sec. 3.4): RANSAC, then a weighted refinement.

A correspondence is a viewing ray and a point of the scene. From rays alone RANSAC solves PnP; where a depth
camera measured how far along its ray a cell sees, it aligns points with points (`alignment`), and the
refinement uses both kinds of errors.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.alignment import align
from ofvl_core.correspondences import Correspondences
from ofvl_core.geometry import Array, invert, transform_from_rotation_vector

SAMPLED = 1000
"""Cells that RANSAC sees at most. More of them tell hypotheses apart no better, and take their time."""

ROUNDS = 3
"""Refinements, each of the cells near agreement with the pose of the one before: three noisy cells, of which
RANSAC's best hypothesis is made, do not say well which these are."""

CONVERGED = 0.05
"""A step that gains less log-likelihood moves the pose by a small part of its standard deviation."""


@dataclass(frozen=True)
class PoseOptions:
    """Settings of the solver. Pixels are those of the network's input."""

    inlier_pixels: float = 3.0
    """A correspondence agrees with a pose when it reprojects this close."""
    max_iterations: int = 1000
    """Bound on RANSAC hypotheses."""
    confidence: float = 0.9999
    refinements: int = 10
    """Bound on steps of a refinement."""
    min_inliers: int = 12
    """Fewer agreeing cells than this are no evidence of a pose."""


@dataclass(frozen=True)
class PoseEstimate:
    """`world_from_camera` (4, 4) or None with the `reason`; `inliers` is a mask over the input (N,).

    `used_depths` says whether the cells' depths had a part in it.
    """

    world_from_camera: Array | None
    inliers: NDArray[np.bool_]
    reason: str | None = None
    used_depths: bool = False


def estimate_pose(cells: Correspondences, focal: float, options: PoseOptions = PoseOptions()) -> PoseEstimate:
    """Pose of the camera that sees `cells`.

    Their uncertainties weigh them in the refinement, and none is left out for its own: without the least
    certain 30 % poses by half-trained networks were up to a fifth worse, and by others no better. `focal`,
    pixels, measures reprojection errors. Depths go unused where they are too few or no pose explains them.
    Never raises for bad correspondences: the estimate says why there is no pose.
    """
    total = len(cells.points)

    def failed(reason: str) -> PoseEstimate:
        return PoseEstimate(None, np.zeros(total, bool), reason)

    sound = np.isfinite(cells.points).all(axis=1) & np.isfinite(cells.rays).all(axis=1)
    usable = np.flatnonzero(sound & (cells.uncertainties > 0))
    if len(usable) < options.min_inliers:
        return failed(f"{len(usable)} usable correspondences, at least {options.min_inliers} are needed")
    cells = cells.chosen(usable)
    if _is_degenerate(cells.points):
        return failed("the scene coordinates lie on a line or in a point")
    camera_from_world = None
    if cells.depths is not None:
        camera_from_world = _align(cells, focal, options)
    if camera_from_world is None:
        cells = cells._replace(depths=None)
        camera_from_world = _ransac(cells, focal, options)
    if camera_from_world is None:
        return failed("RANSAC found no pose")
    for _ in range(ROUNDS):
        camera_from_world = _refine(camera_from_world, cells, focal, options)
    agree = _reprojection_errors(camera_from_world, cells) * focal < options.inlier_pixels
    if agree.sum() < options.min_inliers:
        return failed(f"{agree.sum()} cells agree with the pose, at least {options.min_inliers} must")
    inliers = np.zeros(total, bool)
    inliers[usable[agree]] = True
    return PoseEstimate(invert(camera_from_world), inliers, used_depths=cells.depths is not None)


def _is_degenerate(points: Array) -> bool:
    centred = points - points.mean(axis=0)
    _, middle, largest = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(0))
    return bool(middle < 1e-3 * max(largest, 1e-9))


def _align(cells: Correspondences, focal: float, options: PoseOptions) -> Array | None:
    """A pose from the cells whose depth is known; None when they are too few or none explains them."""
    assert cells.depths is not None
    known = cells.chosen(np.isfinite(cells.depths))
    assert known.depths is not None
    tolerances = options.inlier_pixels / focal * known.depths
    return align(known.points, known.measured(), tolerances, options.min_inliers)


def _ransac(cells: Correspondences, focal: float, options: PoseOptions) -> Array | None:
    """USAC with an MSAC score: bounded, and steady down to 20 % inliers.

    Its local optimisation would take most of the time, for what the refinement does better at the end.
    """
    if len(cells.points) > SAMPLED:
        cells = cells.chosen(np.random.default_rng(0).permutation(len(cells.points))[:SAMPLED])
    usac = cv2.UsacParams()
    usac.sampler = cv2.SAMPLING_UNIFORM
    usac.score = cv2.SCORE_METHOD_MSAC
    usac.loMethod = cv2.LOCAL_OPTIM_NULL
    usac.maxIterations = options.max_iterations
    usac.confidence = options.confidence
    usac.threshold = options.inlier_pixels
    usac.randomGeneratorState = 0
    matrix = np.diag([focal, focal, 1.0])
    try:
        found, _, rotation, translation, _ = cv2.solvePnPRansac(
            cells.points, cells.rays * focal, matrix, None, params=usac
        )
    except cv2.error:
        return None
    if not found or not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
        return None
    return transform_from_rotation_vector(rotation, translation)


def _reprojection_errors(camera_from_world: Array, cells: Correspondences) -> Array:
    """Distances (N,) on the normalised image plane; infinite behind the camera."""
    seen = cells.seen(camera_from_world)
    in_front = seen[:, 2] > 1e-6
    depth = np.where(in_front, seen[:, 2], 1.0)
    errors = np.linalg.norm(seen[:, :2] / depth[:, None] - cells.rays, axis=1)
    return np.where(in_front, errors, np.inf)


def _refine(camera_from_world: Array, cells: Correspondences, focal: float, options: PoseOptions) -> Array:
    """Gauss-Newton on the errors of the cells near agreement, each in units of its standard deviation.

    A Cauchy cost, whose scale is the median, keeps the worst of them from pulling; a tighter choice would
    prefer those that RANSAC's pose was made of. A step that does not lower the cost is not taken and ends the
    refinement, and so does one that hardly does.
    """
    near = _reprojection_errors(camera_from_world, cells) < 4 * options.inlier_pixels / focal
    if near.sum() < options.min_inliers:
        return camera_from_world
    cells = cells.chosen(near)
    precisions = cells.precisions()
    best, best_cost, scale = camera_from_world, np.inf, 0.0
    for _ in range(options.refinements + 1):
        seen = cells.seen(camera_from_world)
        if (seen[:, 2] < 1e-6).any():
            break
        errors = cells.errors(seen)
        squared = (precisions * errors**2).sum(axis=0)
        scale = scale or max(float(np.median(squared)), 1e-24)
        cost = np.log1p(squared / scale).sum()
        if cost >= best_cost:
            break
        gain, best, best_cost = best_cost - cost, camera_from_world, cost
        if gain < CONVERGED:
            break
        weighted = (precisions / (1 + squared / scale)).ravel()
        jacobian = cells.jacobian(seen).reshape(-1, 6)
        pulled = jacobian.T * weighted
        try:
            step = -np.linalg.solve(pulled @ jacobian, pulled @ errors.ravel())
        except np.linalg.LinAlgError:
            break
        camera_from_world = transform_from_rotation_vector(step[3:], step[:3]) @ camera_from_world
    return best
