"""Frames held out of training, what they say of covariances, and where that is kept."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import write_scene
from scipy.stats import chi2
from typer.testing import CliRunner

from ofvl_core.calibration import FEWEST, UNCALIBRATED, WITHIN_95, Calibration, calibrated, inflation_of
from ofvl_core.camera import Camera
from ofvl_core.checkpoint import load_manifest, load_model, save_deployment
from ofvl_core.checkpoint_folder import MANIFEST, save_manifest
from ofvl_core.cli import app
from ofvl_core.datasets import Frame, SceneData, load_scene
from ofvl_core.datasets.scene import HOLDOUT, LONGEST_RUN, SHORTEST_RUN
from ofvl_core.errors import CheckpointError, DataError
from ofvl_core.evaluation import evaluate_scene
from ofvl_core.localizer import Localizer
from ofvl_core.pretrained import pretrained
from ofvl_core.scenes import merge, remove_scenes
from ofvl_core.simulation import simulate
from ofvl_core.simulation.rgbd import D435_COLOUR
from ofvl_core.training import run
from ofvl_core.training.add_scene import add_scene
from ofvl_core.training.config import TrainConfig

HERE = run.Surroundings(torch.device("cpu"))
CALIBRATION = Calibration(
    inflation=3.0, frames=40, poses=38, within_95=0.9, inlier_share=0.2, uncertainty=0.05
)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A simulated room with two drives to learn from and one to be tested on."""
    out = tmp_path_factory.mktemp("room")
    camera = D435_COLOUR.resized(160, 120)  # as large as the network takes it
    return simulate(out, 1, seed=3, train_sequences=2, test_sequences=1, frames=120, camera=camera)[0]


@pytest.fixture(scope="module")
def checkpoint(room, tmp_path_factory) -> Path:
    """A model that knows the room coarsely, to less than a metre; a quarter of its frames were held out."""
    out = tmp_path_factory.mktemp("model") / "model"
    network = load_manifest(pretrained()).architecture
    config = TrainConfig(network=network, iterations=120, batch_size=6, holdout=0.25)
    assert add_scene(pretrained(), load_scene(room), config, out, HERE, alone=True)
    return out


@pytest.fixture
def untrained(tmp_path) -> Path:
    """A checkpoint of random images, after one step."""
    scenes = [load_scene(write_scene(tmp_path / name)) for name in ("a", "b")]
    run.train(scenes, TrainConfig(iterations=1, batch_size=1), tmp_path / "model", HERE)
    return tmp_path / "model"


def scene_of(*lengths: int) -> SceneData:
    frames = [
        Frame(f"{sequence}/{number}", str(sequence), Path(), None, np.eye(4), float(number))
        for sequence, length in enumerate(lengths)
        for number in range(length)
    ]
    return SceneData("hall", Path("hall"), Camera(80, 60, 60, 60, 40, 30), {"train": frames, "test": []})


@given(st.lists(st.integers(1, 1200), min_size=1, max_size=4), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_runs_of_neighbours_are_held_out(lengths, share):
    scene = scene_of(*lengths)
    split = scene.holding_out(share)
    kept, held = split.splits["train"], split.splits[HOLDOUT]
    assert {frame.name for frame in kept} | {frame.name for frame in held} == {
        frame.name for frame in scene.splits["train"]
    }
    assert len(kept) + len(held) == sum(lengths)
    for sequence, length in enumerate(lengths):
        numbers = [frame.timestamp for frame in held if frame.sequence == str(sequence)]
        if share * length < SHORTEST_RUN - 0.5:
            assert numbers == []
            continue
        assert share * length * 0.8 - 1 <= len(numbers) <= share * length + 1
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        if share < 0.4:  # else the ends of runs may meet
            assert all(SHORTEST_RUN <= len(frames) <= LONGEST_RUN for frames in runs)


def test_sequences_hold_out_different_places():
    held = scene_of(100, 100, 100).holding_out(0.1).splits[HOLDOUT]
    places = [{frame.timestamp for frame in held if frame.sequence == str(sequence)} for sequence in range(3)]
    assert not places[0] & places[1] and not places[1] & places[2] and not places[0] & places[2]


def test_nothing_is_held_out_on_request():
    split = scene_of(1000).holding_out(0.0)
    assert (len(split.splits["train"]), split.splits[HOLDOUT]) == (1000, [])


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1000))
@settings(max_examples=30)
def test_the_inflation_is_the_factor_that_was_missing(seed, factor):
    errors = chi2.rvs(6, size=400, random_state=seed) * factor
    assert inflation_of(errors) == pytest.approx(factor, rel=0.25)
    assert inflation_of(2 * errors) == pytest.approx(2 * inflation_of(errors))


