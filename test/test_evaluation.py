"""The numbers of an evaluation: against ones counted by hand, and against evo."""

import json
from pathlib import Path

import numpy as np
import pytest
from evo.core import metrics, sync
from evo.tools import file_interface
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ofvl_core import geometry
from ofvl_core.cli.console import parse_thresholds
from ofvl_core.cli.evaluate import evaluate
from ofvl_core.datasets import Frame
from ofvl_core.errors import ConfigError
from ofvl_core.evaluation import (
    Result,
    SceneEvaluation,
    average,
    cumulative,
    threshold_key,
    write_trajectories,
)
from ofvl_core.report import caption, table_rows, threshold_rows, write_report
from ofvl_core.score import score


def moved(metres: float, degrees: float) -> np.ndarray:
    return geometry.transform_from_rotation_vector([0, 0, np.radians(degrees)], [0, metres, 0])


def evaluation(*errors: tuple[float, float] | None, scene: str = "hall") -> SceneEvaluation:
    """A scene whose queries have these errors; None is a query without a pose."""
    results = [
        Result(str(number), None, np.eye(4), None if error is None else moved(*error), None, "why not")
        for number, error in enumerate(errors)
    ]
    return SceneEvaluation(scene, results, np.empty((0, 4, 4)))


def test_shares_include_bounds_and_need_both_errors():
    # 2**-4 m is exact in floating point; angles of matrices are not
    hall = evaluation((2**-4, 1.0), (0.01, 6.0), (0.2, 1.0), None)
    assert hall.within(2**-4, 1.5) == 1 / 4
    assert hall.within(np.nextafter(2**-4, 0), 1.5) == 0
    assert hall.within(2**-4, 7.0) == 2 / 4
    assert hall.within(1e9, 180.0) == 3 / 4
    summary = hall.summary([(0.1, 10.0)])
    assert [key for key in summary if key.startswith("within")] == ["within_5cm_5deg", "within_10cm_10deg"]
    assert summary["within_10cm_10deg"] == 2 / 4
    assert (summary["frames"], summary["poses"], summary["failures"]) == (4, 3, 1)


def test_covariances_are_honest_when_errors_are_within_them():
    poses = [
        Result(str(n), None, np.eye(4), moved(0.1, 1), None, None, nees)
        for n, nees in enumerate((1.0, 12.5, 13.0))
    ]
    summary = SceneEvaluation("hall", [*poses, *evaluation(None).results], np.empty((0, 4, 4))).summary()
    assert summary["nees_within_95"] == pytest.approx(2 / 3)  # no pose, no claim
    assert evaluation((0.1, 1.0)).summary()["nees_within_95"] is None


def test_medians_are_numpys_and_each_errors_own():
    even = evaluation((0.1, 4.0), (0.2, 3.0), (0.4, 2.0), (0.8, 1.0)).summary()
    assert even["median_m"] == pytest.approx(0.3)  # the mean of the two in the middle
    assert even["median_deg"] == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("errors", "median"),
    [
        ([(0.1, 1.0), (0.2, 1.0), None], 0.2),
        ([(0.1, 1.0), None, None], None),
        ([(0.1, 1.0), (0.2, 1.0), None, None], None),  # the middle is between a pose and a failure
        ([None], None),
    ],
)
def test_failures_push_the_median_up_and_are_never_left_out(errors, median):
    summary = evaluation(*errors).summary()
    assert summary["median_m"] == (None if median is None else pytest.approx(median))
    assert json.dumps(summary, allow_nan=False)


def test_averages_weigh_scenes_not_frames():
    small = evaluation((0.1, 1.0), scene="small").summary()
    large = evaluation(*[(0.03, 3.0)] * 9, scene="large").summary()
    mean = average([small, large])
    assert mean["scene"] == "average"
    assert mean["median_m"] == pytest.approx((0.1 + 0.03) / 2)
    assert mean["median_deg"] == pytest.approx(2.0)
    assert mean["within_5cm_5deg"] == 0.5
    assert mean["frames"] == 10
    assert mean["latency_ms_p50"] is None


def test_a_median_on_a_failure_leaves_no_average_and_a_dash():
    lost = evaluation((0.1, 1.0), None, None, scene="lost").summary()
    found = evaluation((0.1, 1.0), scene="found").summary()
    mean = average([lost, found])
    assert mean["median_m"] is None
    assert mean["median_deg"] is None
    assert mean["within_10cm_5deg"] == pytest.approx((1 / 3 + 1) / 2)
    headings, rows = table_rows([lost, found])
    assert [row[headings.index("cm")] for row in rows] == ["-", "10.0", "-"]
    assert [row[0] for row in rows] == ["lost", "found", "average"]


def test_tables_show_what_was_measured():
    only_poses = evaluation((0.1, 1.0)).summary()
    assert "ms" not in table_rows([only_poses])[0]
    assert "near" not in caption([only_poses])
    timed = only_poses | {"latency_ms_p50": 1.0, "latency_ms_p95": 2.0}
    assert "ms" in table_rows([timed, only_poses])[0]
    headings, rows = threshold_rows([only_poses])
    assert headings == ["within", "2cm2deg", "5cm5deg", "10cm5deg", "25cm2deg", "50cm5deg", "5m10deg"]
    assert rows == [["hall", "0.0%", "0.0%", "100.0%", "100.0%", "100.0%", "100.0%"]]


