"""A new scene's head goes on alone in the end, on features that were computed once."""

import signal

import pytest
import torch
from scenes import write_room

from ofvl_core.camera import Camera
from ofvl_core.checkpoint import load_manifest, load_model, save_deployment
from ofvl_core.datasets import load_scene
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.network import OFVLMS, Architecture, Prediction
from ofvl_core.network.sharing import scene_key
from ofvl_core.scenes import merge
from ofvl_core.training import feature_buffer, head_training
from ofvl_core.training.add_scene import add_scene
from ofvl_core.training.augmentation import BatchSource
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.feature_buffer import fill_buffer
from ofvl_core.training.gradients import make_combination
from ofvl_core.training.head_training import SHARE, NewSceneTrainer
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.losses import reprojection_loss
from ofvl_core.training.packed import pack_frames
from ofvl_core.training.run import train
from ofvl_core.training.workers import Team

CPU = torch.device("cpu")
HERE = Surroundings(CPU)
NETWORK = Architecture(
    depths=(1, 1, 1, 1),
    widths=(8, 8, 8, 16),
    stem_width=8,
    head_widths=(16,),
    branch_width=8,
    head_kernel=1,
    input_height=48,
)
INPUT = Camera(64, 48, 56.0, 56.4, 32.1, 22.9)
ITERATIONS = 10


def settings(**changes):
    changes = {"iterations": ITERATIONS, "batch_size": 4, "precision": "float32"} | changes
    return TrainConfig(network=NETWORK, **changes)


@pytest.fixture(scope="module", autouse=True)
def small_buffers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_buffer, "VIEWS", 16)
        patch.setattr(feature_buffer, "CELLS", 16 * 40)
        patch.setattr(head_training, "CELLS_A_STEP", 256)
        yield


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    return {name: load_scene(write_room(folder / name, frames=8)) for name in ("old", "new", "third")}


