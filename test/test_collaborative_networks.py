"""The three networks, their guidance (Eq. 9) and the weights of ImageNet."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from scipy.signal import correlate2d
from torch import nn

from ofvl_core.collaborative.architecture import ARCHITECTURES, STRIDE, Architecture
from ofvl_core.collaborative.depth_net import SCALES, DepthNet, decoder_channels, depth_from
from ofvl_core.collaborative.global_pose_net import GlobalPoseNet
from ofvl_core.collaborative.guidance import AttentionMap, Guidance, guided
from ofvl_core.collaborative.local_pose_net import OUTPUT_SCALE, LocalPoseNet
from ofvl_core.collaborative.model import CollaborativeModel
from ofvl_core.collaborative.resnet import ResNetEncoder, load_imagenet
from ofvl_core.errors import CheckpointError

LITE = ARCHITECTURES["collab_lite"]
ONE_EACH = (1, 1, 1, 1)
HEIGHT, WIDTH = 2 * STRIDE, 3 * STRIDE
RESNETS = {"resnet18": ((2, 2, 2, 2), 11_176_512), "resnet34": ((3, 4, 6, 3), 21_284_672)}
LADDER = {
    "full": LITE,
    "without global": LITE.model_copy(update={"relocalization": False}),
    "without guidance": LITE.model_copy(update={"guidance": False}),
    "baseline": LITE.model_copy(update={"guidance": False, "relocalization": False}),
}


def images(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, HEIGHT, WIDTH, generator=generator) * 2 - 1


def lite_model(architecture=LITE, scenes=("kitchen", "office")):
    torch.manual_seed(0)
    return CollaborativeModel(architecture, scenes)


def torchvision_shapes(blocks, classes=1000):
    """Names and shapes in the state dict of torchvision's resnet18 and resnet34, as its files have them."""
    shapes = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    before = 64
    for stage, (count, channels) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            shapes[f"{prefix}.conv1.weight"] = (channels, before, 3, 3)
            norm(f"{prefix}.bn1", channels)
            shapes[f"{prefix}.conv2.weight"] = (channels, channels, 3, 3)
            norm(f"{prefix}.bn2", channels)
            if before != channels:
                shapes[f"{prefix}.downsample.0.weight"] = (channels, before, 1, 1)
                norm(f"{prefix}.downsample.1", channels)
            before = channels
    shapes.update({"fc.weight": (classes, 512), "fc.bias": (classes,)})
    return shapes


