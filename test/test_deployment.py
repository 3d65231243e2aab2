"""The deployment file: exactly what is in use, whole, and harmless to load."""

import copy
import errno
import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from ofvl_core import deployment
from ofvl_core.camera import Camera
from ofvl_core.checkpoint import (
    Manifest,
    SceneRecord,
    TrainingRecord,
    load_manifest,
    load_model,
    save_deployment,
)
from ofvl_core.datasets import load_scene
from ofvl_core.device import place
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.geometry import pose_error
from ofvl_core.localizer import Localizer
from ofvl_core.network import ARCHITECTURES, OFVLMS, Architecture
from ofvl_core.network.parameters import count_parameters
from ofvl_core.training.config import TrainConfig

CPU = torch.device("cpu")
CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
TINY = Architecture(
    depths=(1, 1, 1, 1), widths=(8, 8, 8, 16), stem_width=8, head_widths=(8,), branch_width=8, input_height=48
)
ONE_SCENE = {
    "ofvl_ms18": (11_133_232, 9_632, 90_112),
    "ofvl_ms34": (21_233_968, 17_056, 162_744),
    "ofvl_ms50": (13_832_496, 24_608, 162_744),
}
"""Weights and biases of the backbone's convolutions, normalisation and attention; a head has HEAD."""
HEAD = 3_983_620


def mixed_gates(architecture):
    """Every second layer is specific."""
    return {name: number % 2 == 0 for number, name in enumerate(OFVLMS(architecture).scored_layers)}


def manifest_of(architecture, scenes, owners=None):
    records = [
        SceneRecord(
            name=name, camera=CAMERA, input_focal=60.0, frames=9, shares_with=(owners or {}).get(name)
        )
        for name in scenes
    ]
    record = TrainingRecord(
        scenes=scenes, config=TrainConfig(network=architecture), finished=True, history=[[1, 2.0]]
    )
    return Manifest(architecture=architecture, scenes=records, trainings=[record])


def header_of(path):
    """The tensors' entries of a safetensors file, and how many bytes come before the data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + length


def stir(model):
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model.eval()


@torch.no_grad()
def predict(model, scene):
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.cat(model(images, scene), dim=1)


@pytest.fixture(scope="module")
def tiny():
    """A model with three scenes, the last of which borrows, and its manifest."""
    torch.manual_seed(0)
    model = stir(OFVLMS(TINY, ["a", "b", "c"], {"c": "b"}))
    for number, score in enumerate(model.scores()):
        score.data.fill_(0.3 + 0.4 * (number % 2))
    place(model, CPU)
    return model.eval(), manifest_of(TINY, ["a", "b", "c"], {"c": "b"})


@pytest.fixture
def deployed(tiny, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_deployment(path, tiny[1], copy.deepcopy(tiny[0]))
    return path


# Sizes


@pytest.mark.parametrize("scenes", [7, 12])
@pytest.mark.parametrize("name", ONE_SCENE)
def test_parameters_of_many_scenes(name, scenes):
    """single + (N - 1) x I with I = normalisation + attention + head + specific convolutions (Table 3)."""
    gates = mixed_gates(ARCHITECTURES[name])
    with torch.device("meta"):
        model = OFVLMS(ARCHITECTURES[name], [f"s{n}" for n in range(scenes)], compact_gates=gates)
    convolutions, norm, attention = ONE_SCENE[name]
    specific = sum(layer.size for layer in model.scored_layers.values() if not layer.is_shared)
    assert 0 < specific < convolutions
    total = convolutions + norm + attention + HEAD + (scenes - 1) * (norm + attention + HEAD + specific)
    assert count_parameters(model).total == total
    parameters = (tensor.numel() for name, tensor in model.named_parameters() if not name.endswith("score"))
    assert sum(parameters) == total


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ONE_SCENE)
def test_the_file_holds_exactly_what_is_counted(name, half, tmp_path):
    """Summed over the shapes in the file's own header: two scenes and one that borrows convolutions."""
    architecture, scenes, owners = ARCHITECTURES[name], ["a", "b", "c"], {"c": "a"}
    model = OFVLMS(architecture, scenes, owners, mixed_gates(architecture)).eval()
    path = tmp_path / "model.safetensors"
    save_deployment(path, manifest_of(architecture, scenes, owners), model, half)
    entries, header = header_of(path)
    convolutions, norm, attention = ONE_SCENE[name]
    specific = sum(layer.size for layer in model.scored_layers.values() if not layer.is_shared)
    weights = convolutions + specific + 3 * (norm + attention + HEAD)
    norms_of_a_scene = norm + 2 * (512 + 256 + 128 + 64 + 64)  # with the head's
    layers = {"ofvl_ms18": 21, "ofvl_ms34": 37, "ofvl_ms50": 53}[name]
    buffers = 3 * (norms_of_a_scene + (layers + 5) + 4)  # statistics, their counters, centre and extent

    def numbers(wanted):
        return sum(np.prod(entry["shape"], dtype=int) for entry in entries.values() if wanted(entry))

    assert numbers(lambda entry: True) == weights + buffers + layers
    assert numbers(lambda entry: entry["dtype"] == "I64") == 3 * (layers + 5)
    end = max(entry["data_offsets"][1] for entry in entries.values())
    assert path.stat().st_size == header + end
    parts = deployment.measure_deployment(path, model)
    assert sum(parts[part].numbers for part in deployment.WEIGHTS) == weights == count_parameters(model).total
    assert parts["specific convolutions"].numbers == 2 * specific
    assert parts["shared convolutions"].numbers == convolutions - specific
    assert (parts["buffers"].numbers, parts["scores"].numbers) == (buffers, layers)
    assert sum(part.bytes for part in parts.values()) == path.stat().st_size
    small = 3 * (norm + 4 + norms_of_a_scene - norm + 4 * 64)  # norms, biases, last layers stay as they are
    small += sum(
        tensor.numel()
        for name, tensor in model.named_parameters()
        if ".attention." in name and tensor.ndim == 1
    )
    expected = 4 * weights if not half else 2 * (weights - small) + 4 * small
    assert sum(parts[part].bytes for part in deployment.WEIGHTS) == expected