@pytest.fixture(scope="module")
def base(rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "model"
    assert train([rooms["old"]], settings(statistics_rest=1.0), out, HERE)
    return out


@pytest.fixture(scope="module")
def added(base, rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("added") / "model"
    assert add_scene(base, rooms["new"], settings(), out, HERE)
    return out


@pytest.fixture
def model():
    torch.manual_seed(3)
    model = OFVLMS(NETWORK, ["a", "b"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return model


@pytest.fixture(scope="module")
def source(rooms):
    config = settings()
    frames = pack_frames(rooms["new"], INPUT)
    return BatchSource(frames, 4, NETWORK.stride, config.augmentation, (0, 0, 0), CPU)


def load(path):
    return load_model(path, load_manifest(path), CPU)


@torch.no_grad()
def predict(path, scene):
    generator = torch.Generator().manual_seed(1)
    return torch.cat(load(path)(torch.rand(2, 3, 48, 64, generator=generator) * 2 - 1, scene), dim=1)


# The buffer


def rows(maps):
    return maps.movedim(1, -1).flatten(0, 2)


def backbone(model):
    return lambda images: model.eval().backbone(images, "a")


def test_the_head_says_of_the_buffer_what_the_network_says_of_the_images(model, source, monkeypatch):
    monkeypatch.setattr(feature_buffer, "CELLS", 10**6)  # all of them, in order
    buffer = fill_buffer(source, backbone(model))
    batches = [source.batch(number) for number in range(4)]
    seen = torch.cat([batch.seen.flatten() for batch in batches])
    assert 0 < len(buffer.features) == seen.sum() < len(seen)
    features, _ = buffer.gather(torch.arange(len(buffer.features)))
    with torch.no_grad():
        output = model.head(features.float(), "a")[0, :3, 0].T
        predictions = torch.cat([rows(model(batch.images, "a").coordinates) for batch in batches])[seen]
    assert (output - predictions).abs().max() < 0.03 * predictions.abs().max()  # rounded to 8 bits
    assert (output - predictions).abs().max() < 0.2 * predictions.std()


def test_what_is_to_be_said_of_a_cell_belongs_to_it(model, source):
    """Every known point is seen along its ray from the pose of its view."""
    buffer = fill_buffer(source, backbone(model))
    features, batch = buffer.gather(torch.randperm(len(buffer.features))[:200])
    assert features.shape == (1, 16, 1, 200)
    assert batch.coordinates.shape == (200, 3, 1, 1)
    assert 0 < batch.valid.sum() <= 200
    assert batch.seen.all()
    assert set(buffer.views.tolist()) == set(range(16))
    rotation, translation = batch.camera_from_world[:, :3, :3], batch.camera_from_world[:, :3, 3:]
    points = (rotation @ batch.coordinates.flatten(2) + translation)[:, :, 0]
    known = batch.valid.flatten()
    assert torch.allclose((points[:, :2] / points[:, 2:])[known], batch.rays.flatten(1)[known], atol=1e-4)
    error = reprojection_loss(
        Prediction(batch.coordinates, batch.valid), batch._replace(seen=batch.valid), 56, 9
    )
    assert error < 0.01  # the loss of images takes such a batch as it is


def test_the_buffer_is_bounded_and_every_view_is_in_it(model, source):
    buffer = fill_buffer(source, backbone(model))
    assert len(buffer.features) == len(buffer.coordinates) <= feature_buffer.CELLS
    assert buffer.camera_from_world.shape == (16, 4, 4)
    assert set(buffer.views.tolist()) == set(range(16))


def test_a_buffer_that_has_to_be_ready_holds_a_batch(model, source):
    buffer = fill_buffer(source, backbone(model), until=lambda cells: cells > 0)
    assert 0 < len(buffer.features) <= feature_buffer.CELLS // 4


# The trainer


@pytest.fixture
def trainer(model, source):
    config = settings(iterations=40)
    model.requires_grad_(False)
    for parameter in model.scene_parameters("a"):
        parameter.requires_grad_()
    combination = make_combination(config.gradients, [])
    return NewSceneTrainer(model, ["a"], {0: source}, config, combination, Team(1, CPU))


def parameters(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def moved(trainer, before):
    return {name for name, tensor in parameters(trainer).items() if not torch.equal(tensor, before[name])}


def test_all_that_is_the_scenes_own_learns_then_its_head_alone(trainer):
    before = parameters(trainer)
    trainer.step(0, 0.5 * (1 - SHARE))
    own = {name for name in before if scene_key("a") in name.split(".")}
    assert {name for name in own if name.startswith("backbone")} & moved(trainer, before)
    assert moved(trainer, before) <= own
    before = parameters(trainer)
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    trainer.step(20, 1 - SHARE / 2)
    head = {name for name in own if name.startswith("head")}
    assert moved(trainer, before) == head
    for name, buffer in trainer.model.named_buffers():
        ours = name.startswith(f"head.modules_by_scene.{scene_key('a')}") and "extent" not in name
        assert torch.equal(buffer, buffers[name]) != (ours and "centre" not in name), name


def test_a_head_learns_from_the_buffer(trainer):
    last = 1 - SHARE
    losses = [trainer.step(number, last + SHARE * number / 100).losses[0] for number in range(50)]
    assert sum(losses[-5:]) < sum(losses[:5]) - 5


def test_a_head_of_larger_kernel_learns_with_everything(rooms, source):
    larger = NETWORK.model_copy(update={"head_kernel": 3})
    model, config = OFVLMS(larger, ["a"]), settings()
    combination = make_combination(config.gradients, [])
    trainer = NewSceneTrainer(model, ["a"], {0: source}, config, combination, Team(1, CPU))
    before = parameters(trainer)
    trainer.step(9, 0.99)
    assert any(name.startswith("backbone") for name in moved(trainer, before))


# All of it


def test_the_old_scene_stays_bit_by_bit(base, added):
    assert torch.equal(predict(added, "old"), predict(base, "old"))
    training = load_manifest(added).training
    assert (training.iteration, training.finished) == (ITERATIONS, True)
    new, old = load(added).scene_tensors("new"), load(added).scene_tensors("old")
    moved = {name for name in new if not torch.equal(new[name], old[name.replace("_new", "_old")])}
    assert moved >= {name for name in new if "running" in name or "attention" in name}


@pytest.mark.parametrize("stopped", [2, ITERATIONS - 2])
def test_an_interrupted_addition_is_resumed(base, added, rooms, tmp_path, stopped):
    assert 2 < (1 - SHARE) * ITERATIONS < ITERATIONS - 2  # one in either part

    def interrupt(iteration, losses):
        if iteration == stopped:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "parts"
    assert not add_scene(base, rooms["new"], settings(), out, Surroundings(CPU, on_step=interrupt))
    assert load_manifest(out).training.iteration == stopped
    assert add_scene(base, rooms["new"], settings(), out, HERE, resume=True)
    whole, parts = load(added).state_dict(), load(out).state_dict()
    assert all(torch.allclose(whole[name].float(), parts[name].float(), atol=1e-5) for name in whole)


def test_the_backbone_rests_in_the_end(base, added, rooms, tmp_path):
    def interrupt(iteration, losses):
        if iteration == ITERATIONS - 2:
            signal.raise_signal(signal.SIGINT)

    add_scene(base, rooms["new"], settings(), tmp_path / "part", Surroundings(CPU, on_step=interrupt))
    before, after = load(tmp_path / "part").state_dict(), load(added).state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("head.modules_by_scene.scene_new") for name in changed)


def test_time_ends_both_parts(base, rooms, tmp_path):
    config = settings(iterations=10**6, max_minutes=0.02)
    assert add_scene(base, rooms["new"], config, tmp_path / "out", HERE)
    assert 0 < load_manifest(tmp_path / "out").training.iteration < 10**6


# The first scene


def test_a_scene_of_its_own_leaves_the_others_out(base, rooms, tmp_path):
    out = tmp_path / "out"
    file = tmp_path / "base.safetensors"
    save_deployment(file, load_manifest(base), load(base))
    with pytest.raises(ConfigError, match="leave out --share-with"):
        add_scene(file, rooms["new"], settings(), out, HERE, alone=True, share_with="old")

    def interrupt(iteration, losses):
        signal.raise_signal(signal.SIGINT)

    stopping = Surroundings(CPU, on_step=interrupt)
    assert not add_scene(file, rooms["new"], settings(), out, stopping, alone=True)
    with pytest.raises(CheckpointError, match="another checkpoint"):
        add_scene(file, rooms["new"], settings(), out, HERE, resume=True)
    assert add_scene(file, rooms["new"], settings(), out, HERE, alone=True, resume=True)
    manifest, model = load_manifest(out), load(out)
    assert [scene.name for scene in manifest.scenes] == model.scenes == ["new"]
    assert [training.scenes for training in manifest.trainings] == [["old"], ["new"]]
    assert not any("scene_old" in name for name in model.state_dict())
    shared = {name: tensor for name, tensor in load(file).state_dict().items() if name.endswith("shared")}
    assert shared
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in shared.items())
    assert add_scene(file, rooms["third"], settings(), tmp_path / "third", HERE, alone=True)
    merge([out, tmp_path / "third"], tmp_path / "both")
    for path, scene in ((out, "new"), (tmp_path / "third", "third")):
        assert torch.equal(predict(tmp_path / "both", scene), predict(path, scene))