@given(arrays(float, st.integers(1, 30), elements=st.floats(0, 10) | st.just(np.inf)), st.floats(0, 10))
def test_curves_are_shares_of_all_frames(errors, bound):
    reached, share = cumulative(errors)
    assert (np.diff(share) > 0).all()
    below = np.searchsorted(reached, bound, side="right")
    assert (share[below - 1] if below else 0.0) == np.mean(errors <= bound)


def test_thresholds_as_written():
    assert parse_thresholds(["0.02,2", "1.5,10"]) == [(0.02, 2.0), (1.5, 10.0)]
    assert (0.10, 5.0) in parse_thresholds(None)
    assert threshold_key(0.07, 2.5) == "within_7cm_2.5deg"
    assert threshold_key(5.0, 10.0) == "within_5m_10deg"
    for word in ("5", "a,b", "0.1,0", "-1,5", "nan,5", "inf,5", "1,2,3", "0.1,200"):
        with pytest.raises(ConfigError, match="threshold"):
            parse_thresholds([word])


@pytest.fixture
def recording(tmp_path) -> tuple[SceneEvaluation, list[Frame]]:
    """Two sequences whose stamps collide, each frame a little off and one in each without a pose."""
    random = np.random.default_rng(3)
    frames, results = [], []
    for sequence in ("seq-01", "seq-02"):
        for number in range(12):
            pose = geometry.transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
            noise = geometry.transform_from_rotation_vector(
                0.05 * random.normal(size=3), 0.1 * random.normal(size=3)
            )
            frame = Frame(f"{sequence}/{number}", sequence, tmp_path / "none.png", None, pose, number / 30)
            frames.append(frame)
            estimated = None if number == 5 else pose @ noise
            results.append(Result(frame.name, None, pose, estimated, 0.01))
    return SceneEvaluation("hall", results, np.empty((0, 4, 4))), frames


def test_evo_reads_the_trajectories_and_finds_the_same_errors(recording, tmp_path):
    hall, frames = recording
    write_trajectories(tmp_path, hall, frames)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"hall.{sequence}.{what}.txt" for sequence in ("seq-01", "seq-02") for what in ("estimate", "truth")
    ]
    squares = []
    for sequence in ("seq-01", "seq-02"):
        true = file_interface.read_tum_trajectory_file(tmp_path / f"hall.{sequence}.truth.txt")
        estimated = file_interface.read_tum_trajectory_file(tmp_path / f"hall.{sequence}.estimate.txt")
        assert (true.num_poses, estimated.num_poses) == (12, 11)
        pair = sync.associate_trajectories(true, estimated)
        ape = metrics.APE(metrics.PoseRelation.translation_part)
        ape.process_data(pair)
        angles = metrics.APE(metrics.PoseRelation.rotation_angle_deg)
        angles.process_data(pair)
        ours = hall.errors[[frame.sequence == sequence for frame in frames]]
        ours = ours[np.isfinite(ours[:, 0])]
        assert ape.error == pytest.approx(ours[:, 0], abs=1e-7)
        assert angles.error == pytest.approx(ours[:, 1], abs=1e-4)
        squares += [ape.get_statistic(metrics.StatisticsType.rmse) ** 2] * 11
    finite = hall.errors[np.isfinite(hall.errors[:, 0]), 0]
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.sqrt(np.mean(finite**2)), abs=1e-7)


def test_evaluate_writes_sizes_averages_and_what_score_agrees_with(tiny_checkpoint, tiny_scenes, tmp_path):
    evaluate(
        tiny_checkpoint,
        tiny_scenes,
        split="train",
        threshold=["0.3,20"],
        json=str(tmp_path / "e.json"),
        trajectories=tmp_path / "poses",
    )
    content = json.loads((tmp_path / "e.json").read_text())
    size = content["parameters"]
    assert size["total"] == size["shared"] + 2 * size["per_scene"]
    medians = [scene["median_m"] for scene in content["scenes"]]
    assert content["average"]["median_m"] == pytest.approx(np.mean(medians))
    for scene in content["scenes"]:
        stem = tmp_path / "poses" / f"{scene['scene']}.seq-01"
        again, unmatched = score(Path(f"{stem}.estimate.txt"), Path(f"{stem}.truth.txt"))
        summary = again.summary([(0.3, 20.0)])
        assert unmatched == 0
        assert summary.keys() == scene.keys()
        assert summary["median_m"] == pytest.approx(scene["median_m"], abs=1e-6)
        assert summary["within_30cm_20deg"] == scene["within_30cm_20deg"]


def test_the_report_is_one_page_with_averages_thresholds_and_all_scenes(recording, tmp_path):
    scenes = [recording[0], evaluation((0.02, 1.0), None, scene="<attic>"), evaluation(None)]
    path = write_report(tmp_path, "a & b", "words", [scene.summary() for scene in scenes], scenes)
    page = path.read_text()
    assert page.count("<img") == page.count('src="data:') == 1 + 3  # curves, and a trajectory a scene
    for text in ("a &amp; b", "&lt;attic&gt;", "average", "25cm2deg", "why not"):
        assert text in page
    assert "<attic>" not in page
