"""What scenes share: strategies, scenes that come, borrow and go, and the compact form."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ofvl_core.errors import ConfigError
from ofvl_core.network import ARCHITECTURES, OFVLMS, Architecture
from ofvl_core.network.parameters import count_parameters
from ofvl_core.network.sharing import LayerAdaptiveBatchNorm2d, LayerAdaptiveConv2d, update_gates

STRATEGIES = ("conv_scored", "conv_norm_scored", "all_shared")
SCORED = STRATEGIES[:2]


def small(sharing="conv_scored", **changes):
    return Architecture(
        depths=(1, 1, 1, 1),
        widths=(8, 8, 8, 16),
        stem_width=8,
        head_widths=(8,),
        branch_width=8,
        input_height=64,
        sharing=sharing,
        **changes,
    )


def trained(sharing="conv_scored", scenes=("a", "b", "c"), **options):
    """A model in evaluation mode with no two equal tensors, whose layers are shared and specific in turn."""
    torch.manual_seed(0)
    model = OFVLMS(small(sharing), scenes, **options)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
        for number, score in enumerate(model.scores()):
            score.fill_(0.3 + 0.4 * ((number // 2 + number) % 2))
    return model.eval()


def images(size=2, seed=1):
    return torch.randn(size, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def predict(model, scene):
    return torch.cat(model.eval()(images(), scene), dim=1)


def train_step(model, scene, optimizer):
    model.train()
    optimizer.zero_grad(set_to_none=True)
    sum(part.square().mean() for part in model(images(4), scene)).backward()
    optimizer.step()


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed_since(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


# Strategies


@pytest.mark.parametrize(
    ("changes", "scenes", "total"),
    [
        ({"sharing": "all_shared"}, 7, 50_275_572),  # EXP1 of Table 5: convolutions and norms once
        ({"sharing": "all_shared"}, 1, 25_397_388),
        ({"sharing": "conv_norm_scored"}, 1, 25_397_388),
        ({"attention": False}, 1, 25_397_388 - 162_744),
    ],
)
def test_parameter_counts_of_the_ablations(changes, scenes, total):
    architecture = ARCHITECTURES["ofvl_ms34"].model_copy(update=changes)
    gates = dict.fromkeys(OFVLMS(architecture).scored_layers, True)
    with torch.device("meta"):
        model = OFVLMS(architecture, [f"scene_{n}" for n in range(scenes)], compact_gates=gates)
    assert count_parameters(model).total == total


def test_scored_layers_of_the_strategies_come_from_input_to_output():
    convolutions = list(trained("conv_scored").scored_layers)
    assert convolutions[0] == "backbone.stem.conv"
    assert len(convolutions) == 1 + 4 * 3
    both = list(trained("conv_norm_scored").scored_layers)
    assert [name for name in both if name.endswith("conv")] == convolutions
    assert both[1::2] == [name.removesuffix("conv") + "norm" for name in both[::2]]
    assert trained("all_shared").scored_layers == {}


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_unselected_parameters_are_kept_offline(sharing):
    """No gradient, no momentum, no decay: bit by bit as they were, also after a layer flips."""
    model = trained(sharing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    for _ in range(2):
        for score in model.scores():
            score.data.fill_(1 - score.item())
        update_gates(model.scored_layers.values())
        others = {name for scene in "bc" for name in model.scene_tensors(scene)}
        selected = set(model.used_tensors()) - others
        before = snapshot(model)
        train_step(model, "a", optimizer)
        frames = {name for name in selected if name.endswith((".centre", ".extent"))}
        assert changed_since(before, model) == selected - frames
        with_gradient = {name for name, tensor in model.named_parameters() if tensor.grad is not None}
        assert with_gradient == selected & dict(model.named_parameters()).keys()


@pytest.mark.parametrize("slope", [-1.0, 1.0])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["conv", "norm"])
def test_score_gradient_is_that_of_a_blend(kind, shared, slope):
    """With theta for the indicator, dL/ds = slope dL/dtheta of theta w + (1 - theta) w~."""
    torch.manual_seed(0)
    layer = LayerAdaptiveConv2d(3, 4, 3) if kind == "conv" else LayerAdaptiveBatchNorm2d(3)
    layer.add_scene("a")
    layer.score_slope = slope
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter))
        layer.score.fill_(0.2 if shared else 0.8)
    update_gates([layer])
    layer.train()
    features = images()
    theta = torch.tensor(float(shared), requires_grad=True)

    def blend(one, other):
        return theta * one.detach() + (1 - theta) * other.detach()

    specific = layer.specific["scene_a"]
    if kind == "conv":
        expected = F.conv2d(features, blend(layer.shared, specific), padding=1)
    else:
        gamma, beta = blend(layer.shared.weight, specific.weight), blend(layer.shared.bias, specific.bias)
        expected = F.batch_norm(features, None, None, gamma, beta, training=True)
    output = layer(features, "a")
    torch.testing.assert_close(output, expected)
    output.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    torch.testing.assert_close(layer.score.grad, slope * theta.grad)


@pytest.mark.parametrize("shared", [True, False])
def test_a_scored_norm_is_the_plain_one_that_it_selects(shared):
    torch.manual_seed(0)
    layer = LayerAdaptiveBatchNorm2d(3).train()
    layer.add_scene("a")
    layer.score.data.fill_(0.2 if shared else 0.8)
    update_gates([layer])
    selected, other = (layer.shared, layer.specific["scene_a"])[:: 1 if shared else -1]
    torch.nn.init.uniform_(selected.weight)
    plain, rest = copy.deepcopy(selected), copy.deepcopy(other.state_dict())
    for seed in range(3):
        assert torch.equal(layer(images(seed=seed), "a"), plain(images(seed=seed)))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in selected.state_dict().items())
    assert all(torch.equal(value, rest[key]) for key, value in other.state_dict().items())
    assert torch.equal(layer.eval()(images(), "a"), plain.eval()(images()))


def test_all_shared_feeds_every_scene_to_one_set_of_statistics():
    model = trained("all_shared").train()
    stem = model.backbone.stem
    reference = copy.deepcopy(stem.norm.module)
    for seed, scene in enumerate("ab"):
        model(images(seed=seed), scene)
        reference(stem.conv(images(seed=seed), scene))
    assert torch.equal(stem.norm.module.running_var, reference.running_var)
    assert stem.norm.module.num_batches_tracked == 2
    assert not any("scene_" in name and ".norm." in name for name, _ in model.named_buffers())


def test_without_attention():
    model = OFVLMS(small(attention=False), ["a"]).eval()
    assert count_parameters(model).attention == 0
    assert predict(model, "a").shape == (2, 4, 4, 4)


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_every_parameter_has_one_place(sharing):
    model = trained(sharing)
    model.add_scene("d", share_with="a")
    places = [model.scene_parameters(scene) for scene in model.scenes]
    places += [model.shared_parameters(), model.scores()]
    ids = [id(parameter) for place in places for parameter in place]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters()}
    assert len(model.scores()) == len(model.scored_layers)
    tensors = model.scene_tensors("a")
    assert {name for name in tensors if name not in dict(model.named_parameters())} == {
        name for name, _ in model.named_buffers() if "scene_a" in name.split(".")
    }


# Scenes that come, borrow and go


@pytest.mark.parametrize("sharing", STRATEGIES)
@pytest.mark.parametrize("compact", [False, True])
def test_a_scene_like_another_starts_as_that_one(sharing, compact):
    model = trained(sharing)
    if compact:
        model.compact()
    model.add_scene("d", like="b")
    assert torch.equal(predict(model, "d"), predict(model, "b"))
    copied = {id(tensor) for tensor in model.scene_tensors("b").values()}
    assert copied.isdisjoint(map(id, model.scene_tensors("d").values()))
    ends = [{name.replace(f"scene_{scene}", "") for name in model.scene_tensors(scene)} for scene in "bd"]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("sharing", STRATEGIES)
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("share_with", [None, "a"])
def test_old_scenes_stay_as_they_are(sharing, compact, share_with):
    """Bit by bit, while a scene is added, trained beside the frozen rest, and another one removed."""
    model = trained(sharing)
    if compact:
        model.compact()
    before = {scene: predict(model, scene) for scene in "ab"}
    model.requires_grad_(False)
    model.add_scene("d", like="b", share_with=share_with)
    assert all(torch.equal(predict(model, scene), before[scene]) for scene in "ab")
    assert {id(p) for p in model.parameters() if p.requires_grad} == set(map(id, model.scene_parameters("d")))
    new = predict(model, "d")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    for _ in range(2):
        train_step(model, "d", optimizer)
    assert not torch.equal(predict(model, "d"), new)
    assert all(torch.equal(predict(model, scene), before[scene]) for scene in "ab")
    model.remove_scene("c")
    assert all(torch.equal(predict(model, scene), before[scene]) for scene in "ab")


def test_a_new_scene_starts_with_clones_of_the_shared_weights():
    model = trained()
    model.add_scene("d")
    for layer in model.scored_layers.values():
        assert torch.equal(layer.specific["scene_d"], layer.shared)
    norm = model.backbone.stem.norm.modules_by_scene["scene_d"]
    assert torch.equal(norm.running_var, torch.ones(8))
    assert not norm.training  # as the model that it came to


@pytest.mark.parametrize("sharing", SCORED)
def test_a_borrower_has_no_convolutions_of_its_own(sharing):
    model = trained(sharing)
    before = count_parameters(model)
    model.add_scene("d", share_with="a")
    model.add_scene("e", share_with="d")  # a chain ends at the owner
    assert model.owners == {"d": "a", "e": "a"}
    for scene in "de":
        assert not any("conv" in name.split(".") for name in model.scene_tensors(scene))
        for layer in model.scored_layers.values():
            if isinstance(layer, LayerAdaptiveConv2d):
                assert layer.weight(scene).data_ptr() == layer.weight("a").data_ptr()
    after = count_parameters(model)
    assert after.total - before.total == 2 * (before.per_scene - before.specific_convolutions)
    assert after[:7] == before[:7]


@pytest.mark.parametrize("sharing", SCORED)
def test_an_owner_that_goes_hands_its_convolutions_over(sharing):
    model = trained(sharing)
    for scene in "def":
        model.add_scene(scene, like="b", share_with="a")
    before = {scene: predict(model, scene) for scene in "bdef"}
    weights = {id(tensor) for name, tensor in model.scene_tensors("a").items() if ".conv." in name}
    model.remove_scene("e")
    model.remove_scene("a")
    assert model.scenes == ["b", "c", "d", "f"]
    assert model.owners == {"f": "d"}
    assert weights == {id(tensor) for name, tensor in model.scene_tensors("d").items() if ".conv." in name}
    assert all(torch.equal(predict(model, scene), before[scene]) for scene in "bdf")
    model.add_scene("a", like="f")
    assert torch.equal(predict(model, "a"), before["f"])


def test_a_model_is_rebuilt_with_its_owners():
    model = trained()
    model.add_scene("d", share_with="a")
    torch.manual_seed(0)  # of the gates
    rebuilt = OFVLMS(model.architecture, ["d", "c", "b", "a"], {"d": "c", "c": "a"})
    assert rebuilt.owners == {"d": "a", "c": "a"}
    assert count_parameters(rebuilt).per_scene > count_parameters(rebuilt).specific_convolutions > 0
    rebuilt = OFVLMS(model.architecture, model.scenes, model.owners)
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(predict(rebuilt, "d"), predict(model, "d"))


def test_a_copied_model_keeps_its_own_owners():
    model = trained()
    model.add_scene("d", share_with="a")
    other = copy.deepcopy(model)
    other.remove_scene("a")
    assert model.owners == {"d": "a"}
    assert all("scene_d" in layer.specific for layer in other.scored_layers.values())
    predict(other, "d")


operations = st.lists(
    st.tuples(st.sampled_from(["add", "like", "share", "remove"]), st.integers(0, 9)), max_size=6
)


@settings(max_examples=15, deadline=None)
@given(sharing=st.sampled_from(STRATEGIES), compact=st.booleans(), operations=operations)
def test_any_order_of_comings_and_goings(sharing, compact, operations):
    """Counts follow the rule, survivors predict what they did, the state_dict builds the model again."""
    model = trained(sharing, "ab")
    if compact:
        model.compact()
    before = {scene: predict(model, scene) for scene in model.scenes}
    for step, (operation, choice) in enumerate(operations):
        other = model.scenes[choice % len(model.scenes)]
        scene = f"new{step}"
        if operation == "remove":
            if len(model.scenes) == 1:
                continue
            model.remove_scene(other)
        elif operation == "share":
            model.add_scene(scene, like=other, share_with=other)
        else:
            model.add_scene(scene, like=other if operation == "like" or compact else None)
    for scene in model.scenes:
        before.setdefault(scene, predict(model, scene))
        assert torch.equal(predict(model, scene), before[scene])
    count = count_parameters(model)
    borrowed = len(model.owners) * count.specific_convolutions
    assert count.total == count.single_scene + (len(model.scenes) - 1) * count.per_scene - borrowed
    gates = {name: layer.is_shared for name, layer in model.scored_layers.items()} if compact else None
    again = OFVLMS(model.architecture, model.scenes, model.owners, gates)
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(predict(again, scene), before[scene]) for scene in model.scenes)


# The compact form


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_compact_keeps_predictions_counts_and_what_is_used(sharing):
    model = trained(sharing)
    model.add_scene("d", share_with="b")
    before = {scene: predict(model, scene) for scene in model.scenes}
    count, used = count_parameters(model), list(model.used_tensors())
    model.compact()
    assert all(torch.equal(predict(model, scene), before[scene]) for scene in model.scenes)
    assert count_parameters(model) == count
    state = model.state_dict()
    assert list(state) == used
    parameters = dict(model.named_parameters())
    weights = sum(state[name].numel() for name in state if name in parameters and ".score" not in name)
    assert weights == count.total
    assert sum(tensor.numel() for tensor in state.values()) == count.total + count.buffers + count.scores


@pytest.mark.parametrize("sharing", STRATEGIES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_compact_model_is_built_from_its_gates(sharing, device):
    model = trained(sharing)
    model.add_scene("d", share_with="b")
    before = {scene: predict(model, scene) for scene in model.scenes}
    gates = {name: layer.is_shared for name, layer in model.scored_layers.items()}
    model.compact()
    with torch.device(device):
        built = OFVLMS(model.architecture, model.scenes, model.owners, gates)
    assert [(n, t.shape) for n, t in built.state_dict().items()] == [
        (n, t.shape) for n, t in model.state_dict().items()
    ]
    built.load_state_dict(model.state_dict(), assign=device == "meta")
    assert all(torch.equal(predict(built, scene), before[scene]) for scene in model.scenes)


class Clones(TorchDispatchMode):
    """Adds up the elements of all tensors that are cloned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.clone.default:
            self.elements += result.numel()
        return result


