"""A LiDAR's motion within one revolution: constant velocity, as in LOAM (Sec. V.B)."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ofvl_core.geometry import Array, invert, transform_from_rotation_vector


@dataclass(frozen=True, eq=False)
class Velocity:
    """Metres and radians a second, each (3,), in the moving sensor's own frame."""

    linear: Array
    angular: Array

    @classmethod
    def between(cls, first: Array, second: Array, seconds: float) -> "Velocity":
        """The velocity that leads from one pose frame_from_sensor (4, 4) to another in a time."""
        moved = invert(first) @ second
        angle = Rotation.from_matrix(moved[:3, :3]).as_rotvec()
        return cls(moved[:3, 3] / seconds, angle / seconds)

    def level(self) -> "Velocity":
        """What is left of it on a level floor: nothing rises and nothing tilts."""
        return Velocity(self.linear * (1, 1, 0), self.angular * (0, 0, 1))

    def ahead(self, seconds: float) -> Array:
        """now_from_then (4, 4): where the sensor is after a time, as it sees it now."""
        return transform_from_rotation_vector(self.angular * seconds, self.linear * seconds)

    def carry(self, points: Array, times: Array) -> Array:
        """Points (N, 3), each seen by the sensor at its own of `times` (N,), as seen at time 0."""
        turn = np.linalg.norm(self.angular)
        shifted = times[:, None] * self.linear
        if turn < 1e-9:
            return points + shifted
        # Rodrigues: all turn about one axis, each by its own angle.
        axis, angles = self.angular / turn, turn * times[:, None]
        along = np.outer(points @ axis, axis)
        turned = along + np.cos(angles) * (points - along) + np.sin(angles) * np.cross(axis, points)
        return turned + shifted


STANDSTILL = Velocity(np.zeros(3), np.zeros(3))
