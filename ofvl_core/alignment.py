"""Camera pose from points measured in the camera's frame and their scene coordinates: RANSAC over triples."""

import numpy as np

from ofvl_core.geometry import Array, apply

TRIPLES = 1000
"""Triples that are drawn. Of 20 % correct points, 8 triples in 1000 are correct on average."""

HYPOTHESES = 100
"""Triples whose two triangles are most alike, each of which is a hypothesis."""

JUDGES = 1000
"""Points by which hypotheses are ranked, of more any. What is found is aligned to all of them."""


def align(points: Array, measured: Array, tolerances: Array, least: int) -> Array | None:
    """camera_from_world (4, 4) that brings scene `points` (N, 3) to where they were `measured` (N, 3).

    The hypothesis with the least truncated squared distance (MSAC; `tolerances` (N,), metres, truncate), then
    aligned twice more to all that agree with it. None when fewer than `least` >= 3 points are given or agree.
    The same input gives the same answer.
    """
    if len(points) < least:
        return None
    random = np.random.default_rng(0)
    triples = random.integers(len(points), size=(TRIPLES, 3))
    differences = _differences(points[triples], measured[triples])
    triples = triples[np.argsort(differences)[:HYPOTHESES]]
    hypotheses = rigid(points[triples], measured[triples], np.ones(triples.shape))
    judges = random.permutation(len(points))[:JUDGES]
    moved = points[judges] @ np.swapaxes(hypotheses[:, :3, :3], 1, 2) + hypotheses[:, None, :3, 3]
    squared = np.square(moved - measured[judges]).sum(axis=2) / np.square(tolerances[judges])
    best = hypotheses[np.minimum(squared, 1.0).sum(axis=1).argmin()]
    for _ in range(2):
        agree = np.linalg.norm(apply(best, points) - measured, axis=1) < tolerances
        if agree.sum() < least:
            return None
        best = rigid(points[None, agree], measured[None, agree], 1 / np.square(tolerances[None, agree]))[0]
    return best


def rigid(points: Array, measured: Array, weights: Array) -> Array:
    """The transforms (..., 4, 4) with the least weighted squared error from points to measured (..., N, 3).

    Kabsch's solution; `weights` are (..., N). Any rotation about the line when the points lie on one.
    """
    shares = (weights / weights.sum(axis=-1, keepdims=True))[..., None]
    centre, measured_centre = (shares * points).sum(axis=-2), (shares * measured).sum(axis=-2)
    turned = np.swapaxes(shares * (measured - measured_centre[..., None, :]), -1, -2)
    left, _, right = np.linalg.svd(turned @ (points - centre[..., None, :]))
    left[..., 2] *= np.sign(np.linalg.det(left @ right))[..., None]  # a rotation, not a reflection
    transforms = np.zeros((*points.shape[:-2], 4, 4))
    transforms[..., :3, :3] = left @ right
    transforms[..., :3, 3] = measured_centre - (transforms[..., :3, :3] @ centre[..., None])[..., 0]
    transforms[..., 3, 3] = 1.0
    return transforms


def _differences(triangles: Array, others: Array) -> Array:
    """How unlike triangles (M, 3, 3) are: the largest difference of their sides over the shortest side."""
    sides, other_sides = (
        np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2) for corners in (triangles, others)
    )
    return np.abs(sides - other_sides).max(axis=1) / np.maximum(other_sides.min(axis=1), 1e-9)
