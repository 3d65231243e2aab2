"""Trains one model jointly on real recordings, evaluates it, plays one scene through ROS 2.

OFVL_DATA names the folder that holds scenes/ (default ../shared/data); docs/datasets.md says where the
recordings come from. A training that was interrupted goes on, and a finished one is taken as it is: the model
in out/real is the one that benchmarks/accuracy.py is given.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markdown_tables import markdown_table
from through_ros import ROOT, RunningLocalizer, console, ofvl

from ofvl_core import realsense
from ofvl_core.checkpoint import load_manifest
from ofvl_core.cli.console import print_table
from ofvl_core.files import write_json, write_text
from ofvl_core.report import table_rows

OUT = ROOT / "out" / "real"
MODEL = OUT / "model"
DATA = Path(os.environ.get("OFVL_DATA", ROOT / "../shared/data")).resolve() / "scenes"
PLAYED = "redkitchen"
MINUTES = 85
LOOKS = "network.looks=5"
"""What time buys accuracy."""


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The summaries as a table for the documentation."""
    return markdown_table(*table_rows(summaries))


def main() -> None:
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there: set OFVL_DATA to the folder that holds scenes/")
    if not (MODEL.exists() and load_manifest(MODEL).training.finished):
        ofvl(
            "train", DATA, "--out", MODEL, "--iterations", 100_000, "--max-minutes", MINUTES,
            "--set", LOOKS, *(["--resume"] if MODEL.exists() else []),
        )  # fmt: skip
    ofvl("evaluate", MODEL, DATA, "--json", OUT / "evaluation.json", "--report", OUT)
    if not (OUT / "bag").exists():
        ofvl("bag", "from-dataset", DATA / PLAYED, OUT / "bag")
    with RunningLocalizer(MODEL, realsense.CAMERA_FRAME, OUT / "localizer.log") as localizer:
        localizer.select_scene(PLAYED)
        single, _ = localizer.score(OUT / "bag", DATA / PLAYED)
    played = single.summary()
    print_table([played])
    scenes = json.loads((OUT / "evaluation.json").read_text())["scenes"]
    write_json(OUT / "results.json", {"scenes": scenes, "through_ros": [played]})
    training = load_manifest(MODEL).training
    write_text(
        OUT / "tables.md",
        f"{training.seconds / 60:.0f} minutes of training, {training.iteration} iterations.\n\n"
        f"{markdown(scenes)}\n"
        f"As a bag through the node:\n\n{markdown([played])}",
    )
    console.print(f"tables: {OUT / 'tables.md'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
