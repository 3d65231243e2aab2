"""Ablations: what the variants are, runs that resume, and tables against numbers counted by hand."""

import json
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import catches, wait_until
from test_cli import ofvl, refused, start

from ofvl_core.ablation import VARIANTS, ModelSize, Outcome, SceneErrors, gather, measure, plan_runs
from ofvl_core.ablation_tables import chance, fragment, spread, tables, verdict, write_tables
from ofvl_core.checkpoint import load_manifest
from ofvl_core.datasets import load_scene
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.provenance import provenance
from ofvl_core.training.config import TrainConfig, make_config
from ofvl_core.training.loop import Surroundings

SHORT = TrainConfig(iterations=2, batch_size=2)
HERE = Surroundings(torch.device("cpu"))


@pytest.fixture(scope="module")
def scenes(tiny_scenes):
    return [load_scene(path) for path in tiny_scenes]


def outcome(variant, seed, medians, shares, parameters=(1_000_000,), minutes=1.0):
    """A run whose scenes have these medians (m, deg) and shares within 5 cm and within 10 cm."""
    errors = [
        SceneErrors(
            scene=f"room_{number}", frames=10, failures=0, median_m=metres, median_deg=degrees,
            within_5cm_5deg=strict, within_10cm_5deg=loose,
        )
        for number, ((metres, degrees), (strict, loose)) in enumerate(zip(medians, shares, strict=True), 1)
    ]  # fmt: skip
    sizes = [
        ModelSize(parameters=count, per_scene=count // 4, shared_layers=5 + seed, scored_layers=13)
        for count in parameters
    ]
    return Outcome(
        variant=variant,
        config=make_config(SHORT.model_dump(), VARIANTS[variant].changes, {"seed": seed}),
        data=[(error.scene, 20, 10) for error in errors],
        provenance="this machine",
        minutes=minutes,
        models=sizes,
        scenes=errors,
    )


def table(outcomes, title):
    """Rows of the table whose title begins so, by their first cell, each a mapping from headings."""
    (found,) = [table for table in tables(outcomes) if table.title.startswith(title)]
    return {row[0]: dict(zip(found.headings, row, strict=True)) for row in found.rows}


FULL = [
    outcome("full", 0, [(0.02, 1.0), (0.04, 2.0)], [(0.5, 0.8), (0.3, 0.6)]),
    outcome("full", 1, [(0.04, 1.0), (0.06, 2.0)], [(0.5, 0.8), (0.5, 0.6)]),
]
SEPARATE = [
    outcome("separate", 0, [(0.1, 1.0), (0.3, 2.0)], [(0.1, 0.2), (0.3, 0.6)], (600_000, 700_000), 3.0)
]


def test_a_row_holds_sums_of_models_means_of_scenes_and_the_spread_of_seeds():
    rows = table(FULL + SEPARATE, "Table 4")
    assert rows["Joint learning"] == {
        "Methods": "Joint learning",
        "Total Params (M)": "1.000",
        "Med. Err. (m, deg)": "0.040, 1.50 (0.030-0.050, 1.50-1.50)",
        "Acc. 5 cm 5 deg (%)": "45.0 (40.0-50.0)",
        "10 cm 5 deg (%)": "70.0",
        "Layers shared": "5.5 (5-6) of 13",
        "Iterations": "2",
        "Minutes": "1.0",
    }
    separate = rows["Separate learning"]
    assert separate["Total Params (M)"] == "1.300"
    assert separate["Med. Err. (m, deg)"] == "0.200, 1.50"
    assert separate["Layers shared"] == "-"


def test_table_6_sets_the_added_scene_beside_the_same_scene_of_the_joint_model():
    added = outcome(
        "new_scene", 0, [(0.05, 1.5), (0.07, 2.5)], [(0.1, 0.2), (0.2, 0.4)], (8_000_000, 4_000_000)
    )
    rows = table([*FULL, added], "Table 6")
    assert list(rows) == ["room_1", "room_2", "average"]
    assert [row["Increased Params (M)"] for row in rows.values()] == ["2.000", "1.000", "1.500"]
    assert [row["Med. Err. (m, deg)"] for row in rows.values()] == [
        "0.050, 1.50",
        "0.070, 2.50",
        "0.060, 2.00",
    ]
    assert rows["room_2"]["Med. Err. (m, deg), joint"].startswith("0.050, 2.00 (0.040-0.060")
    assert table([added], "Table 6")["room_1"]["10 cm 5 deg (%), joint"] == "-"


def test_table_7_ticks_what_each_variant_has():
    left_out = ("no_attention", "average_gradients", "no_penalty")
    others = [outcome(name, 0, [(0.1, 1.0)], [(0.1, 0.2)]) for name in left_out]
    rows = table([*FULL, *others], "Table 7")
    ticks = [[row["TSAM"], row["GNA"], row["PL"]] for row in rows.values()]
    assert list(rows) == ["EXP1", "EXP2", "EXP3", "EXP4"]
    assert ticks == [["×", "✓", "✓"], ["✓", "×", "✓"], ["✓", "✓", "×"], ["✓", "✓", "✓"]]


def test_a_missing_median_is_a_dash_and_counts_as_the_worst():
    lost = [outcome("separate", seed, [(None, None)], [(0.0, 0.0)]) for seed in (0, 1)]
    assert table(FULL + lost, "Table 4")["Separate learning"]["Med. Err. (m, deg)"] == "-"
    assert table(FULL + lost, "Which")["separate"]["median m"] == "worse"


def test_differences_are_those_beyond_the_spread():
    assert table(FULL + SEPARATE, "Which")["separate"]["median m"] == "one seed"
    assert verdict([0.3, 0.4], [0.1, 0.2], 1) == "worse"
    assert verdict([0.3, 0.4], [0.1, 0.2], -1) == "better"
    assert verdict([0.2, 0.4], [0.1, 0.2], 1) == "within"
    assert verdict([0.1, 0.2, None], [0.3, 0.4], 1) == "within"
    assert chance(3, 3) == pytest.approx(0.1)
    assert chance(2, 2) == pytest.approx(1 / 3)


@given(st.lists(st.sampled_from(range(5)), min_size=4, max_size=4, unique=True))
def test_verdicts_are_opposite_from_the_other_side(numbers):
    opposite = {"better": "worse", "worse": "better", "within": "within"}
    assert verdict(numbers[:2], numbers[2:], 1) == opposite[verdict(numbers[2:], numbers[:2], 1)]


def test_spread():
    assert spread([[1.0]], ".1f") == "1.0"
    assert spread([[1.0, 1.04]], ".1f") == "1.0"
    assert spread([[1.0, 2.0, 6.0]], ".1f") == "3.0 (1.0-6.0)"
    assert spread([[1.0, None]], ".1f") == "-"


def test_tables_of_variants_that_were_not_run_are_left_out():
    titles = [table.title[:7] for table in tables(FULL + SEPARATE)]
    assert titles == ["Table 4", "Which d"]
    assert "this machine" in fragment(FULL)


def test_full_is_the_base_of_every_variant(scenes, tmp_path):
    runs = plan_runs(scenes, SHORT, list(VARIANTS), 2, tmp_path)
    assert len(runs) == 2 * len(VARIANTS)
    assert [run.config.seed for run in runs] == [0] * len(VARIANTS) + [1] * len(VARIANTS)
    configs = {run.variant.name: run.config for run in runs[: len(VARIANTS)]}
    assert configs["full"] == configs["separate"] == configs["new_scene"] == SHORT
    others = [config for name, config in configs.items() if name not in ("separate", "new_scene")]
    assert all(config not in others[:place] for place, config in enumerate(others))
    assert configs["no_attention"].network.depths == SHORT.network.depths
    steps = {run.variant.name: run.steps_left() for run in runs}
    assert (steps["full"], steps["separate"], steps["new_scene"]) == (4, 4, 8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_minutes": 1.0}, "set iterations"),
        ({"gradients": "average"}, "leave them at their defaults"),
        ({"penalty_weight": 0.0}, "leave them at their defaults"),
        ({"network": {"attention": False}}, "leave them at their defaults"),
    ],
)
def test_settings_that_variants_change_are_refused(scenes, tmp_path, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan_runs(scenes, make_config(SHORT.model_dump(), changes), ["full"], 1, tmp_path / "out")
    with pytest.raises(ConfigError, match="two scenes"):
        plan_runs(scenes[:1], SHORT, ["full"], 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_continues_and_becomes_the_uninterrupted_one(scenes, tmp_path):
    def stop(iteration, losses):
        if iteration == 1:
            signal.raise_signal(signal.SIGINT)

    (run,) = plan_runs(scenes, SHORT, ["separate"], 1, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        measure(run, Surroundings(torch.device("cpu"), on_step=stop))
    assert run.steps_left() == 3
    assert gather(tmp_path / "parts") == []
    parts = measure(run, HERE)
    assert run.steps_left() == 0
    whole = measure(plan_runs(scenes, SHORT, ["separate"], 1, tmp_path / "whole")[0], HERE)
    assert (parts.scenes, parts.models) == (whole.scenes, whole.models)


def test_damaged_or_other_results_are_refused(scenes, tmp_path):
    out = tmp_path / "out"
    (run,) = plan_runs(scenes, SHORT, ["full"], 1, out)
    measure(run, HERE)
    (fewer,) = plan_runs(scenes[::-1], SHORT, ["full"], 1, out)
    with pytest.raises(CheckpointError, match="other data"):
        measure(fewer, HERE)
    path = run.folder / "results.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(CheckpointError, match="delete it"):
        gather(out)
    with pytest.raises(CheckpointError, match="it is no ablation"):
        plan_runs(scenes, SHORT, ["full"], 1, run.folder)


def test_the_page_needs_no_other_file(tmp_path):
    write_tables(tmp_path, FULL + SEPARATE)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == page.count('src="data:') == page.count("src=") == 1
    assert "0.040, 1.50" in page


def test_the_command_trains_measures_and_never_twice(tiny_scenes, tmp_path):
    out = tmp_path / "out"
    arguments = ("ablate", tiny_scenes[0].parent, "--out", out, "--seeds", "2", "--set", "batch_size=2")
    output, _ = ofvl(*arguments, "--iterations", "2", "--variants", "full,new_scene,all_shared")
    assert output == (out / "ablation.md").read_text()
    assert "### Table 5" in output
    assert "### Table 6" in output
    outcomes = json.loads((out / "ablation.json").read_text())["outcomes"]
    assert [(o["variant"], o["config"]["seed"]) for o in outcomes] == [
        ("full", 0), ("full", 1), ("all_shared", 0), ("all_shared", 1), ("new_scene", 0), ("new_scene", 1),
    ]  # fmt: skip
    added = out / "new_scene" / "seed-1" / "room_1"
    assert [record.name for record in load_manifest(added / "others").scenes] == ["room_2"]
    assert [record.name for record in load_manifest(added / "extended").scenes] == ["room_2", "room_1"]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}
    again, _ = ofvl(*arguments, "--config", out / "settings.yaml", "--variants", "full,new_scene")
    assert again == output
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}
    assert "--config" in refused(*arguments, "--iterations", "3")
    assert "unknown variant 'fuller'" in refused(*arguments[:3], tmp_path / "x", "--variants", "full,fuller")
    assert not (tmp_path / "x").exists()


def test_an_interrupted_command_can_be_continued(tiny_scenes, tmp_path):
    out = tmp_path / "out"
    with start("ablate", tiny_scenes[0].parent, "--out", out, "--iterations", "100000") as process:
        assert wait_until(lambda: catches(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130, process.errors
    assert (out / "settings.yaml").exists()
    assert process.errors.strip().endswith("the same command continues")
    assert "Traceback" not in process.errors


def test_provenance_is_one_line_that_names_versions():
    line = provenance(torch.device("cpu"))
    assert f"torch {torch.__version__}" in line
    assert "\n" not in line
