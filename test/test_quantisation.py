"""Scenes prepared for int8, where that leaves poses as good."""

import importlib
import json
from dataclasses import replace

import pytest
from scenes import write_scene
from typer.testing import CliRunner

from ofvl_core import quantisation
from ofvl_core.checkpoint import load_manifest
from ofvl_core.checkpoint_folder import MANIFEST, save_manifest
from ofvl_core.cli import app
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.engines.openvino import is_installed
from ofvl_core.errors import CheckpointError, DataError
from ofvl_core.evaluation import as_held_out
from ofvl_core.localizer import Localizer
from ofvl_core.quantisation import quantised

pytestmark = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed")


def recalled(scene, manifest=None):
    """The scene with frames held out that the tiny model knows by heart: of others it has hardly a pose."""
    frames = scene.frames("train")
    return replace(scene, splits={**scene.splits, HOLDOUT: 3 * frames})


@pytest.fixture
def room(tiny_scenes):
    return load_scene(tiny_scenes[0])


def test_a_scene_is_prepared_where_poses_stay_as_good(tiny_checkpoint, room, monkeypatch) -> None:
    monkeypatch.setattr(quantisation, "GROWTH", 2.0)  # the tiny model's eight frames are no measure
    seen = []
    manifest = quantised(tiny_checkpoint, [recalled(room)], lambda: seen.append(1))
    kept = manifest.scene(room.name).quantisation
    assert kept is not None
    assert kept.frames == 24
    assert len(seen) == 2 * 24
    assert kept.ranges[0] == pytest.approx((-1, 1), abs=0.1)  # an image's, black to white
    assert all(low == 0 < high for low, high in kept.ranges[1:])  # after a ReLU
    assert kept.int8 != kept.float32
    assert manifest.scene("room_2").quantisation is None
    assert load_manifest(tiny_checkpoint).scene(room.name).quantisation is None  # saving is the caller's


def test_a_scene_that_suffers_is_refused(tiny_checkpoint, room, monkeypatch) -> None:
    monkeypatch.setattr(quantisation, "GROWTH", 0.0)
    with pytest.raises(DataError, match=r"int8 takes the median error of room_1 from .* by more than 5 %"):
        quantised(tiny_checkpoint, [recalled(room)])


def test_the_command_keeps_what_it_found(tiny_checkpoint, tiny_scenes, room, monkeypatch) -> None:
    monkeypatch.setattr(quantisation, "GROWTH", 2.0)
    command = importlib.import_module("ofvl_core.cli.quantise")  # the package has the function by that name
    monkeypatch.setattr(command, "as_held_out", recalled)
    before = load_manifest(tiny_checkpoint)
    result = CliRunner().invoke(app, ["quantise", str(tiny_checkpoint), str(tiny_scenes[0]), "--json", "-"])
    try:
        assert result.exception is None, result.exception
        after = load_manifest(tiny_checkpoint)
        (written,) = json.loads(result.stdout)
        kept = after.scene(room.name).quantisation
        assert kept is not None
        assert (written["scene"], written["frames"]) == (room.name, kept.frames)
        assert after.weights == before.weights
        image = room.read_color(room.frames("train")[0])
        Localizer(tiny_checkpoint, "cpu", engine="openvino-int8").localize(image, room.camera, room.name)
    finally:
        save_manifest(tiny_checkpoint, before)


def test_what_cannot_be_decided_is_refused(tiny_checkpoint, tiny_scenes, tmp_path) -> None:
    manifest = load_manifest(tiny_checkpoint)
    before = (tiny_checkpoint / MANIFEST).read_bytes()
    result = CliRunner().invoke(app, ["quantise", str(tiny_checkpoint), str(tiny_scenes[0])])
    assert isinstance(result.exception, DataError)
    assert "training held out 0 frames of room_1, and 20 are needed" in str(result.exception)
    result = CliRunner().invoke(
        app, ["quantise", str(tiny_checkpoint / manifest.weights), str(tiny_scenes[0])]
    )
    assert isinstance(result.exception, CheckpointError)
    assert "run ofvl deploy again" in str(result.exception)
    with pytest.raises(CheckpointError, match="unknown scene 'cellar'"):
        as_held_out(load_scene(write_scene(tmp_path / "cellar")), manifest)
    assert (tiny_checkpoint / MANIFEST).read_bytes() == before
