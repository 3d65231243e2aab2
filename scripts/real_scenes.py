"""Trains one model jointly on real recordings, evaluates it, plays one scene through ROS 2.

OFVL_DATA names the folder that holds scenes/ (default ../shared/data); docs/datasets.md says where the
recordings come from.
"""

import json
import os
import shutil
import time
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
DATA = Path(os.environ.get("OFVL_DATA", ROOT / "../shared/data")).resolve() / "scenes"
PLAYED = "redkitchen"
MINUTES = 25


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The summaries as a table for the documentation."""
    return markdown_table(*table_rows(summaries))


def main() -> None:
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there: set OFVL_DATA to the folder that holds scenes/")
    shutil.rmtree(OUT, ignore_errors=True)
    start = time.monotonic()
    ofvl("train", DATA, "--out", OUT / "model", "--iterations", 100_000, "--max-minutes", MINUTES)
    minutes = (time.monotonic() - start) / 60
    ofvl("evaluate", OUT / "model", DATA, "--json", OUT / "evaluation.json", "--report", OUT)
    ofvl("bag", "from-dataset", DATA / PLAYED, OUT / "bag")
    with RunningLocalizer(OUT / "model", realsense.CAMERA_FRAME, OUT / "localizer.log") as localizer:
        localizer.select_scene(PLAYED)
        single, _ = localizer.score(OUT / "bag", DATA / PLAYED)
    played = single.summary()
    print_table([played])
    scenes = json.loads((OUT / "evaluation.json").read_text())["scenes"]
    write_json(OUT / "results.json", {"scenes": scenes, "through_ros": [played]})
    iterations = load_manifest(OUT / "model").training.iteration
    write_text(
        OUT / "tables.md",
        f"Trained in {minutes:.0f} minutes, {iterations} iterations.\n\n{markdown(scenes)}\n"
        f"As a bag through the node:\n\n{markdown([played])}",
    )
    console.print(f"tables: {OUT / 'tables.md'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
