"""The benchmarks' common parts, and the opponent that ours is measured against. No test asserts a time."""

import json
from dataclasses import replace

import accuracy
import document
import harness
import numpy as np
import pytest
import torch
from accuracy import OURS, STATISTICS, THEIRS, Comparison, Estimate, verdict
from harness import Table, Timing, bootstrap, interleaved, ratio
from structure_based import StructureMap, depths_at, detect

from ofvl_core.camera import Camera
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.robot import load_robot
from ofvl_core.geometry import pose_error
from ofvl_core.localizer import Cells, Localization
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train


def test_an_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(40):
        low, high = bootstrap(random.normal(3.0, 1.0, 40), np.mean)
        held += low <= 3.0 <= high
    assert 34 <= held <= 40


def test_an_interval_of_pairs_is_narrower_than_of_each():
    random = np.random.default_rng(2)
    frames = random.normal(0, 1, 50)  # how hard each frame is, for both
    pairs = np.stack([frames, frames + 0.1 + random.normal(0, 0.05, 50)], axis=1)
    low, high = bootstrap(pairs, lambda rows: np.mean(rows[:, 1]) - np.mean(rows[:, 0]))
    assert 0 < low < 0.1 < high < 0.2


def test_failures_are_no_harm_to_an_interval():
    low, high = bootstrap(np.array([1.0, 2.0, 3.0, np.inf]), np.median)
    assert low >= 1
    assert high == np.inf
    assert np.isnan(bootstrap(np.array([np.nan, np.nan]), np.median)).all()


def test_contestants_take_turns_and_none_is_always_first():
    called: list[str] = []
    timings = interleaved({name: lambda name=name: called.append(name) for name in "abc"}, 3, warm_up=1)
    assert "".join(called) == "abcbcacababc"
    assert {name: timing.milliseconds.shape for name, timing in timings.items()} == dict.fromkeys("abc", (3,))


def test_a_ratio_is_of_the_calls_of_one_round():
    fast = Timing(np.array([1.0, 2.0, 10.0, 4.0]))
    middle, low, high = ratio(Timing(3 * fast.milliseconds), fast)
    assert (middle, low, high) == pytest.approx((3, 3, 3))
    assert (fast.median, fast.p95) == pytest.approx((3.0, 9.1))


def test_results_are_read_as_they_were_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    table = Table(
        "Times", ["what", "ms", "n"], [["ours | half", 12.3456, None], ["theirs", 1234.5, 7]], "Short."
    )
    figures = {"median": np.float64(1.5), "none": np.inf, "nested": {"interval": (1, np.nan)}}
    harness.write("speed", "benchmarks/harness.py --rounds 2", [table], figures)
    content = json.loads((tmp_path / "speed.json").read_text())
    assert content["figures"] == {"median": 1.5, "none": None, "nested": {"interval": [1, None]}}
    assert Table(**content["tables"][0]) == table
    assert {"computed_by", "gpu", "openvino", "date"} <= set(content)
    printed = capsys.readouterr().out
    assert "| ours \\| half | 12.3 | - |\n| theirs | 1234 | 7 |\n\nShort.\n" in printed
    page = document.page([tmp_path / "speed.json"])
    assert printed.strip() in page
    assert "## What all benchmarks share: calls timed in turn" in page


def test_recordings_that_are_absent_end_the_program_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "DATA", tmp_path)
    assert harness.recordings() == tmp_path
    with pytest.raises(SystemExit, match="nowhere is not there: set OFVL_DATA"):
        harness.recordings("nowhere")


def test_the_page_is_what_the_results_say():
    results = list(harness.RESULTS.glob("*.json"))
    assert document.PAGE.read_text() == document.page(results), "run benchmarks/document.py"


def test_a_command_that_names_no_script_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"command": "python a.py"}')
    with pytest.raises(ValueError, match="names no script"):
        document.page([tmp_path / "a.json"])


CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)


