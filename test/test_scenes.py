"""Scenes that are added to a trained model, leave it, or come together from several."""

import hashlib
import logging
import shutil
import signal

import pytest
import torch
from scenes import write_room, write_scene

from ofvl_core.calibration import UNCALIBRATED
from ofvl_core.checkpoint import load_manifest, load_model, save_checkpoint, save_deployment
from ofvl_core.checkpoint_folder import save_manifest
from ofvl_core.datasets import load_scene
from ofvl_core.engines.int8 import Quantisation
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.network import Architecture
from ofvl_core.scenes import merge, remove_scenes
from ofvl_core.training.add_scene import add_scene
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.nearest import divergences
from ofvl_core.training.run import train

CPU = torch.device("cpu")
HERE = Surroundings(CPU)
STRATEGIES = ("conv_scored", "conv_norm_scored", "all_shared")


def settings(sharing="conv_scored", **changes):
    network = Architecture(
        depths=(1, 1, 1, 1),
        widths=(8, 8, 8, 16),
        stem_width=8,
        head_widths=(8,),
        branch_width=8,
        input_height=48,
        sharing=sharing,
    )
    return TrainConfig(
        network=network, **{"iterations": 3, "batch_size": 2, "statistics_rest": 1.0} | changes
    )


def load(path):
    manifest = load_manifest(path)
    return load_model(path, manifest, CPU)


@torch.no_grad()
def predict(path, scene):
    generator = torch.Generator().manual_seed(1)
    return torch.cat(load(path)(torch.rand(2, 3, 48, 64, generator=generator) * 2 - 1, scene), dim=1)


def content(path):
    """Digest of every file of a checkpoint."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@torch.no_grad()
def stir(folder):
    """Rewrite a checkpoint so that about half of its layers are specific and no parameter is zero."""
    manifest, model = load_manifest(folder), load(folder)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.rand_like(parameter))
    for number, score in enumerate(model.scores()):
        score.data.fill_(0.3 + 0.4 * ((number // 2 + number) % 2))
    save_checkpoint(folder, manifest, model)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Scenes of noise 'a' to 'e', and 'room', which looks otherwise."""
    folder = tmp_path_factory.mktemp("data")
    scenes = {name: load_scene(write_scene(folder / name)) for name in "abcde"}
    return scenes | {"room": load_scene(write_room(folder / "room"))}


@pytest.fixture(scope="module")
def bases(data, tmp_path_factory):
    """A trained model of 'a' and 'b' for every strategy."""
    folder = tmp_path_factory.mktemp("bases")
    for sharing in STRATEGIES:
        train([data["a"], data["b"]], settings(sharing), folder / sharing, HERE)
        stir(folder / sharing)
    return folder


@pytest.fixture(scope="module")
def base(bases):
    return bases / "conv_scored"


