"""The history of sharing: in numbers, as a picture, and in `ofvl info`."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core.camera import Camera
from ofvl_core.checkpoint import Manifest, SceneRecord, TrainingRecord, save_checkpoint
from ofvl_core.cli.info import info
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.network import ARCHITECTURES, OFVLMS
from ofvl_core.sharing_history import LayerHistory, layer_histories, plot_sharing, readable_name
from ofvl_core.training.config import TrainConfig

HISTORY = [[10, 0.9, 0.1, 0.6], [20, 0.4, 0.1, 0.4], [30, 0.5, 0.1, 0.3], [40, 0.7, 0.1, 0.2]]
NAMES = ["backbone.stem.conv", "backbone.blocks.0.layers.1.norm", "backbone.blocks.10.shortcut.conv"]


def test_flips_and_since():
    assert layer_histories(HISTORY) == [LayerHistory(2, 30), LayerHistory(0, 10), LayerHistory(1, 20)]
    assert layer_histories([]) == []


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_flips_are_those_seen_one_by_one(states):
    flips, since = 0, 0
    for iteration in range(1, len(states)):
        if states[iteration] != states[iteration - 1]:
            flips, since = flips + 1, iteration
    history = [[iteration, 0.2 if shared else 0.8] for iteration, shared in enumerate(states)]
    assert layer_histories(history) == [LayerHistory(flips, since)]


def test_readable_names():
    assert [readable_name(name) for name in NAMES] == [
        "stem conv",
        "block 1 norm 2",
        "block 11 shortcut conv",
    ]
    names = list(OFVLMS(ARCHITECTURES["ofvl_ms50"]).scored_layers)
    assert len({readable_name(name) for name in names}) == len(names)


def test_the_picture_shows_scores_states_and_what_is_shared():
    figure = plot_sharing(NAMES, [100, 200, 700], HISTORY, [[10, 3.0, 4.0], [40, 1.0, 2.0]], ["a", "b"])
    layers, course = figure.axes[:2]
    (mesh,) = (item for item in layers.collections if item.get_array() is not None)
    assert np.array_equal(
        np.ravel(mesh.get_array()), np.array(HISTORY)[:, 1:].T.ravel()
    )  # a row a layer, the input on top
    assert layers.get_ylim()[0] > layers.get_ylim()[1]
    assert mesh.norm(0.5) == 0.5
    hatched = [[tuple(path.get_extents().intervalx) for path in bars.get_paths()]
               for bars in layers.collections if bars.get_hatch()]  # fmt: skip
    assert hatched == [[(10, 15), (25, 40)], [], [(10, 15)]]
    assert [label.get_text() for label in layers.get_yticklabels()] == [readable_name(name) for name in NAMES]
    (share,) = course.patches
    assert np.allclose(share.get_data().values, [0.2, 1.0, 0.9, 0.9])
    drawn = {line.get_label(): line.get_ydata().tolist() for axes in figure.axes for line in axes.lines}
    assert drawn == {"a": [3.0, 1.0], "b": [4.0, 2.0]}


def test_one_point_is_drawn():
    figure = plot_sharing(NAMES, [1, 2, 3], HISTORY[:1], [], ["a"])
    figure.canvas.draw()


@pytest.fixture
def checkpoint(tmp_path):
    """A joint training, and a scene added later that shares with another."""
    architecture = ARCHITECTURES["ofvl_ms_lite"]
    model = OFVLMS(architecture, ["a", "b"])
    for number, layer in enumerate(model.scored_layers.values()):
        layer.score.data.fill_(0.2 + 0.5 * (number % 2))
    model.eval().add_scene("c", like="a", share_with="b")
    scores = [score.item() for score in model.scores()]
    joint = TrainingRecord(
        scenes=["a", "b"],
        config=TrainConfig(),
        history=[[5, 2.0, 3.0], [10, 1.0, 2.0]],
        sharing=[[5, *([0.7] * len(scores))], [10, *scores]],
    )
    camera = Camera(width=160, height=120, fx=120.0, fy=120.0, cx=79.5, cy=59.5)
    scenes = [
        SceneRecord(name=name, camera=camera, input_focal=120.0, frames=4, shares_with=owner)
        for name, owner in (("a", None), ("b", None), ("c", "b"))
    ]
    later = TrainingRecord(scenes=["c"], config=TrainConfig())
    save_checkpoint(
        tmp_path / "model",
        Manifest(architecture=architecture, scenes=scenes, trainings=[joint, later]),
        model,
    )
    return tmp_path / "model"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_info_tells_and_draws_the_history(checkpoint, tmp_path, capsys, suffix):
    picture, written = tmp_path / f"sharing{suffix}", tmp_path / "info.json"
    info(str(checkpoint), json=str(written), plot=picture)
    content = json.loads(written.read_text())
    histories = [(layer["shared"], layer["flips"], layer["since"]) for layer in content["layers"]]
    assert histories == [(True, 1, 10) if n % 2 == 0 else (False, 0, 5) for n in range(15)]
    parameters = content["parameters"]
    borrowed = parameters["specific_convolutions"]
    assert parameters["total"] == parameters["single_scene"] + 2 * parameters["per_scene"] - borrowed
    assert [record["scenes"] for record in content["trainings"]] == [["a", "b"], ["c"]]
    output = capsys.readouterr().out
    assert "convolutions of b" in output
    assert "block 5 shortcut conv" in output
    assert max(map(len, output.splitlines())) <= 80
    if suffix == ".png":
        assert cv2.imread(str(picture)) is not None
    else:
        assert "</svg>" in picture.read_text()


def test_info_refuses_what_it_cannot_draw(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"suffix \.png or \.svg"):
        info(str(checkpoint), plot=tmp_path / "sharing.txt")
    with pytest.raises(CheckpointError, match="records no scores over training"):
        info("ofvl_ms_lite", plot=tmp_path / "sharing.png")
    assert not list(tmp_path.glob("*sharing*"))
