"""`make demo`: simulate, train one model for all scenes, play held-out drives through ROS 2, report."""

import shutil
import time
from collections.abc import Sequence
from typing import Any

from through_ros import ROOT, RunningLocalizer, console, ofvl

from ofvl_core.cli.console import print_table
from ofvl_core.files import write_json
from ofvl_core.report import honesty, write_report

OUT = ROOT / "out" / "demo"
SCENES = 3
FRAMES = 120
ITERATIONS = 3000
MAX_MINUTES = 10.0
"""A slower machine trains for fewer iterations rather than longer."""

RATE = 3.0
"""Speed of playing: the simulated camera keeps 3 frames a second."""

BOUND_M, BOUND_DEG = 0.10, 3.0


def together_with_odometry(summaries: Sequence[dict[str, Any]]) -> str:
    """The medians of `pose`, in one sentence."""
    medians = [
        f"{summary['scene']} {100 * summary['median_m']:.1f} cm, {summary['median_deg']:.1f} deg"
        for summary in summaries
        if summary["median_m"] is not None
    ]
    return f"Fused with odometry: {'; '.join(medians) or 'no poses'}."


def main() -> None:
    start = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    ofvl("simulate", OUT / "scenes", "--scenes", SCENES, "--frames", FRAMES)
    ofvl(
        "train", OUT / "scenes", "--model", "ofvl_ms_lite", "--augmentation", "robot", "--out", OUT / "model",
        "--iterations", ITERATIONS, "--max-minutes", MAX_MINUTES,
    )  # fmt: skip
    scenes = sorted((OUT / "scenes").iterdir())
    for scene in scenes:
        ofvl("bag", "from-dataset", scene, OUT / "bags" / scene.name, "--split", "test")

    evaluations, fused = [], []
    with RunningLocalizer(OUT / "model", "base_link", OUT / "localizer.log") as localizer:
        for scene in scenes:
            localizer.select_scene(scene.name)
            single, together = localizer.score(OUT / "bags" / scene.name, scene, RATE)
            evaluations.append(single)
            fused.append(together.summary())

    summaries = [evaluation.summary() for evaluation in evaluations]
    write_json(OUT / "results.json", {"scenes": summaries, "fused": fused})
    report = write_report(
        OUT,
        "OFVL-MS through ROS 2: simulated rooms",
        "Poses of base_link as the localizer node published them while bags of held-out drives played; one "
        "model for all rooms, trained minutes before. Latency runs from an image's arrival over DDS to its "
        f"pose's. {honesty(summaries)} {together_with_odometry(fused)}",
        summaries,
        evaluations,
    )
    print_table(summaries)
    for sentence in (honesty(summaries), together_with_odometry(fused)):
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"results: {OUT / 'results.json'}\nreport:  {report}", highlight=False, soft_wrap=True)
    console.print(f"{(time.monotonic() - start) / 60:.1f} min in all", highlight=False)
    missed = [
        summary["scene"]
        for summary in summaries
        if summary["median_m"] is None or summary["median_m"] > BOUND_M or summary["median_deg"] > BOUND_DEG
    ]
    if missed:
        raise SystemExit(f"median error above {BOUND_M:g} m or {BOUND_DEG:g} deg in {', '.join(missed)}")


if __name__ == "__main__":
    main()