# Contents


def test_a_deployed_model_computes_as_before(tiny, deployed):
    model, manifest = tiny
    loaded = load_model(deployed, load_manifest(deployed), CPU)
    assert loaded.owners == {"c": "b"}
    for scene in model.scenes:
        assert torch.equal(predict(loaded, scene), predict(model, scene))
    assert list(loaded.state_dict()) == list(model.used_tensors())
    assert load_manifest(deployed).scenes == manifest.scenes
    assert load_manifest(deployed).training.history == []


@pytest.mark.parametrize("half", [False, True])
def test_a_deployed_model_is_deployed_again_as_it_is(deployed, tmp_path, half):
    paths = [deployed, tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for source, target in itertools.pairwise(paths):
        manifest = load_manifest(source)
        save_deployment(target, manifest, load_model(source, manifest, CPU), half)
    assert paths[1].read_bytes() == paths[2].read_bytes()


def test_half_precision_keeps_poses(tiny_checkpoint, tiny_scenes, tmp_path):
    """Of a trained model: predictions move by millimetres, poses by less than training leaves them wrong."""
    path = tmp_path / "half.safetensors"
    manifest = load_manifest(tiny_checkpoint)
    save_deployment(path, manifest, load_model(tiny_checkpoint, manifest, CPU), half=True)
    whole, half = (Localizer(each, "cpu", keyframes=False) for each in (tiny_checkpoint, path))
    weights = [weights for weights in load(path.read_bytes()).values() if weights.dtype == torch.float16]
    assert weights
    images = torch.rand(4, 3, 120, 160, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for folder in tiny_scenes:
        scene = load_scene(folder)
        with torch.no_grad():
            one, two = (localizer.model(images, scene.name) for localizer in (whole, half))
        moved = (one.coordinates - two.coordinates).norm(dim=1)
        assert 0 < moved.median() < 0.005
        assert (one.log_uncertainty - two.log_uncertainty).abs().median() < 0.01
        for frame in scene.frames("train")[:3]:
            poses = [
                localizer.localize(scene.read_color(frame), scene.camera, scene.name).world_from_camera
                for localizer in (whole, half)
            ]
            metres, degrees = pose_error(*poses)
            assert metres < 0.03
            assert degrees < 1


def test_metres_keep_their_digits(tiny, deployed, tmp_path):
    """Statistics, scene frames, biases and the last layers of the heads stay in single precision."""
    model = load_model(deployed, load_manifest(deployed), CPU)
    path = tmp_path / "half.safetensors"
    save_deployment(path, tiny[1], model, half=True)
    stored = load(path.read_bytes())
    halves = {name for name, tensor in stored.items() if tensor.dtype == torch.float16}
    whole = stored.keys() - halves
    assert {"coordinates.1.weight", "log_uncertainty.1.weight", "running_var", "centre", "extent"} <= {
        ".".join(name.split(".")[-3:]) if name.endswith("1.weight") else name.split(".")[-1] for name in whole
    }
    assert halves == {name for name in halves if stored[name].ndim == 4}
    for name, tensor in stored.items():
        error = (tensor.to(model.state_dict()[name].dtype) - model.state_dict()[name]).abs()
        assert error.max() <= (0 if name in whole else 2e-3), name


def test_what_half_precision_cannot_hold_is_refused(tiny, deployed, tmp_path):
    model = load_model(deployed, load_manifest(deployed), CPU)
    model.backbone.stem.conv.shared.data[0, 0, 0, 0] = 1e5
    with pytest.raises(ConfigError, match=r"stem.conv.shared.*without --half"):
        save_deployment(tmp_path / "half.safetensors", tiny[1], model, half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_a_deployment_file_has_its_suffix(tiny, deployed, tmp_path):
    model = load_model(deployed, load_manifest(deployed), CPU)
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("model", "photo.png", "folder.safetensors"):
        with pytest.raises(ConfigError, match="no name for a deployment file"):
            save_deployment(tmp_path / name, tiny[1], model)


# Damage and harm


def refuse(path, match):
    with pytest.raises(CheckpointError, match=match) as error:
        Localizer(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated(deployed, keep):
    deployed.write_bytes(deployed.read_bytes()[:keep])
    refuse(deployed, "truncated or damaged|damaged or of another version")


def test_any_wrong_bit_is_noticed(deployed):
    content = deployed.read_bytes()

    @settings(max_examples=40, deadline=None)
    @given(place=st.integers(0, 2 * len(content) - 1), bit=st.integers(0, 7))
    def flip(place, bit):
        place = place % len(content) if place < len(content) else (place - len(content)) % 4096  # header too
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        deployed.write_bytes(damaged)
        refuse(deployed, "damaged|do not fit")

    flip()


@pytest.mark.parametrize("length", [2**63, 10**9, 10**6, 2])
def test_a_header_that_claims_to_be_huge(deployed, length):
    deployed.write_bytes(length.to_bytes(8, "little") + deployed.read_bytes()[8:])
    refuse(deployed, "truncated or damaged")


@pytest.mark.parametrize(
    "header",
    [b"{}", b"[" * 50_000, b'{"__metadata__": {}}', b'{"__metadata__": {"ofvl": "[]"}}', b"\xff\xfe"],
    ids=["empty", "deep", "bare", "list", "bytes"],
)
def test_a_header_of_something_else(deployed, header):
    deployed.write_bytes(len(header).to_bytes(8, "little") + header)
    refuse(deployed, "not a checkpoint")


def test_a_pickle_is_not_executed(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Harm()))
    refuse(path, "not a checkpoint")
    assert not (tmp_path / "harmed").exists()


def forged(path, tensors, change):
    """A file of `tensors` with a changed manifest that a stranger signed correctly."""
    entries = json.loads(deployment.read_manifest(path))
    change(entries)
    content = save(tensors, {"ofvl": json.dumps({"sha256": "0" * 64, "manifest": entries})})
    digest = deployment._digest(content, "0" * 64)
    path.write_bytes(content.replace(b"0" * 64, digest.encode(), 1))


def test_manifests_that_their_tensors_do_not_fit(deployed):
    tensors = load(deployed.read_bytes())
    original = deployed.read_bytes()
    changes = [
        lambda m: m["architecture"].update(widths=[8, 8, 8, 32]),
        lambda m: m["architecture"].update(widths=[8, 8, 8, 10**9]),
        lambda m: m["architecture"].update(depths=[10**9, 1, 1, 1]),
        lambda m: m["architecture"].update(sharing="all_shared"),
        lambda m: m["gates"].update({next(iter(m["gates"])): False}),
        lambda m: m["gates"].popitem(),
        lambda m: m.update(gates=None),
        lambda m: m["scenes"].pop(),
        lambda m: m["scenes"][0].update(shares_with="attic"),
        lambda m: m["scenes"][0].update(name="../x"),
    ]
    forged(deployed, tensors, lambda manifest: None)
    Localizer(deployed)  # the forger knows how
    for change in changes:
        deployed.write_bytes(original)
        forged(deployed, tensors, change)
        refuse(deployed, "do not fit the manifest")
    for nonsense in ({"widths": [8, 8, 8, -16]}, {"strides": [1, 0, 2, 2]}, {"kernels": [1, 1]}):
        deployed.write_bytes(original)
        forged(deployed, tensors, lambda m, nonsense=nonsense: m["architecture"].update(nonsense))
        refuse(deployed, "damaged or of another version")


def test_tensors_of_other_shapes_or_kinds(deployed):
    tensors, original = load(deployed.read_bytes()), deployed.read_bytes()
    name = "backbone.stem.conv.shared"
    others = {
        "shape": tensors | {name: tensors[name][:3]},
        "missing": {key: tensor for key, tensor in tensors.items() if key != name},
        "more": tensors | {"extra": torch.zeros(3)},
    }
    for changed in others.values():
        deployed.write_bytes(original)
        forged(deployed, changed, lambda manifest: None)
        refuse(deployed, "do not fit the manifest")
    deployed.write_bytes(original)
    forged(deployed, tensors | {name: tensors[name].to(torch.int32)}, lambda manifest: None)
    assert Localizer(deployed).model.backbone.stem.conv.shared.dtype == torch.float32


def test_an_older_file_is_whole_when_writing_fails(tiny, deployed, tmp_path, monkeypatch):
    before = deployed.read_bytes()
    model = load_model(deployed, load_manifest(deployed), CPU)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disc full")))
    with pytest.raises(OSError, match="disc full") as error:
        save_deployment(deployed, tiny[1], model)
    assert error.value.filename == str(deployed)  # which the command line then names
    assert deployed.read_bytes() == before
    assert list(tmp_path.iterdir()) == [deployed]
