"""The rigid motion that brings points onto lines and planes (LOAM, Eq. 2, 3 and 8-12).

Both distances are the length of a projected difference: across the line, or along the plane's normal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ofvl_core.geometry import Array

STEPS = 5
CONVERGED = 1e-5  # metres and radians

FLAT = 0.3  # a plane's neighbours: spread across it over the lesser spread along it
LONG = 3.0  # a line's neighbours: variance along it over the greater variance across it (A-LOAM)


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Lines and planes through `anchors` (N, 3); `projections` (N, 3, 3) are onto their normal spaces."""

    projections: Array
    anchors: Array

    def replaced(self, places: NDArray[np.intp], others: "Surfaces") -> "Surfaces":
        """The same but for those at some places (K,), which are K others."""
        projections, anchors = self.projections.copy(), self.anchors.copy()
        projections[places], anchors[places] = others.projections, others.anchors
        return Surfaces(projections, anchors)

    def errors(self, points: Array) -> Array:
        """The shortest ways (N, 3), metres, from the surfaces to points (N, 3)."""
        errors: Array = np.einsum("nij,nj->ni", self.projections, points - self.anchors)
        return errors

    def jacobian(self, points: Array) -> Array:
        """Derivatives (N, 3, 6) of `errors` for a shift and a turn (rotation vector) of the points."""
        # x + v + w * x: a row p of the projection gives p for v and x * p for w.
        turned = np.cross(points[:, None], self.projections)
        return np.concatenate([self.projections, turned], axis=2)


def plane_fits(neighbours: Array) -> tuple[Surfaces, Array]:
    """The planes through the neighbours (N, M, 3) of N points, and weights (N,): 0 where those are no plane.

    That is where they are too thick, or all on one line, as a single ring's points on a floor.
    """
    middle, variances, axes = _principal(neighbours)
    normals = axes[:, :, 0]
    sound = variances[:, 0] < FLAT**2 * variances[:, 1]
    return Surfaces(normals[:, :, None] * normals[:, None], middle), sound.astype(float)


def line_fits(neighbours: Array) -> tuple[Surfaces, Array]:
    """The lines through the neighbours (N, M, 3) of N points, and weights (N,): 0 where those are no line."""
    middle, variances, axes = _principal(neighbours)
    along = axes[:, :, 2]
    sound = variances[:, 2] > LONG * variances[:, 1]
    return Surfaces(np.eye(3) - along[:, :, None] * along[:, None], middle), sound.astype(float)


def _principal(neighbours: Array) -> tuple[Array, Array, Array]:
    """Means (N, 3), rising variances (N, 3) and their axes (N, 3, 3), in columns, of N sets of points."""
    middle = neighbours.mean(axis=1)
    centred = neighbours - middle[:, None]
    variances, axes = np.linalg.eigh(np.swapaxes(centred, 1, 2) @ centred / neighbours.shape[1])
    return middle, variances, axes


def joined(*surfaces: Surfaces) -> Surfaces:
    """Several as one."""
    return Surfaces(
        np.concatenate([each.projections for each in surfaces]),
        np.concatenate([each.anchors for each in surfaces]),
    )


def register(
    pose: Array, points: Array, surfaces: Surfaces, precisions: Array, expected: Array, prior: Array
) -> Array:
    """frame_from_sensor (4, 4) that brings a sensor's points (N, 3) onto surfaces in the frame.

    Starts from `pose`. `precisions` (N,) are 1 / m^2, 0 for points that have no surface. `prior` (6,) are
    those in 1 / m^2 and 1 / rad^2, along and about the frame's axes, with which the pose is `expected`: where
    the points say nothing, as along a bare corridor, this decides. Gauss-Newton on a Cauchy cost whose scale
    narrows with the errors' median.
    """
    used = precisions > 0
    points, precisions = points[used], precisions[used]
    surfaces = Surfaces(surfaces.projections[used], surfaces.anchors[used])
    for _ in range(STEPS):
        turned = points @ pose[:3, :3].T
        errors = surfaces.errors(turned + pose[:3, 3])
        squared = precisions * np.square(errors).sum(axis=1)
        scale = max(1.0, float(np.median(squared))) * 4 if len(squared) else 1.0
        weights = np.repeat(precisions / (1 + squared / scale), 3)
        # Turned about the sensor, not the frame's origin: far from that, a turn would look like a shift.
        jacobian = surfaces.jacobian(turned).reshape(-1, 6)
        pulled = jacobian.T * weights
        unexpected = np.concatenate(
            [
                pose[:3, 3] - expected[:3, 3],
                Rotation.from_matrix(pose[:3, :3] @ expected[:3, :3].T).as_rotvec(),
            ]
        )
        gradient = pulled @ errors.ravel() + prior * unexpected
        step = -np.linalg.solve(pulled @ jacobian + np.diag(prior), gradient)
        pose = pose.copy()
        pose[:3, :3] = Rotation.from_rotvec(step[3:]).as_matrix() @ pose[:3, :3]
        pose[:3, 3] += step[:3]
        if np.abs(step).max() < CONVERGED:
            break
    return pose