def test_unused_weights_are_never_made():
    gates = {name: layer.is_shared for name, layer in trained().scored_layers.items()}
    with Clones() as clones:
        built = OFVLMS(small(), ["a", "b", "c"], compact_gates=gates)
    assert clones.elements == 3 * count_parameters(built).specific_convolutions


def test_the_gates_of_a_compact_model_are_fixed():
    model = trained()
    for score in model.scores():
        score.data.fill_(0.49999)
    model.eval().compact()
    model.half().float()  # half precision rounds the scores up to the threshold
    assert all(score == 0.5 for score in model.scores())
    assert all(layer.is_shared for layer in model.train().scored_layers.values())
    predict(model, "a")


# Refused


@pytest.mark.parametrize("options", [{"like": "x"}, {"share_with": "x"}, {"like": "a", "share_with": "x"}])
def test_a_scene_starts_from_one_that_is_there(options):
    model = trained()
    with pytest.raises(ConfigError, match="unknown scene 'x'; the model has: a, b, c"):
        model.add_scene("d", **options)
    assert model.scenes == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a", "a b"])
def test_a_refused_name_leaves_no_trace(name):
    model = trained()
    before = set(model.state_dict())
    with pytest.raises(ConfigError):
        model.add_scene(name, share_with="b")
    assert model.owners == {}
    assert set(model.state_dict()) == before


