"""The life of a model on the command line: trained, extended, shortened, merged, deployed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_cli import ofvl, refused

from ofvl_core import pretrained
from ofvl_core.checkpoint import load_manifest, load_model
from ofvl_core.cli.scenes import add_scene
from ofvl_core.datasets import load_scene
from ofvl_core.errors import CheckpointError
from ofvl_core.training.config import TrainConfig, make_config

SMALL = (
    "--set", "batch_size=2", "--set", "augmentation=robot", "--set",
    "network={name: ofvl_ms_lite, widths: [16, 16, 16, 16], head_widths: [16], branch_width: 16}",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tiny_scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("life") / "base"
    ofvl("train", tiny_scenes[0], "--out", out, "--iterations", "3", *SMALL)
    return out


def test_from_one_scene_to_one_file(base, tiny_scenes, tmp_path):
    added, shared, both = tmp_path / "added", tmp_path / "shared", tmp_path / "both"
    _, messages = ofvl("add-scene", base, tiny_scenes[1], "--out", added, "--iterations", "2")
    assert "room_2 starts like room_1" in messages
    assert load_manifest(added).training.config.batch_size == 2  # as the base was trained
    assert load_manifest(added).training.iteration == 2
    other = shutil.copytree(tiny_scenes[1], tmp_path / "hall")
    ofvl("add-scene", base, other, "--out", shared, "--iterations", "2", "--share-with", "room_1")
    ofvl("merge", added, shared, "--out", both)
    before, after = (
        json.loads(ofvl("evaluate", path, tiny_scenes[0], "--json", "-")[0])["scenes"][0]
        for path in (base, both)
    )
    errors = [key for key in before if not key.startswith("latency")]
    assert [before[key] for key in errors] == [after[key] for key in errors]
    without = tmp_path / "without"
    ofvl("remove-scene", both, "room_1", "--out", without)
    assert [scene.name for scene in load_manifest(without).scenes] == ["room_2", "hall"]

    file = tmp_path / "robot" / "model.safetensors"
    table, _ = ofvl("deploy", both, "--out", file, "--json", tmp_path / "sizes.json")
    sizes = json.loads((tmp_path / "sizes.json").read_text())
    assert sizes["bytes"] == file.stat().st_size == sum(part["bytes"] for part in sizes["parts"].values())
    assert f"{sizes['bytes']:,}" in table
    expected = sizes["single_scene"] + 2 * sizes["per_scene"] - sizes["specific_convolutions"]
    assert f"= {expected:,} weights and biases" in table
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    described = json.loads(ofvl("info", file, "--json")[0])
    assert [scene["name"] for scene in described["scenes"]] == ["room_1", "room_2", "hall"]
    image = load_scene(tiny_scenes[1]).frames("test")[0].color
    found = [ofvl("localize", path, image, "--scene", "hall")[0] for path in (both, file)]
    assert found[0] == found[1]
    half = tmp_path / "half.safetensors"
    ofvl("deploy", file, "--out", half, "--half")
    kept = sizes["parts"]["keyframes"]["bytes"]
    assert kept > 0
    assert half.stat().st_size - kept < 0.7 * (file.stat().st_size - kept)


def test_the_first_scene_starts_from_the_pretrained_model(base, tiny_scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "FILE", tmp_path / "shipped.safetensors")
    word, few = Path("pretrained"), {"iterations": 2, "changes": ["batch_size=2"]}
    with pytest.raises(CheckpointError, match=r"missing.*scripts/pretrain.py"):
        add_scene(word, tiny_scenes[1], Path("first"), **few)
    ofvl("deploy", base, "--out", tmp_path / "shipped.safetensors", "--half")
    add_scene(word, tiny_scenes[1], Path("first"), **few)
    manifest = load_manifest(Path("first"))
    assert [scene.name for scene in manifest.scenes] == ["room_2"]
    assert manifest.architecture == load_manifest(base).architecture
    assert manifest.training.config.augmentation == TrainConfig().augmentation  # not the base's
    shutil.copytree(base, word)  # what is there comes first
    add_scene(word, tiny_scenes[1], Path("second"), **few)
    assert [scene.name for scene in load_manifest(Path("second")).scenes] == ["room_1", "room_2"]


def test_the_shipped_model_is_the_default_network_of_several_looks():
    manifest = load_manifest(pretrained.FILE)
    load_model(pretrained.FILE, manifest, torch.device("cpu"))
    assert manifest.architecture.model_copy(update={"looks": 1}) == TrainConfig().network
    make_config({"network": manifest.architecture.model_dump()})  # its looks are those that training shows
    assert pretrained.FILE.stat().st_size < 5e6


def test_what_makes_no_sense_is_one_sentence(base, tiny_scenes, tmp_path):
    out = tmp_path / "new"
    new = ("add-scene", base, tiny_scenes[1], "--out", out)
    assert "has a scene 'room_1' already" in refused("add-scene", base, tiny_scenes[0], "--out", out)
    assert "network of the settings" in refused(*new, "--preset", "7scenes_ofvl_ms34")
    assert "unknown scene 'attic'" in refused("remove-scene", base, "attic", "--out", out)
    assert "ends in .safetensors" in refused("deploy", base, "--out", tmp_path / "model.bin")
    assert not out.exists()
    assert "not empty" in refused("merge", base, base, "--out", base)
    damaged = tmp_path / "damaged.safetensors"
    ofvl("deploy", base, "--out", damaged)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert "truncated or damaged" in refused("evaluate", damaged, tiny_scenes[0])