def test_errors_with_a_tail_are_mostly_covered():
    """As a network's: wider than a chi-square, and now and then far off."""
    random = np.random.default_rng(0)
    errors = 8 * chi2.rvs(6, size=300, random_state=0) * np.exp(random.normal(0, 0.5, 300))
    errors[::50] *= 20
    assert 0.85 <= np.mean(errors / inflation_of(errors) <= WITHIN_95) <= 0.99


def test_training_leaves_frames_out_and_calibrates_on_them(room, checkpoint):
    manifest = load_manifest(checkpoint)
    frames = len(load_scene(room).frames("train"))
    calibration = manifest.calibration("room_1")
    assert calibration.is_calibrated
    assert manifest.scene("room_1").frames == frames - calibration.frames == 180
    assert calibration.inflation > 1
    assert calibration.poses <= calibration.frames
    assert 0 < calibration.inlier_share < 0.7


def test_unseen_frames_are_covered(room, checkpoint):
    """The drive for testing took another way than those that the inflation is from.

    Bounds allow for chance, with 60 frames held out and 120 tested; scripts/covariance.py has narrow ones.
    """
    evaluation = evaluate_scene(Localizer(checkpoint, "cpu"), load_scene(room), "test")
    errors = np.array([result.normalised_error for result in evaluation.results if result.normalised_error])
    assert len(errors) > 80
    assert 0.8 <= np.mean(errors <= WITHIN_95) <= 0.999
    assert np.median(errors) > 0.5  # a covariance that covers all by being huge would have far less


def test_a_calibration_stays_with_the_model(checkpoint, tmp_path):
    manifest = load_manifest(checkpoint)
    model = load_model(checkpoint, manifest, torch.device("cpu"))
    save_deployment(tmp_path / "robot.safetensors", manifest, model)
    assert load_manifest(tmp_path / "robot.safetensors").calibration("room_1") == manifest.calibration(
        "room_1"
    )


def test_the_command_replaces_a_calibration(room, checkpoint):
    before = load_manifest(checkpoint)
    result = CliRunner().invoke(app, ["calibrate", str(checkpoint), str(room), "--json", "-"])
    try:
        after = load_manifest(checkpoint)
        (written,) = json.loads(result.stdout)
        assert written.pop("scenes") == ["room_1"]
        assert Calibration(**written) == after.calibration("room_1") != before.calibration("room_1")
        assert after.calibration("room_1").frames == 120
        assert after.weights == before.weights
        again = calibrated(Localizer(checkpoint, "cpu"), [load_scene(room)], "test")  # another is in force
        assert again.calibration("room_1").inflation == pytest.approx(written["inflation"])
    finally:
        save_manifest(checkpoint, before)


def test_the_latest_training_of_a_scene_counts(untrained):
    manifest = load_manifest(untrained)
    assert manifest.calibration("a") is UNCALIBRATED
    assert not UNCALIBRATED.is_calibrated
    first = manifest.training.model_copy(update={"calibration": CALIBRATION})
    later = first.model_copy(
        update={"scenes": ["c"], "calibration": CALIBRATION.model_copy(update={"inflation": 5.0})}
    )
    scenes = [*manifest.scenes, manifest.scenes[0].model_copy(update={"name": "c"})]
    grown = manifest.model_copy(update={"scenes": scenes, "trainings": [first, later]})
    assert [grown.calibration(name).inflation for name in "ac"] == [3.0, 5.0]
    later.calibration = None
    assert grown.calibration("c") is UNCALIBRATED


