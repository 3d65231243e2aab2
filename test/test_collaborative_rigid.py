"""Rigid transforms as tensors: SciPy's rotations, and derivatives wherever a network may arrive."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from ofvl_core import geometry
from ofvl_core.collaborative.rigid import inverse, log_quaternion, rigid, rotation_from_log

components = st.floats(-4.0, 4.0)
vectors = st.tuples(components, components, components).map(np.array)
axes = vectors.filter(lambda vector: np.linalg.norm(vector) > 0.1).map(lambda v: v / np.linalg.norm(v))
small_angles = st.floats(-12, 0).map(lambda exponent: 10.0**exponent)

PI = float(np.pi)
PRECISIONS = {torch.float32: 1e-6, torch.float64: 1e-14}
HARD_TURNS = [
    (0.0, 0.0, 0.0),
    (1e-20, 0.0, 0.0),
    (0.0, -1e-8, 1e-8),
    (3e-3, 0.0, 1e-3),  # both sides of where the series begins
    (3e-3, 0.0, 1.1e-3),
    (PI - 1e-7, 0.0, 0.0),
    (0.0, PI, 0.0),
    (0.0, 0.0, -PI),
    (PI / 3**0.5, PI / 3**0.5, -PI / 3**0.5),
    (0.0, 2 * PI, 0.0),
]


def tensor(values, dtype=torch.float64) -> Tensor:
    return torch.tensor(np.asarray(values, float), dtype=dtype)


def turned(rotation_vector: Tensor) -> Tensor:
    return rigid(rotation_vector, torch.zeros_like(rotation_vector))[..., :3, :3]


@given(vectors, vectors)
def test_a_transform_is_that_of_the_rotation_vector(rotation_vector, translation):
    made = rigid(tensor([rotation_vector]), tensor([translation]))
    expected = geometry.transform_from_rotation_vector(rotation_vector, translation)
    assert np.allclose(made[0], expected, rtol=0, atol=1e-14)


@given(axes, small_angles)
def test_small_rotations_lose_no_digits(axis, angle):
    rotation_vector = axis * angle
    rotation = turned(tensor(rotation_vector)).numpy()
    about = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0]]) / 2
    assert np.allclose(about, axis[:2] * np.sin(angle), rtol=1e-14, atol=1e-15 * angle)


@given(vectors, vectors)
def test_inverse_is_the_rigid_one(rotation_vector, translation):
    transform = geometry.transform_from_rotation_vector(rotation_vector, translation)
    assert np.allclose(inverse(tensor([transform]))[0], geometry.invert(transform), rtol=0, atol=1e-13)


@given(vectors.filter(lambda vector: abs(np.linalg.norm(vector) - PI) > 1e-6))
def test_logarithm_is_half_the_shortest_rotation_vector(rotation_vector):
    rotation = Rotation.from_rotvec(rotation_vector)
    log = log_quaternion(tensor(rotation.as_matrix()))
    assert np.allclose(log, rotation.as_rotvec() / 2, rtol=0, atol=1e-14)


@given(axes, small_angles)
def test_logarithm_near_half_a_turn_is_of_the_same_rotation(axis, angle):
    for rotation_vector in (axis * PI, axis * (PI - angle), axis * (PI + angle)):
        matrix = Rotation.from_rotvec(rotation_vector).as_matrix()
        log = log_quaternion(tensor(matrix))
        assert log.norm() <= PI / 2 + 1e-15
        assert np.allclose(rotation_from_log(log), matrix, rtol=0, atol=1e-14)


@given(vectors)
def test_logarithm_as_eq_8_defines_it(rotation_vector):
    quaternion = Rotation.from_rotvec(rotation_vector).as_quat(canonical=True)  # x y z w, w >= 0
    v, u = quaternion[:3], quaternion[3]
    length = np.linalg.norm(v)
    expected = v / length * np.arccos(min(u, 1.0)) if length > 1e-4 else v
    log = log_quaternion(tensor(Rotation.from_quat(quaternion).as_matrix()))
    if u > 1e-8:  # at half a turn both signs are its logarithm
        assert np.allclose(log, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("turn", HARD_TURNS)
def test_values_and_derivatives_are_finite_where_quotients_are_not(turn, dtype):
    rotation_vector = tensor([turn], dtype).requires_grad_()
    rotation = turned(rotation_vector)
    expected = Rotation.from_rotvec(turn).as_matrix()
    assert np.allclose(rotation[0].detach(), expected, rtol=0, atol=PRECISIONS[dtype])
    log = log_quaternion(rotation)
    assert log.abs().max() <= PI / 2 + 1e-6
    weights = torch.tensor([1.0, 2.0, -3.0], dtype=dtype)
    (gradient,) = torch.autograd.grad((log * weights).sum(), rotation_vector)
    assert torch.isfinite(gradient).all()
    if np.linalg.norm(turn) < 1e-2:  # the logarithm is half the vector: so is what comes back
        assert torch.allclose(gradient, weights / 2, rtol=1e-4)


@pytest.mark.parametrize("turn", [*HARD_TURNS[:5], (0.3, -0.2, 0.1), (1.0, 2.0, -2.0), (PI - 1e-3, 0.1, 0.0)])
def test_derivatives_are_those_of_finite_differences(turn):
    rotation_vector = tensor([turn]).requires_grad_()
    assert torch.autograd.gradcheck(turned, rotation_vector)
    assert torch.autograd.gradcheck(lambda vector: log_quaternion(turned(vector)), rotation_vector)


def test_any_leading_shape_is_taken():
    rotation_vectors = torch.linspace(-1, 1, 2 * 5 * 3, dtype=torch.float64).reshape(2, 5, 3)
    transforms = rigid(rotation_vectors, rotation_vectors)
    assert transforms.shape == (2, 5, 4, 4)
    assert torch.allclose(inverse(transforms) @ transforms, torch.eye(4, dtype=torch.float64))
    assert torch.allclose(log_quaternion(transforms[..., :3, :3]), rotation_vectors / 2)
