"""`ofvl score`: errors of any system's trajectory."""

from pathlib import Path
from typing import Annotated

import typer

from ofvl_core.association import STAMP_TOLERANCE
from ofvl_core.cli.console import (
    JsonOption,
    ThresholdOption,
    emit_json,
    parse_thresholds,
    print_table,
    stderr,
)
from ofvl_core.errors import ConfigError
from ofvl_core.evaluation import average
from ofvl_core.report import write_report
from ofvl_core.score import score as score_trajectory


def score(
    estimate: Annotated[
        Path,
        typer.Argument(
            help="Estimated poses: TUM, KITTI or 'name qw qx qy qz tx ty tz' rows (world to camera; more "
            "columns are left alone). The content says which."
        ),
    ],
    ground_truth: Annotated[
        Path,
        typer.Argument(help="True poses in the same format, or a scene's folder, whose test split counts."),
    ],
    tolerance: Annotated[
        float, typer.Option(metavar="SECONDS", help="How far time stamps of one image may lie apart.")
    ] = STAMP_TOLERANCE,
    threshold: ThresholdOption = None,
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write report.html there.")] = None,
) -> None:
    """Score poses that another system estimated, with the numbers that `ofvl evaluate` prints.

    A row of the truth without an estimate is a failure, so the truth must hold the queries and nothing else.
    Poses are compared as they are, NEVER ALIGNED: both files must speak of the same camera and world frame.
    """
    if not tolerance >= 0:
        raise ConfigError(f"--tolerance {tolerance} is not a time; give seconds, 0 or more")
    thresholds = parse_thresholds(threshold)
    evaluation, unmatched = score_trajectory(estimate, ground_truth, tolerance)
    summary = evaluation.summary(thresholds)
    if unmatched:
        total = unmatched + summary["poses"]
        stderr.print(f"{unmatched} of {total} estimates have no truth and do not count", highlight=False)
    if json != "-":
        print_table([summary])
    if json is not None:
        content = {
            "estimate": str(estimate),
            "ground_truth": str(ground_truth),
            "estimates_without_truth": unmatched,
            "scenes": [summary],
            "average": average([summary]),
        }
        emit_json(content, json)
    if report is not None:
        introduction = f"Poses of {estimate} against {ground_truth}, not aligned."
        page = write_report(
            report, f"{estimate.stem} in {evaluation.scene}", introduction, [summary], [evaluation]
        )
        stderr.print(f"report: {page}", soft_wrap=True)
