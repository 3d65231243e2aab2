"""What cells see: viewing rays, the scene's points along them and, from a depth camera, how far they are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.geometry import Array, apply


class Correspondences(NamedTuple):
    """N cells, or those of them that are of interest.

    `rays` (N, 2) lie on the image plane z = 1, NaN where a cell has none. `points` (N, 3) are what the
    network says is there, in the scene's frame, and `uncertainties` (N,) their standard deviation along each
    axis, metres. `depths` (N,), metres along the optical axis, are what a depth camera measured, NaN where it
    did not; None without one. `depth_noise` is the standard deviation of a depth of one metre, in metres; it
    grows with the depth's square, as a D435's does, whose subpixel accuracy of a tenth it stands for.
    """

    rays: Array
    points: Array
    uncertainties: Array
    depths: Array | None = None
    depth_noise: float = 0.0025

    def chosen(self, cells: NDArray[np.bool_] | NDArray[np.intp]) -> "Correspondences":
        """Those of a mask, or of an array of indices."""
        depths = None if self.depths is None else self.depths[cells]
        return Correspondences(
            self.rays[cells], self.points[cells], self.uncertainties[cells], depths, self.depth_noise
        )

    def seen(self, camera_from_world: Array) -> Array:
        """The points (N, 3) in the camera's frame."""
        return apply(camera_from_world, self.points)

    def measured(self) -> Array:
        """The points (N, 3) in the camera's frame that the depth camera measured; NaN where it did not."""
        assert self.depths is not None
        return np.column_stack([self.rays, np.ones(len(self.rays))]) * self.depths[:, None]

    def errors(self, seen: Array) -> Array:
        """Errors (2 or 3, N), metres, of points in the camera's frame: how far they lie beside their rays,
        (x/z - u) z and (y/z - v) z, and with depths how far beyond what was measured, 0 where unknown.

        The last factor z is a weight, and not differentiated: a network predicts the mean of what it may see,
        so its errors are independent of the predicted point, not of the true one. Errors x - u z, linear in
        the point, would presume the opposite and pull the camera forward.
        """
        beside = (seen[:, :2] - seen[:, 2:] * self.rays).T
        if self.depths is None:
            return beside
        return np.vstack([beside, np.nan_to_num(seen[:, 2] - self.depths)])

    def precisions(self) -> Array:
        """Inverse variances (2 or 3, N) of `errors`; 0 where a depth is unknown."""
        variances = np.square(self.uncertainties)
        if self.depths is None:
            return np.broadcast_to(1 / variances, (2, len(variances)))
        in_depth = variances + np.square(self.depth_noise * np.square(self.depths))
        return np.stack([1 / variances, 1 / variances, np.nan_to_num(1 / in_depth)])

    def jacobian(self, seen: Array) -> Array:
        """d errors / d (translation, rotation) (2 or 3, N, 6), for a step applied on the camera's side."""
        x, y, z = seen.T
        u, v = x / z, y / z
        rows = np.zeros((2 if self.depths is None else 3, len(z), 6))
        rows[0].T[[0, 2, 3, 4, 5]] = np.ones_like(z), -u, -u * y, z + u * x, -y
        rows[1].T[1:] = np.ones_like(z), -v, -z - v * y, v * x, x
        if self.depths is not None:
            rows[2].T[2:5] = np.ones_like(z), y, -x
        return rows
