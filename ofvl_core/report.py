"""A self-contained HTML page of an evaluation: table, trajectories, error curves, worst frames."""

import html
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ofvl_core import page
from ofvl_core.datasets.images import read_color
from ofvl_core.evaluation import SceneEvaluation, average, cumulative
from ofvl_core.files import write_text

WORST_FRAMES = 4
MANY_FRAMES = 300
"""Above it a trajectory is drawn with smaller dots."""

COLUMNS = {
    "scene": ("scene", "{}"),
    "frames": ("frames", "{}"),
    "poses": ("poses", "{}"),
    "median_m": ("cm", "{:.1f}"),
    "median_deg": ("deg", "{:.2f}"),
    "within_5cm_5deg": ("5cm5deg", "{:.0%}"),
    "latency_ms_p50": ("ms", "{:.0f}"),
    "latency_ms_p95": ("p95 ms", "{:.0f}"),
    "nearest_view_m": ("near m", "{:.2f}"),
    "nearest_view_deg": ("near deg", "{:.0f}"),
}

MEASURED = ("latency_ms_p50", "latency_ms_p95", "nearest_view_m", "nearest_view_deg")
"""Columns that are left out where no scene has them, as in trajectories of another system."""


def table_rows(summaries: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and formatted cells of the summaries and, of several, their average: for terminal and page."""
    keys = _shown(summaries)

    def cell(key: str, value: Any) -> str:
        if value is None:
            return "-"
        return COLUMNS[key][1].format(100 * value if key == "median_m" else value)

    headings = [COLUMNS[key][0] for key in keys]
    return headings, [[cell(key, summary[key]) for key in keys] for summary in _with_average(summaries)]


def threshold_rows(summaries: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and formatted cells of the shares within every threshold, as `table_rows`."""
    keys = [key for key in summaries[0] if key.startswith("within_")]
    headings = ["within", *(key.removeprefix("within_").replace("_", "") for key in keys)]
    return headings, [
        [summary["scene"], *(f"{summary[key]:.1%}" for key in keys)] for summary in _with_average(summaries)
    ]


def caption(summaries: Sequence[dict[str, Any]]) -> str:
    """What the headings of `table_rows` mean."""
    keys = _shown(summaries)
    parts = ["cm, deg: median error"]
    if "latency_ms_p50" in keys:
        parts.append("ms: latency")
    if "nearest_view_m" in keys:
        parts.append("near: median distance and angle to the nearest training view")
    return "; ".join(parts)


def _shown(summaries: Sequence[dict[str, Any]]) -> list[str]:
    return [
        key
        for key in COLUMNS
        if key not in MEASURED or any(summary[key] is not None for summary in summaries)
    ]


def _with_average(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*summaries, average(summaries)] if len(summaries) > 1 else list(summaries)


def honesty(summaries: Sequence[dict[str, Any]]) -> str:
    """How often poses lie where their covariances say, in one sentence."""
    shares = [
        f"{summary['scene']} {summary['nees_within_95']:.0%}"
        for summary in summaries
        if summary["nees_within_95"] is not None
    ]
    return f"Poses within their covariance's 95 %: {', '.join(shares) or 'there are none'}."


def write_report(
    folder: Path,
    title: str,
    introduction: str,
    summaries: Sequence[dict[str, Any]],
    evaluations: Sequence[SceneEvaluation],
) -> Path:
    """Write `folder`/report.html, which needs no other file, and return its path."""
    sections = [
        f"<h2>Errors over all frames</h2>{page.image(_curves(evaluations), 'cumulative error curves')}"
    ]
    for evaluation in evaluations:
        sections.append(f"<h2>{html.escape(evaluation.scene)}</h2>")
        sections.append(page.image(_trajectory(evaluation), f"trajectory in {evaluation.scene}"))
        sections += [_worst_frame(evaluation, int(index)) for index in _worst(evaluation)]
    body = (
        f"<p>{html.escape(introduction)}</p>{page.table(*table_rows(summaries))}<p>{caption(summaries)}</p>"
        "<p>Share of frames within a position and a rotation error, bounds included. A frame without a pose "
        f"is within none.</p>{page.table(*threshold_rows(summaries))}{''.join(sections)}"
    )
    path = folder / "report.html"
    write_text(path, page.page(title, body))
    return path


def _curves(evaluations: Sequence[SceneEvaluation]) -> Figure:
    """The share of frames within an error, of each scene and, as in the paper's Fig. 3, of all together."""
    curves = [(evaluation.scene, evaluation.errors) for evaluation in evaluations]
    if len(evaluations) > 1:
        curves.append(("all scenes", np.concatenate([errors for _, errors in curves])))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (("position error [cm]", 100.0, 30.0, 5.0), ("rotation error [deg]", 1.0, 10.0, 5.0))
    for column, (axis, (label, factor, limit, threshold)) in enumerate(zip(axes, panels, strict=True)):
        for place, (scene, errors) in enumerate(curves):
            pooled = place == len(evaluations)
            color, width = ("black", 2.2) if pooled else (f"C{place % 10}", 1.2)
            dashes = "--" if place >= 10 and not pooled else "-"
            reached, share = cumulative(errors[:, column] * factor)
            right = max([limit, *reached[-1:]])
            last = share[-1] if len(share) else 0.0
            axis.step(
                [0, *reached, right],
                [0, *share, last],
                where="post",
                label=scene,
                color=color,
                linewidth=width,
                linestyle=dashes,
            )
        axis.axvline(threshold, color="0.6", linewidth=0.8, linestyle="--")
        axis.set(xlabel=label, ylabel="share of frames", xlim=(0, limit), ylim=(0, 1.02))
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _trajectory(evaluation: SceneEvaluation) -> Figure:
    """Seen along the axis in which the cameras move least, so that any world frame gives a useful view."""
    true = np.array([result.true[:3, 3] for result in evaluation.results])
    known = evaluation.training_poses[:, :3, 3]
    spread = np.ptp(np.concatenate([true, known]), axis=0)
    across, up = sorted(np.argsort(spread)[1:])
    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    if len(known):
        axis.plot(known[:, across], known[:, up], ".", color="0.85", label="training views")
    dot = 6.0 if len(true) <= MANY_FRAMES else 2.0
    for _, drive in groupby(evaluation.results, lambda result: result.frame.rpartition("/")[0]):
        line = np.array([result.true[:3, 3] for result in drive])  # sequences are not connected
        axis.plot(line[:, across], line[:, up], ".-", color="tab:green", markersize=dot)
    axis.plot([], [], ".-", color="tab:green", label="ground truth")
    for result in evaluation.results:
        if result.estimated is not None:
            ends = np.stack([result.true[:3, 3], result.estimated[:3, 3]])
            axis.plot(ends[:, across], ends[:, up], "-", color="tab:red", linewidth=0.8)
            axis.plot(ends[1, across], ends[1, up], ".", color="tab:red", markersize=dot)
    axis.plot([], [], ".-", color="tab:red", label="estimate and its error")
    missing = np.isinf(evaluation.errors[:, 0])
    if missing.any():
        axis.plot(true[missing, across], true[missing, up], "x", color="black", label="no pose")
    margin = 0.5
    around = np.concatenate([true, known])[:, [across, up]]
    low, high = around.min(axis=0) - margin, around.max(axis=0) + margin
    names = "xyz"
    axis.set(
        xlabel=f"{names[across]} [m]",
        ylabel=f"{names[up]} [m]",
        aspect="equal",
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
    )
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _worst(evaluation: SceneEvaluation) -> np.ndarray:
    return np.argsort(-evaluation.errors[:, 0], kind="stable")[:WORST_FRAMES]


def _worst_frame(evaluation: SceneEvaluation, index: int) -> str:
    result, (metres, degrees) = evaluation.results[index], evaluation.errors[index]
    if result.estimated is None:
        error = f"no pose: {result.reason}"
    else:
        error = f"{100 * metres:.1f} cm, {degrees:.2f} deg"
    words = f"worst frames: {result.frame}: {error}"
    if result.image is None:
        return page.figure("", words)
    return page.figure(page.photo(read_color(result.image), words), words)
