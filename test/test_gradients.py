"""Eq. 6-9 by hand on a toy of two scenes and two shared parameters, and the alternatives."""

import math

import pytest
import torch

from ofvl_core.training.gradients import METHODS, GradientNormalisation, gramian, make_combination


def toy(first, second):
    """Two scenes; each gradient is split over two parameters of different shape."""
    return [[torch.tensor([x]), torch.tensor([[y]])] for x, y in (first, second)]


def numbers(combined):
    return [tensor.item() for tensor in combined]


def test_two_steps_by_hand():
    normalise = GradientNormalisation()
    # norms 5 and 1; first step: equal pace, so D = (5 + 1) / 2 = 3
    combined = numbers(normalise(toy((3.0, 4.0), (0.0, 1.0))))
    assert combined == pytest.approx([0.5 * 3 * 3 / 5, 0.5 * (3 * 4 / 5 + 3)])
    # norms 10 and 2 after 5 and 1: paces 2 and 2; then 10 and 6: W = (2, 6) / 8
    combined = numbers(normalise(toy((10.0, 0.0), (0.0, 6.0))))
    scale = 2 / 8 * 10 + 6 / 8 * 6
    assert combined == pytest.approx([0.5 * scale, 0.5 * scale])
    assert normalise.state == pytest.approx([10, 6])


def test_every_scene_pulls_equally_hard():
    combined = numbers(GradientNormalisation()(toy((1e-3, 0.0), (0.0, 1e3))))
    assert combined[0] == pytest.approx(combined[1])


def test_the_state_can_be_carried_over():
    one = GradientNormalisation()
    one(toy((3.0, 4.0), (0.0, 1.0)))
    two = GradientNormalisation(one.state)
    again = (1.0, 2.0), (3.0, 4.0)
    assert numbers(one(toy(*again))) == numbers(two(toy(*again)))


def test_vanishing_gradients_do_no_harm():
    normalise = GradientNormalisation()
    assert numbers(normalise(toy((0.0, 0.0), (0.0, 0.0)))) == [0, 0]
    for _ in range(2):
        combined = numbers(normalise(toy((0.0, 0.0), (3.0, 4.0))))
        assert all(map(math.isfinite, combined))
    assert numbers(normalise(toy((3.0, 4.0), (3.0, 4.0)))) == pytest.approx([3, 4])


def test_a_gradient_after_vanishing_ones_counts():
    normalise = GradientNormalisation()
    normalise(toy((0.0, 0.0), (0.0, 0.0)))
    assert numbers(normalise(toy((3.0, 4.0), (3.0, 4.0)))) == pytest.approx([3, 4])


def test_average_is_the_plain_mean():
    assert numbers(make_combination("average")(toy((3.0, 4.0), (0.0, 1.0)))) == pytest.approx([1.5, 2.5])


@pytest.mark.parametrize("method", ["imtl_g", "mgda", "aligned_mtl"])
def test_a_method_from_torchjd_gives_what_its_aggregator_gives(method):
    from torchjd import aggregation

    jacobian = torch.tensor([(3.0, 4.0), (-2.0, 1.0)], dtype=torch.float64)
    aggregators = {
        "imtl_g": aggregation.IMTLG,
        "mgda": aggregation.MGDA,
        "aligned_mtl": aggregation.AlignedMTL,
    }
    expected = aggregators[method]()(jacobian)
    combined = numbers(make_combination(method)(toy((3.0, 4.0), (-2.0, 1.0))))
    assert combined == pytest.approx(expected.tolist(), rel=1e-5)


def test_methods_differ_on_conflicting_gradients():
    results = {
        tuple(round(x, 4) for x in numbers(make_combination(method)(toy((9.0, 4.0), (-2.0, 1.0)))))
        for method in METHODS
    }
    assert len(results) == len(METHODS)


def test_gramian_is_that_of_the_whole_gradients():
    generator = torch.Generator().manual_seed(0)
    scenes = [[torch.randn(2, 3, generator=generator), torch.randn(5, generator=generator)] for _ in range(4)]
    whole = torch.stack([torch.cat([part.flatten() for part in scene]) for scene in scenes]).double()
    assert torch.allclose(gramian(scenes), whole @ whole.T, rtol=1e-5)
    assert torch.allclose(
        gramian(scenes, inner_products=False), (whole @ whole.T).diagonal().diag(), rtol=1e-5
    )
