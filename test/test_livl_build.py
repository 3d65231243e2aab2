"""Simulated drives, built into a data set and held against their exact truth."""

import json
from pathlib import Path

import numpy as np
import pytest

from ofvl_core.datasets import load_scene
from ofvl_core.datasets.check import check_scene
from ofvl_core.errors import DataError
from ofvl_core.geometry import pose_error
from ofvl_core.livl.build import build
from ofvl_core.livl.comparison import aligned
from ofvl_core.livl.options import Options
from ofvl_core.livl.selection import Spacing
from ofvl_core.simulation.livl import simulate_livl
from ofvl_core.simulation.rgbd import D435_COLOUR
from ofvl_core.stamped_path import StampedPath
from ofvl_core.trajectory import read_tum

SCENE = "Parking_lot1"
SPARSE = Spacing(metres=0.3, radians=0.2)


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> list[Path]:
    """Two drives through one place, with a small camera."""
    out = tmp_path_factory.mktemp("simulated")
    return simulate_livl(
        out, scenes=(SCENE,), sequences=2, seconds=9.0, camera=D435_COLOUR.resized(160, 120), seed=3
    )


@pytest.fixture(scope="module")
def built(bags, tmp_path_factory) -> Path:
    """Their data set, with the calibration refined."""
    return build(bags, tmp_path_factory.mktemp("built"), SCENE, Options(refine_calibration=True))


def truth(bags: list[Path], kind: str) -> dict[str, StampedPath]:
    paths = {}
    for bag in bags:
        seconds, poses = read_tum(bag.parent / "truth" / f"{bag.name}.{kind}.txt")
        paths[bag.name] = StampedPath(np.round(seconds * 1e9).astype(np.int64), poses)
    return paths


def errors(root: Path, bags: list[Path]) -> np.ndarray:
    """Metres and degrees of every frame's pose, all sequences aligned to the truth together."""
    scene, manifest = load_scene(root), json.loads((root / "manifest.json").read_text())
    sequences = {each["name"]: each for each in manifest["sequences"]}
    true = truth(bags, "camera")
    estimated, exact = [], []
    for frame in [*scene.frames("train"), *scene.frames("test")]:
        sequence = sequences[frame.sequence]
        stamp = sequence["start_stamp"] + round(frame.timestamp * 1e9)
        estimated.append(frame.world_from_camera)
        exact.append(true[Path(sequence["bag"]).name].at(np.array([stamp]))[0])
    moved = aligned(np.array(exact), np.array(estimated)) @ np.array(estimated)
    return np.array([pose_error(*pair) for pair in zip(moved, exact, strict=True)])


def test_its_poses_are_right(built, bags):
    found = errors(built, bags)
    assert len(found) > 40
    assert np.sqrt(np.mean(found[:, 0] ** 2)) < 0.03
    assert np.sqrt(np.mean(found[:, 1] ** 2)) < 0.5


def test_the_clocks_are_brought_together(built):
    for drive in json.loads((built / "manifest.json").read_text())["drives"]:
        assert drive["time_offset"]["seconds"] == pytest.approx(-0.03, abs=0.01)


def test_the_last_drive_is_for_testing(built):
    scene = load_scene(built)
    assert {frame.sequence for frame in scene.frames("train")} == {"seq-01"}
    assert {frame.sequence for frame in scene.frames("test")} == {"seq-02"}


def test_depth_and_poses_fit_one_another(built):
    report = check_scene(built)
    assert report.usable
    # Two short drives hardly see the same; all else must be right.
    assert all("test views" in problem.text for problem in report.problems)


def test_the_world_is_where_the_robot_started_upright(built):
    """z points up: the camera keeps its height."""
    heights = np.array([frame.world_from_camera[2, 3] for frame in load_scene(built).frames("train")])
    np.testing.assert_allclose(heights, 0.8, atol=0.05)


def test_the_report_shows_what_was_done(built):
    page = (built / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert page.count("data:image/jpeg") >= 4
    assert "seq-01" in page and "From above" in page
    assert 'src="http' not in page


def test_a_wrong_calibration_is_noticed_and_can_be_mended(built, bags):
    fit = json.loads((built / "manifest.json").read_text())["lidar_on_depth"]
    recorded = json.loads((bags[0].parent / "truth" / "truth.json").read_text())
    true, wrong = np.array(recorded["base_from_lidar"]), np.array(recorded["recorded_base_from_lidar"])
    assert np.linalg.norm(fit["correction_deg"]) == pytest.approx(pose_error(true, wrong)[1], abs=0.35)


def test_nothing_is_overwritten_unasked(built, bags):
    with pytest.raises(DataError, match="exists already; give --overwrite"):
        build(bags, built.parent, SCENE, Options())