@pytest.mark.parametrize(
    ("sharing", "share_with", "refused"),
    [
        ("conv_scored", None, True),
        ("conv_scored", "a", False),
        ("conv_norm_scored", "a", True),  # its specific norms have nothing to start from
        ("all_shared", None, False),
    ],
)
def test_a_compact_model_may_need_a_scene_to_start_from(sharing, share_with, refused):
    model = trained(sharing)
    model.compact()
    if not refused:
        model.add_scene("d", share_with=share_with)
        predict(model, "d")
        return
    with pytest.raises(ConfigError, match="name a scene of the model that it starts like"):
        model.add_scene("d", share_with=share_with)
    assert (model.scenes, model.owners) == (["a", "b", "c"], {})


def test_removing_needs_a_scene_that_is_there_and_not_the_last():
    model = trained(scenes="ab")
    with pytest.raises(ConfigError, match="unknown scene 'x'"):
        model.remove_scene("x")
    model.remove_scene("a")
    with pytest.raises(ConfigError, match="the model's last"):
        model.remove_scene("b")
    with pytest.raises(ConfigError, match="unknown scene 'a'"):
        model.scene_parameters("a")


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ({"a": "x"}, "unknown scene 'x'"),
        ({"x": "a"}, "unknown scene 'x'"),
        ({"a": "a"}, "shares with itself"),
        ({"a": "b", "b": "a"}, "shares with itself"),
    ],
)
def test_owners_that_make_no_sense(owners, message):
    with pytest.raises(ConfigError, match=message):
        OFVLMS(small(), ["a", "b"], owners)


@pytest.mark.parametrize("gates", [{}, {"backbone.stem.norm": True}])
def test_gates_of_another_architecture(gates):
    with pytest.raises(ConfigError, match="do not fit its architecture"):
        OFVLMS(small(), ["a"], compact_gates=gates)