def classifier(blocks, seed=0):
    """Weights as a file of torchvision would have them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in torchvision_shapes(blocks, classes=10).items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        else:
            tensors[name] = torch.rand(shape, generator=generator)
    return tensors


@pytest.mark.parametrize("name", RESNETS)
def test_encoder_is_the_standard_resnet(name):
    blocks, count = RESNETS[name]
    expected = {key: shape for key, shape in torchvision_shapes(blocks).items() if not key.startswith("fc.")}
    assert len(expected) == {"resnet18": 122, "resnet34": 218}[name] - 2
    encoder = ResNetEncoder(blocks, 64)
    assert {key: tuple(tensor.shape) for key, tensor in encoder.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in encoder.parameters()) == count


def test_encoder_brings_colours_to_imagenets_units():
    encoder = ResNetEncoder(ONE_EACH, 16, images=2).eval()
    seen = []
    encoder.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    first, second = images(seed=1), images(seed=2)
    encoder(torch.cat([first, second], dim=1))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for image, found in zip((first, second), seen[0].split(3, dim=1), strict=True):
        colours = (image.numpy().transpose(0, 2, 3, 1).astype(float) + 1) / 2
        expected = (colours - mean) / deviation
        np.testing.assert_allclose(found.numpy().transpose(0, 2, 3, 1), expected, atol=2e-6)


def test_encoder_halves_five_times():
    encoder = ResNetEncoder(ONE_EACH, 16)
    features = encoder(images())
    shapes = [(2, c, HEIGHT // 2**i, WIDTH // 2**i) for i, c in enumerate((16, 16, 32, 64, 128), start=1)]
    assert [tuple(feature.shape) for feature in features] == shapes
    assert encoder.channels == (16, 16, 32, 64, 128)


def test_basic_block_adds_the_shortcut():
    """With the last normalisation at zero, a block is the ReLU of its shortcut."""
    encoder = ResNetEncoder(ONE_EACH, 16).eval()
    same, halving = encoder.layer1[0], encoder.layer2[0]
    for block in (same, halving):
        nn.init.zeros_(block.bn2.weight)
    features = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(same(features), features.relu())
    weight = halving.downsample[0].weight[:, :, 0, 0] / math.sqrt(1 + halving.downsample[1].eps)
    expected = torch.einsum("oc,bchw->bohw", weight, features[:, :, ::2, ::2]).relu()
    torch.testing.assert_close(halving(features), expected)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """A classifier of one block a stage, to be loaded in little time."""
    return _write(tmp_path_factory.mktemp("weights") / "small.pth", classifier(ONE_EACH))


@pytest.fixture(scope="module")
def small_encoder():
    return ResNetEncoder(ONE_EACH, 64)


@pytest.mark.parametrize(
    ("suffix", "blocks"),
    [(".pth", (2, 2, 2, 2)), (".safetensors", (2, 2, 2, 2)), (".safetensors", (3, 4, 6, 3))],
)
def test_imagenet_weights_load(tmp_path, suffix, blocks):
    tensors = classifier(blocks)
    path = tmp_path / f"resnet{suffix}"
    torch.save(tensors, path) if suffix == ".pth" else save_file(tensors, path)
    encoder = ResNetEncoder(blocks, 64)
    load_imagenet(encoder, path)
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)


def test_old_imagenet_files_load(tmp_path):
    """The first files of torchvision count no batches and are not zip files."""
    tensors = {k: t for k, t in classifier(ONE_EACH).items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "resnet.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    encoder = ResNetEncoder(ONE_EACH, 64)
    load_imagenet(encoder, path)
    assert torch.equal(encoder.layer4[0].bn2.running_var, tensors["layer4.0.bn2.running_var"])


def test_two_equal_images_look_like_the_one_imagenet_knew(small_file):
    one, two = ResNetEncoder(ONE_EACH, 64), ResNetEncoder(ONE_EACH, 64, images=2)
    load_imagenet(one, small_file)
    load_imagenet(two, small_file)
    image = images(1)
    with torch.no_grad():
        alone, twice = one.eval()(image), two.eval()(image.repeat(1, 2, 1, 1))
    torch.testing.assert_close(twice[0], alone[0], rtol=1e-4, atol=1e-4)
    for (name, first), second in zip(one.named_parameters(), two.parameters(), strict=True):
        if name != "conv1.weight":
            assert torch.equal(first, second)


def _write(path, tensors):
    torch.save(tensors, path)
    return path


def _without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda folder, small: folder / "absent.pth",
            r"cannot read .*absent\.pth \(No such file or directory\);",
        ),
        (
            lambda folder, small: folder / "absent.safetensors",
            r"cannot read .* \(No such file or directory\);",
        ),
        (lambda folder, small: folder, r"cannot read .* \(Is a directory\);"),
        (lambda folder, small: _write(folder / "list.pth", [1, 2]), "holds no weights;"),
        (lambda folder, small: _write(folder / "nested.pth", {"state_dict": {}}), "holds no weights;"),
        (lambda folder, small: _write(folder / "network.pth", nn.Conv2d(1, 1, 1)), "holds no weights;"),
        (
            lambda folder, small: _write(folder / "a.pth", _without(torch.load(small), "bn1.bias")),
            "'bn1.bias' is absent in it and 64 in the network;",
        ),
        (
            lambda folder, small: _write(
                folder / "b.pth", torch.load(small) | {"layer1.2.bn1.bias": torch.ones(64)}
            ),
            "'layer1.2.bn1.bias' is 64 in it and absent in the network;",
        ),
    ],
)
def test_files_that_are_not_imagenets_are_refused(tmp_path, small_file, small_encoder, make, says):
    encoder = small_encoder
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(CheckpointError, match=says):
        load_imagenet(encoder, make(tmp_path, small_file))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["garbage.pth", "garbage.safetensors", "empty.pth", "empty.safetensors"])
def test_garbage_is_refused(tmp_path, small_encoder, name):
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"not weights, but text " * 100)
    with pytest.raises(CheckpointError, match="holds no weights; give the file of a torchvision"):
        load_imagenet(small_encoder, path)


def test_weights_of_another_width_are_refused(small_file):
    with pytest.raises(CheckpointError, match=r"'bn1.bias' is 64 in it and 16 in the network; .* 64 wide"):
        load_imagenet(ResNetEncoder(ONE_EACH, 16), small_file)


def test_depth_at_four_scales():
    torch.manual_seed(0)
    prediction = DepthNet(ONE_EACH, 16)(images())
    shapes = [tuple(disparity.shape) for disparity in prediction.disparities]
    assert shapes == [(2, 1, HEIGHT // 2**scale, WIDTH // 2**scale) for scale in range(SCALES)]
    assert all(disparity.min() > 0 and disparity.max() < 1 for disparity in prediction.disparities)
    assert prediction.encoded.shape == (2, 128, HEIGHT // STRIDE, WIDTH // STRIDE)
    assert prediction.decoded.shape == (2, 8, HEIGHT // 2, WIDTH // 2)


def test_skips_reach_every_level():
    """Each of the encoder's features is seen by the disparity, not through the deepest alone."""
    torch.manual_seed(0)
    net = DepthNet(ONE_EACH, 16).eval()
    kept = net.encoder(images())
    net.encoder.forward = lambda _: inputs
    for changed in range(5):
        inputs = [feature + 1.0 if i == changed else feature for i, feature in enumerate(kept)]
        moved = net(images()).disparities[0]
        inputs = kept
        assert not torch.allclose(moved, net(images()).disparities[0], atol=1e-7)