def test_a_point_on_an_edge_has_no_depth():
    depth = np.full((48, 64), 2.0)
    depth[:, 30:] = 3.0
    depth[20:30, 10:20] = np.nan
    depth[40, 5] = 0.0
    pixels = np.array([[10.0, 10.0], [29.0, 10.0], [40.0, 10.0], [15.0, 25.0], [5.0, 40.0], [0.0, 0.0]])
    known = depths_at(depth, pixels, CAMERA, 0.05)
    np.testing.assert_array_equal(known, [2.0, np.nan, 3.0, np.nan, 2.0, np.nan])


def test_depth_of_another_size_is_read_where_the_pixel_lies():
    depth = np.repeat(np.linspace(1.0, 2.0, 32)[None], 24, axis=0)
    known = depths_at(depth, np.array([[20.5, 20.0], [40.5, 20.0]]), CAMERA, 0.2)
    np.testing.assert_allclose(known, depth[0, [10, 20]])


def test_an_image_of_one_colour_has_no_points():
    pixels, descriptors = detect(np.full((48, 64, 3), 100, np.uint8), 100, 0.01)
    assert (pixels.shape, descriptors.shape) == ((0, 2), (0, 128))


@pytest.fixture(scope="module")
def room(tiny_scenes):
    """A simulated room whose frames are split anew: every other one is a query."""
    scene = load_scene(tiny_scenes[0])
    frames = scene.frames("train")
    return replace(scene, splits={"train": frames[::2], "test": frames[1::2]})


@pytest.fixture(scope="module")
def structure(room):
    return StructureMap.build(room)


@pytest.mark.parametrize("with_depth", [False, True])
def test_the_opponent_finds_its_way(room, structure, with_depth):
    errors = []
    for frame in room.frames("test"):
        depth = room.read_depth(frame) / 1000 if with_depth else None
        pose = structure.localize(room.read_color(frame), depth)
        errors.append((np.inf, np.inf) if pose is None else pose_error(pose, frame.world_from_camera))
    metres, degrees = np.median(errors, axis=0)
    assert metres < 0.03
    assert degrees < 1


def test_the_opponent_says_the_same_of_the_same(room, structure):
    image = room.read_color(room.frames("test")[0])
    again = StructureMap.build(room)
    np.testing.assert_array_equal(again.localize(image), structure.localize(image))
    assert again.megabytes == structure.megabytes == pytest.approx(len(structure.observed.points) * 140e-6)


def test_the_opponent_is_silent_where_it_knows_nothing(structure):
    blank = np.full((structure.camera.height, structure.camera.width, 3), 128, np.uint8)
    assert structure.localize(blank) is None
    noise = np.random.default_rng(0).integers(0, 255, blank.shape, np.uint8)
    assert structure.localize(noise) is None


def comparison(ours, theirs) -> Comparison:
    timings = {OURS: Timing(np.array([1.0, 2.0])), THEIRS: Timing(np.array([2.0, 4.0]))}
    errors = {OURS: np.array(ours, float), THEIRS: np.array(theirs, float)}
    believed = np.array([metres < 0.5 for metres, _ in ours])
    return Comparison("redkitchen", errors, believed, timings, {OURS: 1.5, THEIRS: 20.0})


def test_poses_that_nobody_would_publish_are_not_counted():
    some, none = ([(0.02, 1), (0.04, 1), (0.6, 9), (np.inf, np.inf)], [(0.7, 9)] * 4)
    table = accuracy.belief_table([comparison(found, found) for found in (some, none)])
    assert table.rows == [["redkitchen", 4, 2, pytest.approx(3), 4], ["redkitchen", 4, 0, None, None]]


def test_statistics_of_errors():
    errors = np.array([(0.05, 5.0), (0.051, 1.0), (0.01, 5.1), (np.inf, np.inf)])
    said = {name: statistic(errors) for name, statistic in STATISTICS.items()}
    assert said == pytest.approx(
        {"median_m": 0.0505, "median_deg": 5.05, "within_5cm_5deg": 0.25, "within_10cm_5deg": 0.5}
    )


