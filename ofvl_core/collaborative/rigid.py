"""Rigid transforms that a network's outputs become and gradients pass through.

The conventions are those of `ofvl_core.geometry`; here transforms are tensors (..., 4, 4) of any float type.
Every function has finite derivatives everywhere, no rotation and half a turn included.
"""

import torch
from torch import Tensor

SMALL = 1e-5
"""Squared angle below which a series replaces a quotient of zeros; its error is below float64's rounding."""


def rigid(rotation_vector: Tensor, translation: Tensor) -> Tensor:
    """Transform (..., 4, 4) from a rotation vector (..., 3), radians, and a translation (..., 3)."""
    return transform(_rotation(rotation_vector), translation)


def transform(rotation: Tensor, translation: Tensor) -> Tensor:
    """Transform (..., 4, 4) from a rotation matrix (..., 3, 3) and a translation (..., 3)."""
    upper = torch.cat([rotation, translation.unsqueeze(-1)], dim=-1)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)
    return torch.cat([upper, last], dim=-2)


def inverse(a_from_b: Tensor) -> Tensor:
    """b_from_a, exactly rigid: the rotation is transposed, not inverted numerically."""
    rotation, translation = a_from_b[..., :3, :3], a_from_b[..., :3, 3:]
    return transform(rotation.transpose(-1, -2), -(rotation * translation).sum(dim=-2))


def log_quaternion(rotation: Tensor) -> Tensor:
    """Eq. 8: logarithm (..., 3) of the unit quaternion of a rotation (..., 3, 3), the one with w >= 0.

    Its direction is the axis, its length half the angle: 0 to pi / 2.
    """
    x, y, z = rotation[..., 0, :], rotation[..., 1, :], rotation[..., 2, :]
    xx, yy, zz = x[..., 0], y[..., 1], z[..., 2]
    wx, wy, wz = z[..., 1] - y[..., 2], x[..., 2] - z[..., 0], y[..., 0] - x[..., 1]
    xy, xz, yz = x[..., 1] + y[..., 0], x[..., 2] + z[..., 0], y[..., 2] + z[..., 1]
    products = [  # 4 q q^T of q = (w, x, y, z): each row is q times one of its elements
        torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
        torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
        torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
        torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
    ]
    outer = torch.stack(products, dim=-2)
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)  # its row has length 2 or more
    row = outer.gather(-2, largest[..., None, None].expand(*outer.shape[:-2], 1, 4)).squeeze(-2)
    quaternion = row / row.norm(dim=-1, keepdim=True)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return quaternion[..., 1:] * _angle_over_sine(quaternion)


def rotation_from_log(log: Tensor) -> Tensor:
    """Rotation (..., 3, 3) from the logarithm (..., 3) of its quaternion."""
    return _rotation(2 * log)


def _rotation(rotation_vector: Tensor) -> Tensor:
    """Rodrigues' formula: the rotation (..., 3, 3) of a rotation vector (..., 3)."""
    squared = rotation_vector.square().sum(dim=-1)[..., None, None]
    x, y, z = rotation_vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=x.dtype, device=x.device)
    twice_crossed = rotation_vector.unsqueeze(-1) * rotation_vector.unsqueeze(-2) - squared * identity
    return identity + _sinc(squared) * cross + 0.5 * _sinc(squared / 4).square() * twice_crossed


def _sinc(squared: Tensor) -> Tensor:
    """sin(a) / a of a squared angle."""
    small = squared < SMALL
    angle = torch.where(small, 1.0, squared).sqrt()  # the branch not taken must have a derivative too
    return torch.where(small, 1 - squared / 6 + squared.square() / 120, angle.sin() / angle)


def _angle_over_sine(quaternion: Tensor) -> Tensor:
    """a / sin(a), (..., 1), of a unit quaternion (cos(a), sin(a) axis) (..., 4) with cos(a) >= 0."""
    squared = quaternion[..., 1:].square().sum(dim=-1, keepdim=True)
    small = squared < SMALL
    sine = torch.where(small, 1.0, squared).sqrt()
    angle = torch.atan2(sine, quaternion[..., :1])
    return torch.where(small, 1 + squared / 6 + 3 * squared.square() / 40, angle / sine)
