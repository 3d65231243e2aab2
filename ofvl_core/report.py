"""A self-contained HTML page of an evaluation: table, trajectories, error curves, worst frames."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from ofvl_core.datasets.images import read_color
from ofvl_core.evaluation import SceneEvaluation
from ofvl_core.files import write_text

WORST_FRAMES = 4
THUMBNAIL_WIDTH = 320

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

CAPTION = "cm, deg: median error; ms: latency; near: median distance and angle to the nearest training view"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; color: #222 }}
table {{ border-collapse: collapse }}
td, th {{ padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }} img {{ max-width: 100% }}
figure {{ display: inline-block; margin: .5em; vertical-align: top }}
figcaption {{ font-size: 13px; color: #555 }}
</style></head><body><h1>{title}</h1><p>{introduction}</p>{table}<p>{caption}</p>{sections}</body></html>
"""


def table_rows(summaries: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and formatted cells of the summaries, for the terminal and for the page alike."""
    keys = [key for key in COLUMNS if key in summaries[0]]

    def cell(key: str, value: Any) -> str:
        if value is None:
            return "-"
        return COLUMNS[key][1].format(100 * value if key == "median_m" else value)

    headings = [COLUMNS[key][0] for key in keys]
    return headings, [[cell(key, summary[key]) for key in keys] for summary in summaries]


def write_report(
    folder: Path,
    title: str,
    introduction: str,
    summaries: Sequence[dict[str, Any]],
    evaluations: Sequence[SceneEvaluation],
) -> Path:
    """Write `folder`/report.html, which needs no other file, and return its path."""
    headings, rows = table_rows(summaries)
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    sections = [f"<h2>Errors over all frames</h2>{_image(_curves(evaluations), 'cumulative error curves')}"]
    for evaluation in evaluations:
        sections.append(f"<h2>{html.escape(evaluation.scene)}</h2>")
        sections.append(_image(_trajectory(evaluation), f"trajectory in {evaluation.scene}"))
        sections += [_worst_frame(evaluation, int(index)) for index in _worst(evaluation)]
    page = _PAGE.format(
        title=html.escape(title),
        introduction=html.escape(introduction),
        caption=CAPTION,
        table=f"<table><tr>{head}</tr>{body}</table>",
        sections="".join(sections),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _curves(evaluations: Sequence[SceneEvaluation]) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (("position error [cm]", 100.0, 30.0, 5.0), ("rotation error [deg]", 1.0, 10.0, 5.0))
    for column, (axis, (label, factor, limit, threshold)) in enumerate(zip(axes, panels, strict=True)):
        for evaluation in evaluations:
            errors = np.sort(evaluation.errors[:, column]) * factor
            share = np.arange(1, len(errors) + 1) / len(errors)
            finite = np.isfinite(errors)
            axis.step([0, *errors[finite]], [0, *share[finite]], where="post", label=evaluation.scene)
        axis.axvline(threshold, color="0.6", linewidth=0.8, linestyle="--")
        axis.set(xlabel=label, ylabel="share of frames", xlim=(0, limit), ylim=(0, 1.02))
    axes[1].legend(loc="lower right", frameon=False)
    return figure


def _trajectory(evaluation: SceneEvaluation) -> Figure:
    """Seen along the axis in which the cameras move least, so that any world frame gives a useful view."""
    true = np.array([result.true[:3, 3] for result in evaluation.results])
    known = evaluation.training_poses[:, :3, 3]
    spread = np.ptp(np.concatenate([true, known]), axis=0)
    across, up = sorted(np.argsort(spread)[1:])
    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot(known[:, across], known[:, up], ".", color="0.85", label="training views")
    axis.plot(true[:, across], true[:, up], ".-", color="tab:green", label="ground truth")
    for result in evaluation.results:
        if result.estimated is not None:
            ends = np.stack([result.true[:3, 3], result.estimated[:3, 3]])
            axis.plot(ends[:, across], ends[:, up], "-", color="tab:red", linewidth=0.8)
            axis.plot(ends[1, across], ends[1, up], ".", color="tab:red")
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
    image = read_color(result.image)
    height = round(image.shape[0] * THUMBNAIL_WIDTH / image.shape[1])
    thumbnail = cv2.resize(image, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(thumbnail, cv2.COLOR_RGB2BGR))[1]
    if result.estimated is None:
        error = f"no pose: {result.reason}"
    else:
        error = f"{100 * metres:.1f} cm, {degrees:.2f} deg"
    caption = html.escape(f"worst frames: {result.frame}: {error}")
    source = base64.b64encode(encoded.tobytes()).decode()
    picture = f'<img src="data:image/jpeg;base64,{source}" alt="{caption}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _image(figure: Figure, description: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img src="data:image/png;base64,{source}" alt="{html.escape(description)}"></p>'