def test_decoder_of_the_paper_is_monodepth2s():
    assert decoder_channels(64) == (16, 32, 64, 128, 256)
    net = DepthNet((2, 2, 2, 2), 64)
    shapes = [(level.narrow.weight.shape[:2], level.join.weight.shape[:2]) for level in net.levels]
    assert shapes == [
        ((16, 32), (16, 16)),
        ((32, 64), (32, 32 + 64)),
        ((64, 128), (64, 64 + 64)),
        ((128, 256), (128, 128 + 128)),
        ((256, 512), (256, 256 + 256)),
    ]
    decoder = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("encoder."))
    assert decoder == 3_152_724  # monodepth2's file of its depth decoder


def test_disparity_to_depth():
    disparity = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        depth_from(disparity), torch.tensor([100.0, 1 / (0.01 + 9.99 / 4), 0.1], dtype=torch.float64)
    )
    assert depth_from(torch.tensor(0.0), nearest=1.0, farthest=5.0) == 5.0


def test_attention_is_equation_9():
    """Against NumPy and SciPy, from the two features to the guided one."""
    torch.manual_seed(0)
    guidance, attention = Guidance(6, 4).double(), AttentionMap().double()
    encoded, decoded, features = (
        torch.randn(2, channels, rows, columns, dtype=torch.float64)
        for channels, rows, columns in ((6, 2, 3), (4, 32, 48), (5, 2, 3))
    )
    depth_feature = guidance(encoded, decoded)
    found = attention(depth_feature)

    pooled = decoded.numpy().reshape(2, 4, 2, 16, 3, 16).mean(axis=(3, 5))
    weight, bias = (p.detach().numpy() for p in (guidance.combine.weight, guidance.combine.bias))
    stacked = np.concatenate([encoded.numpy(), pooled], axis=1)
    combined = np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], stacked) + bias[:, None, None]
    np.testing.assert_allclose(depth_feature.detach().numpy(), combined, atol=1e-12)

    kernel, offset = attention.weigh.weight.detach().numpy()[0], attention.weigh.bias.item()
    for image, one in enumerate(combined):
        logits = offset + sum(
            correlate2d(part, weights, mode="same")
            for part, weights in zip((one.mean(0), one.max(0)), kernel, strict=True)
        )
        expected = 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose(found[image, 0].detach().numpy(), expected, atol=1e-12)
        scaled = features[image].numpy() * (1 + expected)
        np.testing.assert_allclose(guided(features, found)[image].detach().numpy(), scaled, atol=1e-12)


