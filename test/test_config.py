"""Settings: defaults, presets of the paper, files, single changes; one sentence for what makes no sense."""

import pytest
import torch
import yaml
from scenes import write_scene

from ofvl_core.checkpoint import load_manifest
from ofvl_core.cli.settings import layers
from ofvl_core.datasets import load_scene
from ofvl_core.errors import ConfigError
from ofvl_core.network import ARCHITECTURES
from ofvl_core.training.config import (
    AUGMENTATIONS,
    TrainConfig,
    make_config,
    read_settings,
    write_settings,
)
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.presets import PRESETS
from ofvl_core.training.run import train


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_the_papers(preset):
    config = make_config(PRESETS[preset])
    data, network = preset.split("_", 1)
    assert config.network == ARCHITECTURES[network]
    assert config.learning_rate == pytest.approx({"7scenes": 1.4e-3, "12scenes": 2.4e-3, "livl": 8e-4}[data])
    assert (config.iterations, config.batch_size, config.weight_decay) == (200_000, 4, 0.05)
    assert (config.penalty_weight, config.distance_warmup, config.gradient_clip) == (0.25, 0, None)
    assert config.holdout == 0
    assert config.augmentation == AUGMENTATIONS["paper"]


@pytest.mark.parametrize("network", ["ofvl_ms18", "ofvl_ms34", "ofvl_ms50"])
def test_a_preset_trains(tmp_path, network):
    small = {"iterations": 1, "batch_size": 1, "network": {"input_height": 64}}
    config = make_config(PRESETS[f"7scenes_{network}"], small)
    assert config.network.depths == ARCHITECTURES[network].depths
    scene = load_scene(write_scene(tmp_path / "scene"))
    assert train([scene], config, tmp_path / "model", Surroundings(torch.device("cpu")))
    assert load_manifest(tmp_path / "model").training.config == config


@pytest.mark.parametrize("given", [{}, PRESETS["livl_ofvl_ms50"], {"network": {"sharing": "all_shared"}}])
def test_what_is_written_is_read(tmp_path, given):
    config = make_config(given)
    path = tmp_path / "run.yaml"
    path.write_text(write_settings(config))
    assert make_config(read_settings(path)) == config
    assert set(yaml.safe_load(path.read_text())) == set(TrainConfig.model_fields)


def test_later_layers_win(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: 5\nbatch_size: 2\nnetwork: {sharing: all_shared}\n")
    config = make_config(
        *layers("12scenes_ofvl_ms18", path, ["seed=7", "network.attention=false", "augmentation.shear_deg=1"])
    )
    assert (config.seed, config.batch_size, config.iterations) == (7, 2, 200_000)
    changed = {"sharing": "all_shared", "attention": False}
    assert config.network == ARCHITECTURES["ofvl_ms18"].model_copy(update=changed)
    assert config.augmentation == AUGMENTATIONS["paper"].model_copy(update={"shear_deg": 1.0})


def test_a_model_of_which_one_setting_differs():
    changes = ["network.looks=5", "iterations=3"]
    config = make_config(*layers(None, None, changes, network="ofvl_ms34", seed=1))
    assert config.network == ARCHITECTURES["ofvl_ms34"].model_copy(update={"looks": 5})
    assert (config.iterations, config.seed) == (3, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("iterations=0", "'iterations': input should be greater than 0"),
        ("itrations=5", "'itrations': extra inputs"),
        ("network=resnet", "'resnet' is unknown; choose one of"),
        ("network.sharing=some", "'network.sharing'"),
        ("network.strides=[1, 0, 2, 2]", "'network.strides.1'"),
        ("network.kernels=[1, 1]", "one of them 3"),
        ("gradients=fastest", "'gradients'"),
        ("score_slope=0.5", "'score_slope'"),
        ("seed", "not KEY=VALUE"),
        ("seed=[", "not KEY=VALUE"),
        ("learning_rate=.nan", "'learning_rate'"),
    ],
)
def test_nonsense_is_one_sentence(change, said):
    with pytest.raises(ConfigError) as raised:
        make_config(*layers(None, None, [change]))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_looks_that_training_does_not_show():
    make_config({"network": {"looks": 5}}, {"augmentation": "paper"})
    make_config({"network": {"looks": 1}}, {"augmentation": "robot"})
    with pytest.raises(
        ConfigError, match=r"'augmentation': .* choose handheld, or a network that looks once"
    ):
        make_config({"network": {"looks": 2}}, {"augmentation": "robot"})


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "", "!!python/object/apply:os.getcwd []"])
def test_a_file_that_holds_no_settings(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        read_settings(path)
