"""Checkpoints: whole or not at all, readable, and harmless to load."""

import json
import os
import pickle

import pytest
import torch
from scenes import write_scene

from ofvl_core.calibration import UNCALIBRATED
from ofvl_core.checkpoint import keep_result, load_manifest, load_model
from ofvl_core.checkpoint_folder import MANIFEST
from ofvl_core.datasets import load_scene
from ofvl_core.errors import CheckpointError
from ofvl_core.localizer import Localizer
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tmp_path):
    scene = load_scene(write_scene(tmp_path / "kitchen"))
    train([scene], TrainConfig(iterations=1, batch_size=1), tmp_path / "model", Surroundings(CPU))
    return tmp_path / "model"


def test_a_checkpoint_is_a_manifest_and_its_weights(checkpoint):
    manifest = load_manifest(checkpoint)
    assert {file.name for file in checkpoint.iterdir()} == {MANIFEST, manifest.weights}
    record = manifest.scene("kitchen")
    assert (record.frames, record.camera.fx, record.input_focal) == (4, 60.0, 120.0)
    assert manifest.training.finished
    readable = json.loads((checkpoint / MANIFEST).read_text())
    assert readable["trainings"][0]["config"]["network"]["name"] == "ofvl_ms_lite"


def test_a_model_survives_the_disk(checkpoint):
    manifest = load_manifest(checkpoint)
    one, two = (load_model(checkpoint, manifest, CPU) for _ in range(2))
    image = torch.randn(1, 3, 120, 160)
    assert torch.equal(one(image, "kitchen").coordinates, two(image, "kitchen").coordinates)
    scores = [layer.score.item() < 0.5 for layer in one.scored_layers.values()]
    assert [layer.is_shared for layer in one.scored_layers.values()] == scores


def weights_of(checkpoint):
    return next(checkpoint.glob("weights-*.safetensors"))


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        Localizer(tmp_path / "nothing")


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            Localizer(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', "\x00\x01"])
def test_damaged_manifest(checkpoint, content):
    (checkpoint / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match="damaged or of another version"):
        Localizer(checkpoint)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights(checkpoint, keep):
    path = weights_of(checkpoint)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        Localizer(checkpoint)


def test_missing_weights(checkpoint):
    weights_of(checkpoint).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Localizer(checkpoint)


def test_weights_of_another_model(checkpoint):
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["architecture"]["widths"] = [8, 8, 8, 8]
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="do not fit"):
        Localizer(checkpoint)


def test_a_pickle_is_not_executed(checkpoint, tmp_path):
    """Even under the right name and hash, a pickle is refused by the parser, not run."""

    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    import hashlib

    content = pickle.dumps(Harm())
    name = f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    (checkpoint / name).write_bytes(content)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["weights"] = name
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        Localizer(checkpoint)
    assert not (tmp_path / "harmed").exists()


def test_a_checkpoint_of_another_kind(checkpoint):
    (checkpoint / MANIFEST).write_text('{"format": "ofvl-collaborative"}')
    with pytest.raises(CheckpointError, match="of another kind; give one of 'ofvl train'"):
        Localizer(checkpoint)
    (checkpoint / MANIFEST).write_text('{"format": "ofvl-chackpoint"}')
    with pytest.raises(CheckpointError, match="damaged or of another version"):
        Localizer(checkpoint)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd"])
def test_a_manifest_cannot_point_outside_its_folder(checkpoint, name):
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["weights"] = name
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged or of another version"):
        Localizer(checkpoint)


def test_a_result_is_kept_unless_the_checkpoint_changed(checkpoint):
    before, after = load_manifest(checkpoint), load_manifest(checkpoint)
    after.scenes[0].calibration = UNCALIBRATED
    keep_result(checkpoint, before, after)
    assert load_manifest(checkpoint) == after
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        keep_result(checkpoint, before, after)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", [".", MANIFEST])
def test_what_may_not_be_read_is_named(checkpoint, closed):
    mode = (checkpoint / closed).stat().st_mode
    (checkpoint / closed).chmod(0)
    try:
        with pytest.raises(CheckpointError, match=r"cannot be read.*permissions"):
            Localizer(checkpoint)
    finally:
        (checkpoint / closed).chmod(mode)


def test_unknown_scene_lists_the_known(checkpoint):
    with pytest.raises(CheckpointError, match=r"unknown scene 'attic'.*kitchen"):
        load_manifest(checkpoint).scene("attic")