def test_attention_of_zero_leaves_the_poses_alone():
    model = lite_model().eval()
    first, second = images(seed=1), images(seed=2)
    none = torch.zeros(2, 1, HEIGHT // STRIDE, WIDTH // STRIDE)
    with torch.no_grad():
        for attend in (model.motion, lambda a, b, m: model.relocalize(b, "office", m).position):
            alone = attend(first, second, None)
            torch.testing.assert_close(attend(first, second, none), alone)
            corner = none.clone()
            corner[..., 0, 0] = 1.0
            assert not torch.allclose(attend(first, second, corner), alone, atol=1e-7)


def test_motion_is_rigid_and_small_at_the_start():
    for blocks, width in ((ONE_EACH, 16), ((2, 2, 2, 2), 64)):
        torch.manual_seed(0)
        net = LocalPoseNet(blocks, width)
        with torch.no_grad():
            motion = net(images(seed=1), images(seed=2))
        assert motion.shape == (2, 4, 4) and motion.dtype == torch.float32
        rotation = motion[:, :3, :3]
        identity = torch.eye(3).expand(2, 3, 3)
        torch.testing.assert_close(rotation @ rotation.mT, identity, atol=1e-5, rtol=0)
        torch.testing.assert_close(motion[:, 3], torch.tensor([[0.0, 0.0, 0.0, 1.0]] * 2))
        assert (rotation - identity).abs().max() < 0.05  # 3 degrees
        assert 0 < motion[:, :3, 3].abs().max() < 0.05


def test_motion_is_the_mean_over_cells_rotation_first():
    net = LocalPoseNet(ONE_EACH, 16).eval()
    nn.init.zeros_(net.motion.weight)
    with torch.no_grad():
        net.motion.bias.copy_(torch.tensor([0.0, 0.0, math.pi / 2, 1.0, 2.0, 3.0]) / OUTPUT_SCALE)
        motion = net(images(), images())[0]
    expected = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    torch.testing.assert_close(motion, expected, atol=1e-5, rtol=1e-5)


def test_order_of_images_matters():
    torch.manual_seed(0)
    net = LocalPoseNet(ONE_EACH, 16).eval()
    first, second = images(seed=1), images(seed=2)
    with torch.no_grad():
        assert not torch.allclose(net(first, second), net(second, first), atol=1e-7)


def test_positions_are_in_the_scenes_frame_and_it_is_saved():
    torch.manual_seed(0)
    net = GlobalPoseNet(ONE_EACH, 16, ["kitchen", "office"]).eval()
    view = images()
    with torch.no_grad():
        plain = net(view, "office")
        other = net(view, "kitchen")
        net.set_scene_frame("office", torch.tensor([10.0, -20.0, 3.0]), torch.tensor(5.0))
        placed = net(view, "office")
        torch.testing.assert_close(placed.position, torch.tensor([10.0, -20.0, 3.0]) + 5 * plain.position)
        assert torch.equal(placed.log_quaternion, plain.log_quaternion)
        assert torch.equal(net(view, "kitchen").position, other.position)
        copy = GlobalPoseNet(ONE_EACH, 16, ["kitchen", "office"]).eval()
        copy.load_state_dict(net.state_dict())
        assert torch.equal(copy(view, "office").position, placed.position)
    assert plain.position.shape == plain.log_quaternion.shape == (2, 3)


def test_scenes_have_heads_of_their_own():
    model = lite_model()
    pose = model.relocalize(images(), "kitchen", None)
    (pose.position.sum() + pose.log_quaternion.sum()).backward()
    heads = model.global_pose_net.heads.modules_by_scene
    assert all(p.grad is not None for p in heads["scene_kitchen"].parameters())
    assert all(p.grad is None for p in heads["scene_office"].parameters())
    assert not torch.equal(heads["scene_kitchen"].position.weight, heads["scene_office"].position.weight)
    assert [p.shape[0] for p in heads["scene_kitchen"].parameters()] == [512, 512, 3, 3, 3, 3]


def loss_of(model, batch=2):
    """A number that depends on all that the model says of a triplet of images."""
    before, target, after = (images(batch, seed) for seed in (1, 2, 3))
    sight = model.see(target)
    motions = [
        model.motion(before, target, sight.local_attention),
        model.motion(target, after, sight.local_attention),
    ]
    said = [*sight.prediction.disparities, *(motion[:, :3] for motion in motions)]
    if model.global_pose_net is not None:
        for scene in model.scenes:
            said.extend(model.relocalize(target, scene, sight.global_attention))
    return sum(part.square().sum() for part in said)


@pytest.mark.parametrize("rung", LADDER)
def test_gradients_reach_every_parameter(rung):
    model = lite_model(LADDER[rung])
    loss_of(model).backward()
    lost = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert lost == []


def test_poses_teach_depth_through_the_guidance():
    model = lite_model()
    sight = model.see(images())
    model.motion(images(seed=1), images(), sight.local_attention)[:, :3].square().sum().backward()
    assert model.depth_net.encoder.conv1.weight.grad.abs().sum() > 0
    assert model.depth_net.disparities[0].weight.grad is None


def test_ladder_leaves_modules_out():
    parts = {
        rung: {name for name, _ in lite_model(architecture).named_children()}
        for rung, architecture in LADDER.items()
    }
    baseline = {"depth_net", "local_pose_net"}
    assert parts == {
        "full": baseline | {"global_pose_net", "guidance", "local_attention", "global_attention"},
        "without global": baseline | {"guidance", "local_attention"},
        "without guidance": baseline | {"global_pose_net"},
        "baseline": baseline,
    }
    for rung, architecture in LADDER.items():
        with torch.no_grad():
            sight = lite_model(architecture).see(images())
        maps = ("local_attention", "global_attention")
        assert {name for name in maps if getattr(sight, name) is not None} == parts[rung] & set(maps)


def test_networks_do_not_depend_on_the_rungs_above_them():
    """What two rungs have in common starts equal, so that they are compared in what they differ in."""
    full = lite_model().state_dict()
    for architecture in LADDER.values():
        rung = lite_model(architecture)
        assert all(torch.equal(tensor, full[name]) for name, tensor in _networks(rung).items())


def _networks(model):
    return {name: tensor for name, tensor in model.state_dict().items() if "_net." in name}


def test_model_survives_its_state_dict():
    model = lite_model().eval()
    model.global_pose_net.set_scene_frame("office", torch.tensor([1.0, 2.0, 3.0]), torch.tensor(4.0))
    copy = CollaborativeModel(LITE, ["kitchen", "office"]).eval()
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(loss_of(copy), loss_of(model))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_trains_in_the_layout_and_precision_of_a_cpu(bfloat16):
    """Poses and disparities stay float32, and close to what float32 says of the same weights."""
    model = lite_model().to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model.see(images()).prediction.disparities[0]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        sight = model.see(images().contiguous(memory_format=torch.channels_last))
        motion = model.motion(images(seed=1), images(), sight.local_attention)
        pose = model.relocalize(images(), "office", sight.global_attention)
    outputs = [*sight.prediction.disparities, motion, *pose]
    assert {tensor.dtype for tensor in outputs} == {torch.float32}
    torch.testing.assert_close(outputs[0], expected, atol=0.05 if bfloat16 else 1e-4, rtol=0)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = loss_of(model)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_sizes():
    counts = {
        name: sum(p.numel() for p in lite_model(architecture, ["scene"]).parameters())
        for name, architecture in ARCHITECTURES.items()
    }
    assert counts["collab_lite"] < 1.5e6
    resnet18, resnet34 = (count for _, count in RESNETS.values())
    assert counts["collab18"] == (
        resnet18  # depth
        + 3_152_724
        + resnet18  # motion: a second image, then 512 -> 256 -> 256 -> 256 -> 6
        + 64 * 3 * 49
        + (512 + 1) * 256
        + 2 * (256 * 9 + 1) * 256
        + (256 + 1) * 6
        + resnet34  # pose
        + (512 + 1) * 2048
        + 2 * (2048 + 1) * 3
        + (512 + 32 + 1) * 512  # guidance
        + 2 * (2 * 49 + 1)
    )


@pytest.mark.parametrize(
    "values", [{"width": 8}, {"width": 18}, {"depth_blocks": (1, 1, 0, 1)}, {"wide": 64}]
)
def test_shapes_that_make_no_sense_are_refused(values):
    with pytest.raises(ValidationError):
        Architecture(**values)