def test_its_own_calibration_counts_before_that_of_its_training(untrained):
    manifest = load_manifest(untrained)
    manifest.training.calibration = CALIBRATION
    own = CALIBRATION.model_copy(update={"inflation": 9.0})
    a, b = manifest.scenes
    known = manifest.model_copy(update={"scenes": [a.model_copy(update={"calibration": own}), b]})
    assert [known.calibration(name).inflation for name in "ab"] == [9.0, 3.0]


def test_a_scene_that_goes_leaves_the_calibration(untrained, tmp_path):
    manifest = load_manifest(untrained)
    manifest.training.calibration = CALIBRATION
    save_manifest(untrained, manifest)
    remove_scenes(untrained, ["b"], tmp_path / "less")
    assert load_manifest(tmp_path / "less").calibration("a") == CALIBRATION


def test_a_calibration_comes_along_with_whichever_model_has_it(untrained, tmp_path):
    shutil.copytree(untrained, tmp_path / "calibrated")
    manifest = load_manifest(untrained)
    manifest.scenes[0].calibration = CALIBRATION
    save_manifest(tmp_path / "calibrated", manifest)
    merge([untrained, tmp_path / "calibrated"], tmp_path / "later")
    merge([tmp_path / "calibrated", untrained], tmp_path / "earlier")
    for name in ("later", "earlier"):
        merged = load_manifest(tmp_path / name)
        assert merged.calibration("a") == CALIBRATION
        assert merged.calibration("b") is UNCALIBRATED


def test_a_checkpoint_of_before_has_none(untrained):
    path = untrained / MANIFEST
    content = json.loads(path.read_text())
    del content["trainings"][0]["calibration"]
    path.write_text(json.dumps(content))
    assert load_manifest(untrained).calibration("a") is UNCALIBRATED


def test_few_frames_are_said_not_to_do(checkpoint, room):
    scene = load_scene(room)
    scene.splits["few"] = scene.frames("test")[: FEWEST - 1]
    with pytest.raises(DataError, match=f"of the {FEWEST - 1} few frames of room_1.*{FEWEST} are needed"):
        calibrated(Localizer(checkpoint, "cpu"), [scene], "few")


def test_a_scene_of_few_frames_is_calibrated_with_the_others(checkpoint, room):
    manifest = load_manifest(checkpoint)
    twin = manifest.scenes[0].model_copy(update={"name": "twin", "shares_with": "room_1"})
    training = manifest.training.model_copy(update={"scenes": ["room_1", "twin"], "calibration": None})
    localizer = Localizer(checkpoint, "cpu")
    localizer.model.add_scene("twin", "room_1")
    localizer.manifest = manifest.model_copy(
        update={"scenes": [manifest.scenes[0], twin], "trainings": [training]}
    )
    scene = load_scene(room)
    few = dataclasses.replace(scene, name="twin", splits={"test": scene.frames("test")[::24]})
    found = calibrated(localizer, [scene, few], "test")
    assert found.scene("room_1").calibration is not None and found.scene("twin").calibration is None
    assert found.calibration("room_1").frames == 120
    assert found.calibration("twin").frames == 125
    assert found.calibration("twin") == found.training.calibration != found.calibration("room_1")
    # What a scene had of its own does not outlive frames that are too few for it.
    localizer.manifest = found.model_copy(
        update={"scenes": [found.scenes[0], twin.model_copy(update={"calibration": CALIBRATION})]}
    )
    assert calibrated(localizer, [scene, few], "test").scene("twin").calibration is None


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda folder: next(folder.glob("weights-*")), "ofvl deploy"),
        (lambda folder: folder / "missing", "does not exist"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(untrained, spoil, said):
    before = (untrained / MANIFEST).read_text()
    result = CliRunner().invoke(app, ["calibrate", str(spoil(untrained)), str(untrained.parent / "a")])
    assert isinstance(result.exception, CheckpointError)
    assert said in str(result.exception)
    assert (untrained / MANIFEST).read_text() == before


def test_an_unfinished_training_is_refused(untrained):
    manifest = load_manifest(untrained)
    manifest.training.finished = False
    save_manifest(untrained, manifest)
    result = CliRunner().invoke(app, ["calibrate", str(untrained), str(untrained.parent / "a")])
    assert isinstance(result.exception, CheckpointError)
    assert "not finished" in str(result.exception)
