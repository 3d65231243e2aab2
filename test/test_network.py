"""The network: parameter counts of the paper, the sharing policy, scene-specific parts."""

import pytest
import torch

from ofvl_core.errors import ConfigError
from ofvl_core.network import ARCHITECTURES, OFVLMS, Architecture
from ofvl_core.network.parameters import count_parameters
from ofvl_core.network.sharing import THRESHOLD, LayerAdaptiveConv2d, update_gates

SMALL = Architecture(
    depths=(1, 1, 1, 1),
    widths=(8, 8, 16, 16),
    stem_width=8,
    head_widths=(16,),
    branch_width=8,
    input_height=64,
)

COUNTS = {  # backbone convolutions, batch norm affine, squeeze-excitation, head, one scene
    "ofvl_ms18": (11_133_232, 9_632, 90_112, 3_983_620, 15_216_596),
    "ofvl_ms34": (21_233_968, 17_056, 162_744, 3_983_620, 25_397_388),
    "ofvl_ms50": (13_832_496, 24_608, 162_744, 3_983_620, 18_003_468),
}
SCORED_LAYERS = {"ofvl_ms18": 21, "ofvl_ms34": 37, "ofvl_ms50": 53}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_of_the_paper(name):
    model = OFVLMS(ARCHITECTURES[name], ["scene"])
    count = count_parameters(model)
    parts = (
        count.backbone_convolutions,
        count.normalisation,
        count.attention,
        count.head,
        count.single_scene,
    )
    assert parts == COUNTS[name]
    assert len(model.scored_layers) == SCORED_LAYERS[name]
    assert model.architecture.stride == 8


def test_total_is_what_a_deployed_model_would_hold():
    """single + (N - 1) x I equals the parameters that are reachable through the gates, counted one by one."""
    model = OFVLMS(SMALL, ["a", "b", "c"])
    layers = list(model.scored_layers.values())
    for number, layer in enumerate(layers):
        layer.score.data.fill_(number % 2)
    update_gates(layers)
    used = set()
    for scene in model.scenes:
        model.zero_grad(set_to_none=True)
        prediction = model.train()(torch.randn(2, 3, 64, 64), scene)
        sum(part.square().sum() for part in prediction).backward()
        used |= {
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and "score" not in name
        }
    reachable = sum(dict(model.named_parameters())[name].numel() for name in used)
    assert count_parameters(model).total == reachable


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = LayerAdaptiveConv2d(3, 4, 3, stride=2)
    layer.add_scene("a")
    layer.add_scene("b")
    with torch.no_grad():
        layer.specific["scene_a"].add_(0.1 * torch.randn_like(layer.shared))
    return layer


def set_score(layer, score):
    layer.score.data.fill_(score)
    update_gates([layer])


def test_specific_weights_start_as_clones(layer):
    assert torch.equal(layer.specific["scene_b"], layer.shared)
    assert layer.specific["scene_b"].data_ptr() != layer.shared.data_ptr()


@pytest.mark.parametrize(("score", "shared"), [(0.2, True), (0.8, False), (THRESHOLD, False)])
def test_gate_selects_the_weight(layer, score, shared):
    set_score(layer, score)
    assert layer.is_shared == shared
    expected = layer.shared if shared else layer.specific["scene_a"]
    images = torch.randn(2, 3, 8, 8)
    convolved = torch.nn.functional.conv2d(images, expected, stride=2, padding=1)
    assert torch.equal(layer(images, "a"), convolved)


@pytest.mark.parametrize("score", [0.2, 0.8])
def test_only_the_selected_weight_gets_a_gradient(layer, score):
    set_score(layer, score)
    images = torch.randn(2, 3, 8, 8)
    layer(images, "a").square().sum().backward()
    selected = layer.shared if layer.is_shared else layer.specific["scene_a"]
    reference = selected.detach().clone().requires_grad_()
    torch.nn.functional.conv2d(images, reference, stride=2, padding=1).square().sum().backward()
    assert torch.allclose(selected.grad, reference.grad, rtol=1e-5)
    others = [layer.specific["scene_b"], layer.specific["scene_a"] if layer.is_shared else layer.shared]
    assert all(other.grad is None for other in others)


@pytest.mark.parametrize("score", [0.2, 0.8])
def test_sign_of_the_score_gradient(layer, score):
    """The score falls, towards sharing, exactly when moving from w~ to w lowers the loss."""
    set_score(layer, score)
    images = torch.randn(2, 3, 8, 8)
    target = torch.nn.functional.conv2d(images, layer.shared, stride=2, padding=1).detach()
    if layer.is_shared:  # make the specific weight the better one
        target = torch.nn.functional.conv2d(images, layer.specific["scene_a"], stride=2, padding=1).detach()
    (layer(images, "a") - target).square().sum().backward()
    better_to_share = not layer.is_shared
    assert (layer.score.grad > 0) == better_to_share  # descent subtracts the gradient
    weight = layer.shared if layer.is_shared else layer.specific["scene_a"]
    expected = -(weight.grad * (layer.shared - layer.specific["scene_a"])).sum()
    assert torch.allclose(layer.score.grad, expected, rtol=1e-5)


def test_unselected_weights_are_kept_offline(layer):
    """No gradient, no momentum, no decay: an optimiser step leaves them bit by bit as they were."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for score in (0.2, 0.8):  # momentum gathered while shared must not act while specific
        set_score(layer, score)
        before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
        optimizer.zero_grad(set_to_none=True)
        layer(torch.randn(2, 3, 8, 8), "a").square().sum().backward()
        optimizer.step()
        selected = "shared" if score < THRESHOLD else "specific.scene_a"
        changed = {
            name for name, parameter in layer.named_parameters() if not torch.equal(parameter, before[name])
        }
        assert changed == {selected, "score"}


def test_scenes_have_their_own_statistics_and_outputs():
    torch.manual_seed(0)
    model = OFVLMS(SMALL, ["a", "b"]).train()
    model(torch.randn(4, 3, 64, 64) + 1, "a")
    norm = model.backbone.stem.norm.modules_by_scene
    assert not torch.equal(norm["scene_a"].running_mean, norm["scene_b"].running_mean)
    assert norm["scene_b"].num_batches_tracked == 0
    model.eval()
    image = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(image, "a").coordinates, model(image, "b").coordinates)


def test_prediction_is_in_the_scene_frame():
    model = OFVLMS(SMALL, ["a"]).eval()
    model.set_scene_frame("a", torch.tensor([10.0, -20.0, 30.0]), torch.tensor(2.0))
    prediction = model(torch.zeros(1, 3, 64, 96), "a")
    assert prediction.coordinates.shape == (1, 3, 8, 12)
    assert prediction.log_uncertainty.shape == (1, 1, 8, 12)
    mean = prediction.coordinates.mean(dim=(0, 2, 3))
    assert torch.allclose(mean, torch.tensor([10.0, -20.0, 30.0]), atol=5)


@pytest.mark.parametrize("name", ["training", "type", "forward", "keys", "a-b_C9"])
def test_any_plain_word_is_a_scene_name(name):
    assert OFVLMS(SMALL, [name]).scenes == [name]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "../x", "ä"])
def test_other_scene_names_are_refused(name):
    with pytest.raises(ConfigError, match="rename"):
        OFVLMS(SMALL, [name])


def test_a_scene_is_added_once():
    with pytest.raises(ConfigError, match="in the model already"):
        OFVLMS(SMALL, ["a", "a"])
