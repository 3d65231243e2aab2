"""Camera pose from 2D-3D correspondences (paper Sec. 3.4): RANSAC PnP, then a weighted refinement."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array, apply, invert, transform_from_rotation_vector


@dataclass(frozen=True)
class PoseOptions:
    """Settings of the solver. Pixels are those of the network's input."""

    kept_share: float = 0.7
    """Share of the cells that enter RANSAC: the most certain ones."""
    inlier_pixels: float = 3.0
    """A correspondence agrees with a pose when it reprojects this close."""
    max_iterations: int = 1000
    """Bound on RANSAC hypotheses."""
    confidence: float = 0.9999
    refinements: int = 10
    """Bound on steps of the refinement."""
    min_inliers: int = 12
    """Fewer agreeing cells than this are no evidence of a pose."""


@dataclass(frozen=True)
class PoseEstimate:
    """`world_from_camera` (4, 4) or None with the `reason`; `inliers` is a mask over the input (N,)."""

    world_from_camera: Array | None
    inliers: NDArray[np.bool_]
    reason: str | None = None


def estimate_pose(
    pixels: Array,
    scene_coordinates: Array,
    uncertainties: Array,
    camera: Camera,
    options: PoseOptions = PoseOptions(),
) -> PoseEstimate:
    """Pose of the camera that sees `scene_coordinates` (N, 3), metres, at `pixels` (N, 2).

    `uncertainties` (N,), metres, choose which correspondences enter and weigh them in the refinement.
    Never raises for bad correspondences: the estimate says why there is no pose.
    """
    total = len(pixels)

    def failed(reason: str) -> PoseEstimate:
        return PoseEstimate(None, np.zeros(total, bool), reason)

    usable = np.flatnonzero(
        np.isfinite(scene_coordinates).all(axis=1) & np.isfinite(pixels).all(axis=1) & (uncertainties > 0)
    )
    kept = int(np.ceil(options.kept_share * len(usable)))
    if kept < options.min_inliers:
        return failed(f"{len(usable)} usable correspondences, at least {options.min_inliers} are needed")
    usable = usable[np.argpartition(uncertainties[usable], kept - 1)[:kept]]
    points = np.ascontiguousarray(scene_coordinates[usable], np.float64)
    if _is_degenerate(points):
        return failed("the scene coordinates lie on a line or in a point")

    rays = camera.rays(pixels[usable])
    focal = (camera.fx + camera.fy) / 2  # distortion is undone: one focal length measures all residuals
    camera_from_world = _ransac(rays[:, :2] * focal, points, focal, options)
    if camera_from_world is None:
        return failed("RANSAC found no pose")
    weights = 1.0 / uncertainties[usable]
    camera_from_world = _refine(camera_from_world, rays[:, :2], points, weights, options, focal)
    agree = _reprojection_errors(camera_from_world, rays[:, :2], points) * focal < options.inlier_pixels
    if agree.sum() < options.min_inliers:
        return failed(f"{agree.sum()} cells agree with the pose, at least {options.min_inliers} must")
    inliers = np.zeros(total, bool)
    inliers[usable[agree]] = True
    return PoseEstimate(invert(camera_from_world), inliers)


def _is_degenerate(points: Array) -> bool:
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(spread[1] < 1e-3 * max(spread[0], 1e-9))


def _ransac(pixels: Array, points: Array, focal: float, options: PoseOptions) -> Array | None:
    """USAC with an MSAC score and inner local optimisation: bounded, and steady down to 20 % inliers."""
    usac = cv2.UsacParams()
    usac.sampler = cv2.SAMPLING_UNIFORM
    usac.score = cv2.SCORE_METHOD_MSAC
    usac.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    usac.loIterations = 10
    usac.loSampleSize = 50
    usac.maxIterations = options.max_iterations
    usac.confidence = options.confidence
    usac.threshold = options.inlier_pixels
    usac.randomGeneratorState = 0
    matrix = np.diag([focal, focal, 1.0])
    try:
        found, _, rotation, translation, _ = cv2.solvePnPRansac(points, pixels, matrix, None, params=usac)
    except cv2.error:
        return None
    if not found or not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
        return None
    return transform_from_rotation_vector(rotation, translation)


def _reprojection_errors(camera_from_world: Array, rays: Array, points: Array) -> Array:
    """Distances (N,) on the normalised image plane; infinite behind the camera."""
    seen = apply(camera_from_world, points)
    in_front = seen[:, 2] > 1e-6
    depth = np.where(in_front, seen[:, 2], 1.0)
    errors = np.linalg.norm(seen[:, :2] / depth[:, None] - rays, axis=1)
    return np.where(in_front, errors, np.inf)


def _refine(
    camera_from_world: Array, rays: Array, points: Array, weights: Array, options: PoseOptions, focal: float
) -> Array:
    """Gauss-Newton on the reprojection errors of the points near agreement, weighted by certainty.

    An error on the image plane is a metric error over its depth, so it is whitened by depth / uncertainty.
    A Cauchy cost, whose scale is the median, keeps the worst of the points from pulling. A step that does
    not lower the cost ends the refinement and is not taken.
    """
    near = _reprojection_errors(camera_from_world, rays, points) < 2 * options.inlier_pixels / focal
    if near.sum() < options.min_inliers:
        return camera_from_world
    rays, points, weights = rays[near], points[near], weights[near]
    best, best_cost, scale = camera_from_world, np.inf, 0.0
    for _ in range(options.refinements + 1):
        x, y, z = apply(camera_from_world, points).T
        if (z < 1e-6).any():
            break
        residuals = np.stack([x / z, y / z], axis=1) - rays
        whitened = np.linalg.norm(residuals, axis=1) * z * weights
        scale = scale or max(float(np.median(whitened)), 1e-12)
        squared = (whitened / scale) ** 2
        cost = np.log1p(squared).sum()
        if cost >= best_cost:
            break
        best, best_cost = camera_from_world, cost
        weight = (z * weights) ** 2 / (1 + squared)
        jacobian = _jacobian(x, y, z)
        weighted = jacobian * weight[:, None, None]
        normal = np.tensordot(weighted, jacobian, axes=([0, 1], [0, 1]))
        gradient = np.tensordot(weighted, residuals, axes=([0, 1], [0, 1]))
        try:
            step = -np.linalg.solve(normal, gradient)
        except np.linalg.LinAlgError:
            break
        camera_from_world = transform_from_rotation_vector(step[3:], step[:3]) @ camera_from_world
    return best


def _jacobian(x: Array, y: Array, z: Array) -> Array:
    """d(x/z, y/z) / d(translation, rotation) (N, 2, 6), for a step applied on the camera's side."""
    zero = np.zeros_like(z)
    u, v = x / z, y / z
    return np.stack(
        [
            np.stack([1 / z, zero, -u / z, -u * v, 1 + u * u, -v], axis=-1),
            np.stack([zero, 1 / z, -v / z, -(1 + v * v), u * v, u], axis=-1),
        ],
        axis=1,
    )
