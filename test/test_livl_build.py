"""Simulated drives, built into a data set and held against their exact truth."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ofvl_core.datasets import load_scene
from ofvl_core.datasets.check import check_scene
from ofvl_core.errors import ConfigError, DataError
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


def options(bags: list[Path], **others) -> Options:
    """Poses from the truth, which is quick."""
    return Options(poses=str(bags[0].parent / "poses"), compare="none", spacing=SPARSE, **others)


@pytest.fixture(scope="module", autouse=True)
def poses_in_files(bags) -> None:
    folder = bags[0].parent / "poses"
    folder.mkdir()
    for bag in bags:
        shutil.copy(bag.parent / "truth" / f"{bag.name}.lidar.txt", folder / f"{bag.name}.txt")


def test_poses_may_come_from_files(bags, tmp_path):
    root = build(bags, tmp_path, SCENE, options(bags))
    assert np.median(errors(root, bags)[:, 0]) < 0.03
    drives = json.loads((root / "manifest.json").read_text())["drives"]
    # Both are in the truth's frame, and stay there.
    for drive in drives:
        np.testing.assert_allclose(drive["world_from_trajectory"], np.eye(4), atol=1e-6)


def test_an_interrupted_build_goes_on_and_ends_alike(bags, tmp_path):
    doing: list[str] = []

    def interrupt(what: str, done: int, total: int | None) -> None:
        doing.append(what)
        if what == "writing frames" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bags, tmp_path / "a", SCENE, options(bags), progress=interrupt)
    assert not (tmp_path / "a" / SCENE).exists()
    doing.clear()
    going_on = build(bags, tmp_path / "a", SCENE, options(bags), progress=lambda what, *_: doing.append(what))
    assert not any("looking at images" in what for what in doing)
    at_once = build(bags, tmp_path / "b", SCENE, options(bags))
    names = {path.relative_to(at_once) for path in at_once.rglob("*")}
    assert {path.relative_to(going_on) for path in going_on.rglob("*")} == names
    for name in sorted(names):
        if (at_once / name).is_file() and name.suffix != ".html":
            assert (at_once / name).read_bytes() == (going_on / name).read_bytes(), name
    assert [path.name for path in (tmp_path / "a").iterdir()] == [SCENE]


def test_other_options_begin_anew(bags, tmp_path):
    def stop(what: str, done: int, total: int | None) -> None:
        if what == "writing frames":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bags, tmp_path, SCENE, options(bags), progress=stop)
    doing: list[str] = []
    build(
        bags, tmp_path, SCENE, options(bags, time_offset=-0.03), progress=lambda what, *_: doing.append(what)
    )
    assert any("looking at images" in what for what in doing)


def test_the_user_names_the_test_drive(bags, tmp_path):
    scene = load_scene(build(bags, tmp_path, SCENE, options(bags, test=("seq-01",))))
    assert {frame.sequence for frame in scene.frames("test")} == {"seq-01"}


def test_a_single_drive_is_for_training_and_says_so(bags, tmp_path):
    root = build(bags[:1], tmp_path, SCENE, options(bags))
    assert any("testing" in text for text in json.loads((root / "manifest.json").read_text())["warnings"])


@pytest.mark.parametrize(
    ("others", "error", "named"),
    [
        ({"test": ("seq-09",)}, ConfigError, "no such bag; choose of seq-01, seq-02"),
        ({"topics": {"cloud": "/nothing"}}, DataError, "no topic /nothing; it holds"),
        ({"topics": {"cloud": "/odom"}}, DataError, "cannot be the cloud topic"),
        ({"topics": {"colour": "/odom"}}, ConfigError, "unknown role"),
        ({"calibration": Path("missing.yaml")}, DataError, "missing.yaml"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(bags, tmp_path, others, error, named):
    with pytest.raises(error, match=named) as raised:
        build(bags, tmp_path / "out", SCENE, options(bags, **others))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / SCENE).exists()


@pytest.mark.parametrize(
    ("poses", "error", "named"),
    [
        ("nonsense", ConfigError, "is no source of poses"),
        ("topic", DataError, "/aft_mapped_to_init"),
        ("/odometry", DataError, "no topic /odometry with poses"),
        ("/velodyne_points", DataError, "holds no poses"),
        ("tf:map,velodyne", DataError, "'map'"),
    ],
)
def test_a_source_of_poses_that_is_not_there_is_named(bags, tmp_path, poses, error, named):
    with pytest.raises(error, match=named):
        build(bags, tmp_path, SCENE, Options(poses=poses, compare="none"))


def test_recorded_odometry_can_be_the_source_and_the_comparison(bags, tmp_path):
    chosen = Options(poses="tf:odom,base_link", compare="/odom", spacing=SPARSE, time_offset=-0.03)
    root = build(bags[:1], tmp_path, SCENE, chosen)
    (drive,) = json.loads((root / "manifest.json").read_text())["drives"]
    assert drive["second_opinion"]["position_rmse"] < 1e-3