def test_better_in_every_frame_is_better_beyond_the_interval():
    random = np.random.default_rng(0)
    theirs = random.uniform(0.02, 0.1, (40, 2))
    one = comparison(0.5 * theirs, theirs)
    differences = one.differences(with_depth=False)
    assert verdict("median_m", differences["median_m"]) == "better"
    assert verdict("within_5cm_5deg", differences["within_5cm_5deg"]) == "better"
    assert accuracy.is_ahead(differences)
    other = comparison(theirs, 0.5 * theirs).differences(with_depth=False)
    assert verdict("median_deg", other["median_deg"]) == "worse"
    there, back = differences["median_m"], other["median_m"]
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))


def test_a_difference_that_may_be_none_stays_open():
    assert verdict("median_m", Estimate(-0.01, -0.02, 0.0)) == "open"
    assert verdict("within_5cm_5deg", Estimate(-0.1, -0.2, -0.01)) == "worse"
    failed = comparison([(np.inf, np.inf)] * 3, [(0.01, 1.0)] * 3).differences(with_depth=False)
    assert verdict("median_m", failed["median_m"]) == "worse"


def test_goals_are_met_or_missed_by_so_much():
    table = accuracy.goal_table([comparison([(0.02, 1)] * 9 + [(0.2, 1)], [(0.04, 2)] * 10)], depth=False)
    assert table.rows[0][-1] == "yes"
    assert table.rows[1][1:] == ["within 5 cm, 5 deg, %", 90.0, 90.0, "yes"]
    worse = accuracy.goal_table([comparison([(0.04, 3)] * 10, [(0.02, 2)] * 10)], depth=False)
    assert worse.rows[0][-1] == "no, by 1"
    assert "redkitchen: worse in cm, deg" in worse.note


def test_odometry_carries_poses_between_fixes(tiny_scenes):
    scene = load_scene(tiny_scenes[0])
    frames, robot = scene.frames("train"), load_robot(scene.root)
    cells = Cells(np.zeros((4, 2)), np.zeros((4, 3)), np.ones(4), np.ones(4, bool), 2)
    found = [
        Localization(scene.name, frame.world_from_camera, 1e-4 * np.eye(6), 0.01, None, cells)
        for frame in frames
    ]
    found[4] = replace(found[4], world_from_camera=None, covariance=None, reason="dark")
    poses = accuracy.filtered(found, frames, scene.root, robot)
    assert poses[0] is None  # one fix may be wrong
    for frame, pose in list(zip(frames, poses, strict=True))[1:]:
        metres, degrees = pose_error(pose, frame.world_from_camera)
        assert metres < 0.03
        assert degrees < 1.5


def test_a_model_is_compared_in_its_scenes(tiny_scenes, tmp_path, monkeypatch):
    """One that has learnt nothing: its poses are missing or wrong, and count. Keyframes do without."""
    config = TrainConfig(iterations=2, batch_size=2)
    assert train([load_scene(tiny_scenes[0])], config, tmp_path / "model", Surroundings(torch.device("cpu")))
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    accuracy.main(tmp_path / "model", tiny_scenes[0].parent, split="train", depth=True)
    content = json.loads((tmp_path / "accuracy_simulated.json").read_text())
    said = content["figures"]["room_1"]
    methods = [OURS, THEIRS, OURS + accuracy.WITH_DEPTH, THEIRS + accuracy.WITH_DEPTH]
    assert set(said["milliseconds"]) == set(methods)
    alone = OURS + accuracy.ALONE
    assert set(said["methods"]) == {*methods, OURS + accuracy.FILTERED, alone, alone + accuracy.WITH_DEPTH}
    shares = {name: method["within_10cm_5deg"][0] for name, method in said["methods"].items()}
    assert shares[alone] == shares[alone + accuracy.WITH_DEPTH] == 0
    assert min(shares[OURS], shares[THEIRS]) > 0.5
    assert said["megabytes"][OURS] < 10
    assert said["believed"] > 4
    assert [len(table["rows"]) for table in content["tables"]] == [7, 1, 2]
