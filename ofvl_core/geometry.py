"""Rigid transforms and the errors between them.

A transform is a 4x4 float64 array whose name says its direction: `world_from_camera` takes points
from the camera frame to the world frame, so `a_from_b @ b_from_c` is `a_from_c`. Quaternions are
(x, y, z, w), as in ROS and SciPy. Lengths are metres.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]


def transform(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
    """4x4 transform from a translation (3,) and a quaternion (4,), which is normalised."""
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat(np.asarray(quaternion_xyzw, float)).as_matrix()
    result[:3, 3] = translation
    return result


def transform_from_rotation_vector(rotation_vector: ArrayLike, translation: ArrayLike) -> Array:
    """4x4 transform from a rotation vector (3,), in radians, and a translation (3,)."""
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(np.asarray(rotation_vector, float))[0]  # at a tenth of SciPy's time
    result[:3, 3] = np.asarray(translation, float).ravel()
    return result


def quaternion_xyzw(transform: Array) -> Array:
    """Quaternion (4,) of a transform's rotation, with w >= 0."""
    quaternion = Rotation.from_matrix(transform[:3, :3]).as_quat()
    return -quaternion if quaternion[3] < 0 else quaternion


def invert(a_from_b: Array) -> Array:
    """b_from_a, exactly rigid: the rotation is transposed, not inverted numerically. Takes (..., 4, 4)."""
    b_from_a = np.zeros_like(a_from_b)
    rotation = np.swapaxes(a_from_b[..., :3, :3], -1, -2)
    b_from_a[..., :3, :3] = rotation
    b_from_a[..., :3, 3] = -(rotation @ a_from_b[..., :3, 3:])[..., 0]
    b_from_a[..., 3, 3] = 1.0
    return b_from_a


def apply(a_from_b: Array, points_in_b: Array) -> Array:
    """Points (N, 3) carried from frame b to frame a."""
    return points_in_b @ a_from_b[:3, :3].T + a_from_b[:3, 3]


def nearest_rigid(matrix: Array) -> Array:
    """The rigid transform closest to a 4x4 whose rotation is slightly off, as in rounded text files."""
    result = np.eye(4)
    result[:3, :3] = Rotation.from_matrix(matrix[:3, :3]).as_matrix()
    result[:3, 3] = matrix[:3, 3]
    return result


def interpolate(a_from_b0: Array, a_from_b1: Array, fraction: float) -> Array:
    """The transform at `fraction` in [0, 1] of the way: straight line and SLERP."""
    result = np.eye(4)
    ends = Rotation.from_matrix(np.stack([a_from_b0[:3, :3], a_from_b1[:3, :3]]))
    result[:3, :3] = Slerp([0.0, 1.0], ends)(fraction).as_matrix()
    result[:3, 3] = (1.0 - fraction) * a_from_b0[:3, 3] + fraction * a_from_b1[:3, 3]
    return result


def pose_error(estimated: Array, true: Array) -> tuple[float, float]:
    """Position error in metres and rotation error in degrees between two poses of one direction."""
    position = float(np.linalg.norm(estimated[:3, 3] - true[:3, 3]))
    relative = Rotation.from_matrix(estimated[:3, :3].T @ true[:3, :3])
    return position, float(np.degrees(relative.magnitude()))
