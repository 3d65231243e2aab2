"""Trajectories of other systems: their formats, how poses find their truth, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import write_scene
from scipy.spatial.transform import Rotation
from test_cli import ofvl, refused

from ofvl_core.association import name_parts
from ofvl_core.cli.score import score as score_command
from ofvl_core.datasets import load_scene
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import pose_error
from ofvl_core.score import score
from ofvl_core.trajectory import read_trajectory

reuse = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**32 - 1)


def random_poses(seed: int, count: int = 6, spread: float = 3.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    poses[:, :3, 3] = random.normal(scale=spread, size=(count, 3))
    return poses


def nearby(poses: np.ndarray, seed: int, metres: float = 0.05, radians: float = 0.05) -> np.ndarray:
    """Each pose a little off in its own frame."""
    random = np.random.default_rng(seed)
    result = poses.copy()
    result[:, :3, :3] @= Rotation.from_rotvec(random.normal(scale=radians, size=(len(poses), 3))).as_matrix()
    result[:, :3, 3] += random.normal(scale=metres, size=(len(poses), 3))
    return result


def names(count: int) -> list[str]:
    return [f"seq-03/frame-{number:06d}.color.png" for number in range(count)]


def tum(poses, stamps=None):
    stamps = np.arange(len(poses)) / 30 if stamps is None else stamps
    numbers = [
        [t, *p[:3, 3], *Rotation.from_matrix(p[:3, :3]).as_quat()] for t, p in zip(stamps, poses, strict=True)
    ]
    return "# a comment\n" + "".join(" ".join(map(repr, map(float, row))) + "\n" for row in numbers)


def kitti(poses):
    return "".join(" ".join(map(repr, pose[:3].ravel().tolist())) + "\n" for pose in poses)


def named(poses, labels=None, more=""):
    """World to camera, w first, as the published estimates are."""
    rows = []
    for label, pose in zip(labels or names(len(poses)), poses, strict=True):
        camera_from_world = np.linalg.inv(pose)
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat()
        numbers = map(repr, map(float, (w, x, y, z, *camera_from_world[:3, 3])))
        rows.append(f"{label} {' '.join(numbers)}{more}\n")
    return "".join(rows)


@pytest.fixture
def write(tmp_path):
    def to(name: str, text: str):
        path = tmp_path / name
        path.write_text(text)
        return path

    return to


@reuse
@given(seeds)
def test_formats_are_recognised_and_read(write, seed):
    poses = random_poses(seed)
    for form, text in (
        ("TUM", tum(poses)),
        ("KITTI", kitti(poses)),
        ("name", named(poses)),
        ("name", named(poses, more=" 525.0")),  # ground truth with a focal length
        ("name", named(poses, more=" 0.65 0.02 4711")),  # ACE: errors and inliers
    ):
        read = read_trajectory(write("poses.txt", text))
        assert read.format == form
        assert np.allclose(read.poses, poses, atol=1e-9)
    assert read.names == names(len(poses))
    assert np.allclose(read_trajectory(write("poses.txt", tum(poses))).stamps, np.arange(len(poses)) / 30)


@reuse
@given(seeds)
def test_every_format_gives_the_same_numbers(write, seed):
    true = random_poses(seed)
    estimated = nearby(true, seed)
    summaries = [
        score(write("estimate.txt", form(estimated)), write("truth.txt", form(true)))[0].summary()
        for form in (tum, kitti, named)
    ]
    for summary in summaries[1:]:
        for key, value in summary.items():
            expected = summaries[0][key]
            assert value == (
                pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected
            ), key


@reuse
@given(seeds, seeds)
def test_errors_do_not_depend_on_the_world_frame(write, seed, other):
    true = random_poses(seed)
    estimated = nearby(true, seed)
    here, _ = score(write("estimate.txt", named(estimated)), write("truth.txt", named(true)))
    move = random_poses(other, 1)[0]
    there, _ = score(write("estimate.txt", named(move @ estimated)), write("truth.txt", named(move @ true)))
    assert there.errors == pytest.approx(here.errors, abs=1e-6)
    assert here.errors == pytest.approx(
        np.array([pose_error(*pair) for pair in zip(estimated, true, strict=True)]), abs=1e-6
    )


def test_nothing_is_aligned(write):
    true = random_poses(0)
    shifted = true.copy()
    shifted[:, 0, 3] += 1.0
    evaluation, _ = score(write("estimate.txt", tum(shifted)), write("truth.txt", tum(true)))
    assert evaluation.errors[:, 0] == pytest.approx(np.ones(6))


def test_names_are_world_to_camera(write):
    """A row by hand: the camera sits at (1, 2, 3) and is turned by 90 degrees about z."""
    half = np.sqrt(0.5)
    pose = read_trajectory(write("poses.txt", f"a.png {half} 0 0 {half} 2 -1 -3\n")).poses[0]
    assert pose[:3, 3] == pytest.approx([1, 2, 3])
    assert pose[:3, 0] == pytest.approx([0, -1, 0])


@pytest.mark.parametrize("form", [tum, named])
def test_missing_estimates_are_failures_and_others_are_counted(write, form):
    true = random_poses(1, 8)
    keys = {"stamps": np.arange(8.0)} if form is tum else {"labels": names(8)}
    part = [5, 0, 2, 7, 4]  # in any order
    (key, values), *_ = keys.items()
    estimate = write("estimate.txt", form(true[part], **{key: [values[row] for row in part]}))
    truth = write("truth.txt", form(true[:6], **{key: values[:6]}))
    evaluation, unmatched = score(estimate, truth)
    summary = evaluation.summary()
    assert (summary["frames"], summary["poses"], summary["failures"], unmatched) == (6, 4, 2, 1)
    assert summary["within_5cm_5deg"] == pytest.approx(4 / 6)
    assert np.isinf(evaluation.errors[[1, 3], 0]).all()


def test_stamps_belong_to_their_nearest_within_the_tolerance(write):
    true = random_poses(2, 4)
    truth = write("truth.txt", tum(true, [10.0, 10.1, 10.2, 10.3]))
    estimate = write("estimate.txt", tum(true, [10.004, 10.12, 10.2, 10.196]))
    evaluation, unmatched = score(estimate, truth)
    found = np.isfinite(evaluation.errors[:, 0])
    assert found.tolist() == [True, False, True, False]
    assert unmatched == 2
    assert evaluation.errors[found, 0] == pytest.approx([0, 0])
    assert score(estimate, truth, tolerance=0.05)[0].summary()["poses"] == 3
    one_estimate = write("estimate.txt", tum(true[:1], [10.001]))
    two_near = write("truth.txt", tum(true[:2], [10.0, 10.004]))
    assert np.isfinite(score(one_estimate, two_near)[0].errors[:, 0]).tolist() == [True, False]


def test_names_match_without_endings_and_folders(write):
    assert name_parts("seq-03/frame-000000.color.png") == name_parts("seq-03-frame-000000.jpg")
    assert name_parts("1305031102.175304.png") == ("1305031102.175304",)
    true = random_poses(3, 3)
    truth = write("truth.txt", named(true, [f"data/frame-{n:06d}.color.jpg" for n in range(3)]))
    for labels in (
        ["frame-000000", "frame-000001", "frame-000002"],
        [f"scene/data/frame-00000{n}" for n in "012"],
    ):
        assert score(write("estimate.txt", named(true, labels)), truth)[0].summary()["poses"] == 3
    with pytest.raises(DataError, match="not alone in fitting"):
        score(write("estimate.txt", named(true[:2], ["hall/data/frame-000001", "frame-000001"])), truth)


def test_a_scene_folder_is_a_truth_in_every_format(tmp_path, write):
    root = write_scene(tmp_path / "hall", sequences=2)
    frames = load_scene(root).frames("test")
    true = np.array([frame.world_from_camera for frame in frames])
    texts = (
        named(true, [f"{frame.name}.color.png" for frame in frames]),
        tum(true, [frame.timestamp for frame in frames]),
        kitti(true),
    )
    for text in texts:
        evaluation, unmatched = score(write("estimate.txt", text), root)
        assert (evaluation.scene, unmatched) == ("hall", 0)
        assert evaluation.errors == pytest.approx(np.zeros((len(frames), 2)), abs=1e-4)
    (root / "TestSplit.txt").write_text("sequence1\nsequence2\n")
    with pytest.raises(DataError, match="begin anew"):
        score(write("estimate.txt", texts[1]), root)


ROW = "0 0 0 0 0 0 0 1\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no pose"),
        ("# only a comment\n", "holds no pose"),
        ("1 2 3\n", "no known trajectory format"),
        ("a b c d e f g h\n", "no known trajectory format"),
        ("0 0 0 0 0 0 0 1 9\n", "no known trajectory format"),
        (ROW + "1 0 0 0 0 0 1\n", "line 2 is not 't tx ty tz qx qy qz qw'"),
        (ROW + "1 0 0 x 0 0 0 1\n", "line 2 is not"),
        (ROW + "\n1 0 0 nan 0 0 0 1\n", "line 3 holds NaN"),
        ("a.png 1 0 0 0 0 0 0\nb.png 1 0 0 0 0 inf 0\n", "line 2 holds NaN"),
        ("a.png 1 0 0 0 0 0 0\nb.png 1 0 0 0 0 0\n", "line 2 is not 'name qw qx"),
        (ROW + "1 0 0 0 0 0 0 0\n", "quaternion in line 2 has length 0"),
        ("a.png 1 2 3 4 0 0 0\n", "quaternion in line 1 has length 5.48"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0\n", "line 1 is no rotation"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "line 1 is no rotation"),
    ],
)
def test_broken_files_are_named_in_a_sentence(write, text, says):
    path = write("poses.txt", text)
    with pytest.raises(DataError, match=r"poses\.txt") as error:
        read_trajectory(path)
    assert says in str(error.value)


def test_files_that_cannot_be_compared_are_named(write, tmp_path):
    poses = random_poses(4, 3)
    truth = write("truth.txt", tum(poses))

    def sentence(estimate, against=truth):
        with pytest.raises(DataError) as error:
            score(estimate, against)
        return str(error.value)

    assert "cannot be read (No such file" in sentence(tmp_path / "nothing.txt")
    assert "cannot be read (Is a directory" in sentence(tmp_path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    assert "not a text file" in sentence(tmp_path / "image.png")
    assert "a KITTI trajectory but" in sentence(write("estimate.txt", kitti(poses)))
    assert "no pose belongs to any" in sentence(write("estimate.txt", tum(poses, [7.0, 8.0, 9.0])))
    assert "1.000000 s is there 2 times" in sentence(write("estimate.txt", tum(poses, [1.0, 1.0, 2.0])))
    named_truth = write("named.txt", named(poses))
    twice = write("estimate.txt", named(poses, ["seq-03/a.png", "seq-03/a.png", "seq-03/b.png"]))
    assert "seq-03/a.png is there 2 times" in sentence(twice, named_truth)
    kitti_truth = write("kitti.txt", kitti(poses))
    assert "told apart by their place" in sentence(write("estimate.txt", kitti(poses[:2])), kitti_truth)


def test_the_command_prints_what_evaluate_prints(write, tmp_path):
    true = random_poses(5, 4)
    truth = write("chess_test.txt", named(true, more=" 525.0"))
    labels = [*names(3), "seq-09/frame-000000.color.png"]
    estimate = write("estimate.txt", named(nearby(true, 5), labels, more=" 1 2 3"))
    output, errors = ofvl(
        "score", estimate, truth, "--threshold", "1,30", "--json", tmp_path / "s.json", "--report", tmp_path
    )
    content = json.loads((tmp_path / "s.json").read_text())
    (scene,) = content["scenes"]
    assert (scene["scene"], scene["frames"], scene["failures"]) == ("chess_test", 4, 1)
    assert scene["within_1m_30deg"] == 0.75
    assert scene["median_m"] == content["average"]["median_m"]
    assert scene["latency_ms_p50"] is None
    assert content["estimates_without_truth"] == 1
    assert "1m30deg" in output
    assert "1 of 4 estimates" in errors
    assert "seq-03/frame-000003" in (tmp_path / "report.html").read_text()
    assert "cannot be read" in refused("score", tmp_path / "nothing.txt", truth)
    with pytest.raises(ConfigError, match="--tolerance nan"):
        score_command(estimate, truth, tolerance=float("nan"))