@pytest.fixture(scope="module")
def with_c(base, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("with_c") / "model"
    assert add_scene(base, data["c"], settings(), out, HERE)
    return out


@pytest.fixture(scope="module")
def with_d(base, data, tmp_path_factory):
    """With 'd', which uses the convolutions of 'b'."""
    out = tmp_path_factory.mktemp("with_d") / "model"
    assert add_scene(base, data["d"], settings(), out, HERE, share_with="b")
    return out


# Adding


@pytest.mark.parametrize("sharing", STRATEGIES)
@pytest.mark.parametrize("share_with", [None, "b"])
@pytest.mark.parametrize("deployed", [False, True])
def test_old_scenes_stay_bit_by_bit(bases, data, tmp_path, sharing, share_with, deployed):
    base = bases / sharing
    if deployed:
        base = tmp_path / "base.safetensors"
        save_deployment(base, load_manifest(bases / sharing), load(bases / sharing))
    before, files = {scene: predict(base, scene) for scene in "ab"}, content(base)
    out = tmp_path / "new"
    config = settings(sharing, learning_rate=0.1, seed=1)
    assert add_scene(base, data["c"], config, out, HERE, share_with=share_with)
    for scene in "ab":
        assert torch.equal(predict(out, scene), before[scene])
    assert content(base) == files
    manifest, old, new = load_manifest(out), load(base).state_dict(), load(out).state_dict()
    assert [scene.name for scene in manifest.scenes] == ["a", "b", "c"]
    assert [training.scenes for training in manifest.trainings] == [["a", "b"], ["c"]]
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    assert manifest.scene("c").shares_with == share_with
    assert not torch.equal(predict(out, "c"), predict(out, "a"))
    used = load(out).used_tensors()
    moved = [name for name in used if "scene_c" in name and name.endswith(("running_mean", "weight"))]
    twins = {name: new[name.replace("scene_c", f"scene_{share_with or 'a'}")] for name in moved}
    assert moved
    assert all(not torch.equal(new[name], twins[name]) for name in moved)
    if share_with:
        assert not any(".conv." in name for name in new if "scene_c" in name)


def test_an_extended_model_is_extended_again(with_c, data, tmp_path):
    before = {scene: predict(with_c, scene) for scene in "abc"}
    add_scene(with_c, data["d"], settings(), tmp_path / "d", HERE, share_with="c")
    add_scene(tmp_path / "d", data["e"], settings(), tmp_path / "e", HERE, share_with="d")
    assert all(torch.equal(predict(tmp_path / "e", scene), before[scene]) for scene in "abc")
    assert load_manifest(tmp_path / "e").scene("e").shares_with == "c"  # the owner, not the chain


def test_coordinates_are_regressed_in_the_new_scenes_frame(with_c, data, tmp_path):
    frames = load(with_c).head.modules_by_scene
    assert torch.equal(frames["scene_a"].centre, frames["scene_c"].centre)  # of the same images and poses
    out = tmp_path / "new"
    add_scene(with_c, data["room"], settings(), out, HERE)
    room = load(out).head.modules_by_scene["scene_room"]
    assert not torch.equal(room.centre, frames["scene_a"].centre)
    assert 0 < room.centre[0] < 4


def test_the_nearest_scene_is_the_one_that_looks_alike(data, tmp_path, caplog):
    """Of noise and a room, more noise resembles the noise, another view of the room the room."""
    config = settings(iterations=40)
    train([data["a"], data["room"]], config, tmp_path / "model", HERE)
    other_room = load_scene(write_room(tmp_path / "other_room", frames=5))
    for scene, nearest in ((data["b"], "a"), (other_room, "room")):
        focal = scene.camera.fy * 48 / scene.camera.height
        found = divergences(load(tmp_path / "model"), scene, focal)
        assert next(iter(found)) == nearest
        assert list(found.values()) == sorted(found.values())
    with caplog.at_level(logging.INFO):
        add_scene(tmp_path / "model", other_room, settings(), tmp_path / "new", HERE)
    assert "other_room starts like room (divergence: room 0." in caplog.text


def test_the_backbone_starts_like_the_nearest_scene_and_the_head_anew(base, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ofvl_core.training.add_scene.run", lambda *arguments: seen.append(arguments[1](CPU)))
    seen: list = []
    add_scene(base, data["c"], settings(), tmp_path / "c", HERE)
    add_scene(base, data["d"], settings(), tmp_path / "d", HERE, share_with="b")
    nearest = next(iter(divergences(load(base), data["c"], 48.0)))
    for model, scene, like in zip(seen, "cd", (nearest, "b"), strict=True):
        state = model.state_dict()
        for name, tensor in model.scene_tensors(scene).items():
            old = state[name.replace(f"scene_{scene}", f"scene_{like}")]
            if not name.startswith("head"):
                assert torch.equal(tensor, old), name
            elif tensor.ndim > 1:
                assert not torch.equal(tensor, old), name


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_the_divergence_is_small_at_home(bases, data, tmp_path, sharing):
    """Statistics that were taken from the very images diverge by next to nothing, in every layer."""
    config = settings(sharing, iterations=60)
    train([data["a"]], config, tmp_path / "model", HERE)
    model = load(tmp_path / "model")
    focal = data["a"].camera.fy * 48 / data["a"].camera.height
    at_home = divergences(model, data["a"], focal)["a"]
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(1.0)
    moved = divergences(model, data["a"], focal)["a"]
    assert 0 <= at_home < moved / 2
    model.compact()
    assert divergences(model, data["a"], focal)["a"] == pytest.approx(moved, rel=1e-4)


def test_an_interrupted_addition_is_resumed(base, with_c, data, tmp_path):
    def interrupt(iteration, losses):
        signal.raise_signal(signal.SIGINT)

    out = tmp_path / "parts"
    before = {scene: predict(base, scene) for scene in "ab"}
    assert not add_scene(base, data["c"], settings(), out, Surroundings(CPU, on_step=interrupt))
    assert load_manifest(out).training.iteration == 1
    with pytest.raises(CheckpointError, match="give the same ones"):
        add_scene(base, data["c"], settings(), out, HERE, share_with="a", resume=True)
    with pytest.raises(CheckpointError, match="give the same ones"):
        add_scene(with_c, data["c"], settings(), out, HERE, resume=True)
    with pytest.raises(CheckpointError, match="other settings"):
        add_scene(base, data["c"], settings(seed=4), out, HERE, resume=True)
    with pytest.raises(CheckpointError, match=r"training of c is not finished.*--resume"):
        add_scene(out, data["d"], settings(), tmp_path / "more", HERE)
    with pytest.raises(CheckpointError, match="ofvl add-scene --resume"):  # which keeps the old scenes frozen
        train([data["c"]], settings(), out, HERE, resume=True)
    with pytest.raises(CheckpointError, match="add --resume"):
        add_scene(base, data["c"], settings(), out, HERE)
    assert add_scene(base, data["c"], settings(), out, HERE, resume=True)
    whole, parts = load(with_c).state_dict(), load(out).state_dict()
    assert all(torch.allclose(whole[name].float(), parts[name].float(), atol=1e-6) for name in whole)
    assert all(torch.equal(predict(out, scene), before[scene]) for scene in "ab")


def test_what_cannot_be_added(base, data, tmp_path):
    out = tmp_path / "new"
    with pytest.raises(ConfigError, match="has a scene 'a' already"):
        add_scene(base, data["a"], settings(), out, HERE)
    with pytest.raises(CheckpointError, match="unknown scene 'attic'"):
        add_scene(base, data["c"], settings(), out, HERE, share_with="attic")
    with pytest.raises(ConfigError, match="network of the settings"):
        add_scene(base, data["c"], settings("all_shared"), out, HERE)
    with pytest.raises(CheckpointError, match="does not exist"):
        add_scene(tmp_path / "nothing", data["c"], settings(), out, HERE)
    assert not out.exists()


# Removing


def test_what_is_removed_leaves_the_others_as_they_are(with_d, tmp_path):
    before, files = {scene: predict(with_d, scene) for scene in "abd"}, content(with_d)
    remove_scenes(with_d, ["b"], tmp_path / "without_b")  # its convolutions go to d
    assert [scene.name for scene in load_manifest(tmp_path / "without_b").scenes] == ["a", "d"]
    assert load_manifest(tmp_path / "without_b").scene("d").shares_with is None
    remove_scenes(with_d, ["d", "a"], tmp_path / "only_b")
    assert all(torch.equal(predict(tmp_path / "without_b", scene), before[scene]) for scene in "ad")
    assert torch.equal(predict(tmp_path / "only_b", "b"), before["b"])
    trainings = [load_manifest(tmp_path / name).trainings for name in ("without_b", "only_b")]
    assert [[training.scenes for training in of_one] for of_one in trainings] == [
        [["a", "b"], ["d"]],
        [["a", "b"]],
    ]
    assert content(with_d) == files


def test_what_cannot_be_removed(with_c, tmp_path):
    with pytest.raises(CheckpointError, match="unknown scene 'attic'"):
        remove_scenes(with_c, ["attic"], tmp_path / "new")
    with pytest.raises(ConfigError, match="last"):
        remove_scenes(with_c, ["a", "b", "c"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="not empty"):
        remove_scenes(with_c, ["a"], with_c)


# Merging


@pytest.mark.parametrize("deployed", [False, True])
def test_scenes_that_two_added_come_together(with_c, with_d, tmp_path, deployed):
    expected = {"a": with_c, "b": with_c, "c": with_c, "d": with_d}
    expected = {scene: predict(path, scene) for scene, path in expected.items()}
    second = with_d
    if deployed:
        second = tmp_path / "d.safetensors"
        save_deployment(second, load_manifest(with_d), load(with_d))
    out = tmp_path / "new"
    merge([with_c, second], out)
    manifest = load_manifest(out)
    assert [scene.name for scene in manifest.scenes] == ["a", "b", "c", "d"]
    assert manifest.scene("d").shares_with == "b"
    assert [training.scenes for training in manifest.trainings] == [["a", "b"], ["c"], ["d"]]
    assert (manifest.gates is not None) == deployed
    assert all(torch.equal(predict(out, scene), output) for scene, output in expected.items())
    remove_scenes(out, ["d"], tmp_path / "back")
    assert load(tmp_path / "back").state_dict().keys() <= load(with_c).state_dict().keys()


@pytest.mark.parametrize("other_first", [False, True])
def test_what_one_of_them_knows_more_is_kept(with_c, with_d, tmp_path, other_first):
    """d has b prepared for int8 and a calibration; c comes as a file, which has no histories."""
    whole = shutil.copytree(with_d, tmp_path / "d")
    manifest = load_manifest(whole)
    manifest.scene("b").quantisation = Quantisation(ranges=[], frames=1, float32=(0.0, 0.0), int8=(0.0, 0.0))
    manifest.trainings[0].calibration = UNCALIBRATED
    save_manifest(whole, manifest)
    file = tmp_path / "c.safetensors"
    save_deployment(file, load_manifest(with_c), load(with_c))
    merge([whole, file] if other_first else [file, whole], tmp_path / "new")
    merged = load_manifest(tmp_path / "new")
    assert merged.scene("b") == manifest.scene("b")
    assert merged.trainings[0] == manifest.trainings[0]
    assert merged.trainings[0].history


def changed(path, out, name):
    """A copy of a checkpoint whose tensor `name` differs by one bit."""
    shutil.copytree(path, out)
    manifest, model = load_manifest(out), load(out)
    tensor = model.state_dict()[name]
    first = (0,) * tensor.ndim
    tensor[first] = torch.nextafter(tensor[first], torch.tensor(9.0))
    save_checkpoint(out, manifest, model)
    return out


def test_an_unused_weight_may_differ(with_c, with_d, tmp_path):
    model = load(with_c)
    unused = next(name for name in model.state_dict() if name not in model.used_tensors())
    merge([with_c, changed(with_d, tmp_path / "other", unused)], tmp_path / "new")


def test_the_first_difference_is_named(base, bases, with_c, with_d, data, tmp_path):
    out = tmp_path / "new"
    model = load(with_c)
    used = list(model.used_tensors())
    shared = next(name for name in used if name.endswith("shared"))
    with pytest.raises(CheckpointError, match=rf"differ in '{shared}', which scenes share"):
        merge([with_c, changed(with_d, tmp_path / "shared", shared)], out)
    own = next(name for name in used if "scene_b" in name and name.endswith("weight"))
    with pytest.raises(CheckpointError, match=rf"scene 'b' is not the same in .*\('{own}'\)"):
        merge([with_c, changed(with_d, tmp_path / "own", own)], out)
    with pytest.raises(
        CheckpointError, match=r"different networks \('sharing' is conv_scored and all_shared\)"
    ):
        merge([with_c, bases / "all_shared"], out)
    add_scene(base, data["c"], settings(seed=9), tmp_path / "other_c", HERE, share_with="b")
    with pytest.raises(CheckpointError, match=r"scene 'c' is not the same.*remove it from one of them"):
        merge([with_c, tmp_path / "other_c"], out)
    flipped = changed(with_d, tmp_path / "flipped", shared)
    manifest, model = load_manifest(flipped), load(flipped)
    model.scores()[0].data.fill_(0.9)
    save_checkpoint(flipped, manifest, model)
    with pytest.raises(CheckpointError, match=r"share 'backbone.stem.conv' in only one of"):
        merge([with_c, flipped], out)
    manifest.trainings[-1].finished = False
    save_checkpoint(flipped, manifest, model)
    with pytest.raises(CheckpointError, match="not finished"):
        merge([with_c, flipped], out)
    assert not out.exists()
    with pytest.raises(CheckpointError, match="not empty"):
        merge([with_c, with_d], with_c)
