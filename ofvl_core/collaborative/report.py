"""A self-contained HTML page of the three tasks: tables, paths, depth and attention as pictures."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ofvl_core import page
from ofvl_core.collaborative.evaluation import ESSENTIAL, NETWORK, DrivenPath, Evaluation, Example
from ofvl_core.evaluation import SceneEvaluation, nearest_view
from ofvl_core.files import write_text
from ofvl_core.geometry import Array
from ofvl_core.path_errors import aligned_positions

REPORT_FILE = "report.html"
PATHS = 3
"""Paths of a scene that are drawn, the longest ones."""

COLOURS = {NETWORK: "tab:red", ESSENTIAL: "tab:blue"}
PHOTO_WIDTH = 240
BRIGHTEST = 95
"""Percentile of the inverse depths that is drawn brightest; a near corner would leave the rest dark."""

ABOUT = {
    "Depth": (
        "Every estimate is multiplied by its scale, which brings its median to the measured depth's: that "
        "is how the field compares. A scale near 1 says that its metres are metres, a small deviation of "
        "its logarithm that they are the same in every image. Abs Rel: mean of error / true depth; Sq Rel: "
        "of error squared / true depth; < 1.25: share of pixels whose ratio to the true depth is below "
        "that."
    ),
    "Odometry over five frames": (
        "Absolute trajectory error (ATE) of snippets of five frames, in metres, as mean and standard "
        "deviation over the snippets (Zhou et al. 2017): each snippet is multiplied by the scale that fits "
        "best, and the root of the summed squared distances is divided by five. 'Straight ahead' looks at "
        "no image. 'Last true motion again' is told how the camera really moved just before, which no "
        "odometry knows; snippets that begin a stretch have no such motion. 'Essential matrix' is OpenCV's "
        "geometry of followed corners, every step of the same length."
    ),
    "Odometry over the whole way": (
        "Stretches without a gap, by evo; root mean squares. APE: distance between positions after the "
        "best alignment. RPE: error of the motion from one frame to the next. Sim3: the alignment also "
        "multiplies the estimate, by the scale given here. SE3: metres as estimated, which the essential "
        "matrix does not know."
    ),
    "Relocalization": (
        "Error of the pose from one image alone. Near: median distance and angle to the most similar "
        "training view, which is about what a perfect look-up among training images would be off by."
    ),
}
"""What a reader must know of the table of that title."""

Table = tuple[list[str], list[list[str]]]
"""Headings and formatted rows, for terminal and page; no rows where no scene has such numbers."""


def depth_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """A row a scene with measured depth."""
    columns = {
        "images": ("images", "{}"),
        "abs_rel": ("Abs Rel", "{:.3f}"),
        "sq_rel": ("Sq Rel [m]", "{:.3f}"),
        "rmse": ("RMSE [m]", "{:.3f}"),
        "rmse_log": ("RMSE log", "{:.3f}"),
        "delta_1": ("< 1.25", "{:.3f}"),
        "delta_2": ("< 1.25^2", "{:.3f}"),
        "delta_3": ("< 1.25^3", "{:.3f}"),
        "scale": ("scale", "{:.2f}"),
        "scale_deviation": ("+- log scale", "{:.2f}"),
    }
    found = [(each["scene"], each["depth"]) for each in summaries if each["depth"]]
    return _table("scene", columns, found)


def snippet_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """A row a scene and method."""
    columns = {
        "count": ("snippets", "{}"),
        "mean_m": ("ATE [m]", "{:.4f}"),
        "deviation_m": ("+- [m]", "{:.4f}"),
    }
    found = [
        (f"{each['scene']}: {method}", numbers)
        for each in summaries
        if each["odometry"]
        for method, numbers in each["odometry"]["snippets"].items()
    ]
    return _table("scene: method", columns, found)


def path_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """A row a path and method."""
    columns = {
        "poses": ("frames", "{}"),
        "metres": ("way [m]", "{:.1f}"),
        "ape_sim3_m": ("APE Sim3 [m]", "{:.3f}"),
        "scale": ("scale", "{:.3f}"),
        "ape_se3_m": ("APE SE3 [m]", "{:.3f}"),
        "rpe_sim3_m": ("RPE Sim3 [m]", "{:.4f}"),
        "rpe_se3_m": ("RPE SE3 [m]", "{:.4f}"),
        "rpe_deg": ("RPE [deg]", "{:.3f}"),
    }
    found = [
        (f"{each['scene']}, {path['name']}: {method}", numbers)
        for each in summaries
        if each["odometry"]
        for path in each["odometry"]["paths"]
        for method, numbers in path["errors"].items()
    ]
    return _table("path: method", columns, found)


def pose_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """A row a scene in which the model relocalizes."""
    columns = {
        "frames": ("frames", "{}"),
        "mean_m": ("mean [m]", "{:.2f}"),
        "mean_deg": ("mean [deg]", "{:.1f}"),
        "median_m": ("median [m]", "{:.2f}"),
        "median_deg": ("median [deg]", "{:.1f}"),
        "nearest_view_m": ("near [m]", "{:.2f}"),
        "nearest_view_deg": ("near [deg]", "{:.1f}"),
        "latency_ms_p50": ("an image [ms]", "{:.0f}"),
    }
    found = [(each["scene"], each["relocalization"]) for each in summaries if each["relocalization"]]
    return _table("scene", columns, found)


TABLES: dict[str, Callable[[Sequence[dict[str, Any]]], Table]] = {
    "Depth": depth_table,
    "Odometry over five frames": snippet_table,
    "Odometry over the whole way": path_table,
    "Relocalization": pose_table,
}


def write_report(
    folder: Path,
    title: str,
    introduction: str,
    evaluations: Sequence[Evaluation],
    strangers: Sequence[Example] = (),
) -> Path:
    """Write `folder`/report.html, which needs no other file, and return its path.

    `strangers` are images of places that the model has never seen, shown with what it makes of them.
    """
    summaries = [evaluation.summary() for evaluation in evaluations]
    sections = [
        f"<p>{html.escape(introduction)}</p>",
        *(_section(title, make(summaries), ABOUT[title]) for title, make in TABLES.items()),
        *(_scene(evaluation) for evaluation in evaluations),
    ]
    if strangers:
        sections.append("<h2>Places never seen</h2>" + "".join(_example(each) for each in strangers))
    path = folder / REPORT_FILE
    write_text(path, page.page(title, "".join(sections)))
    return path


def _table(
    first: str, columns: dict[str, tuple[str, str]], found: Sequence[tuple[str, dict[str, Any]]]
) -> Table:
    rows = [
        [name]
        + ["-" if numbers[key] is None else form.format(numbers[key]) for key, (_, form) in columns.items()]
        for name, numbers in found
    ]
    return [first, *(heading for heading, _ in columns.values())], rows


def _section(title: str, table: Table, about: str) -> str:
    headings, rows = table
    return f"<h2>{title}</h2>{page.table(headings, rows)}<p>{html.escape(about)}</p>" if rows else ""


def _scene(evaluation: Evaluation) -> str:
    parts = [f"<h2>{html.escape(evaluation.scene)}</h2>"]
    if evaluation.odometry:
        longest = sorted(evaluation.odometry.paths, key=lambda path: -len(path.true))[:PATHS]
        parts += [_way(path) for path in longest]
    if evaluation.relocalization:
        parts.append(_poses(evaluation.relocalization))
    parts += [_example(example) for example in evaluation.examples]
    return "".join(parts)


def _way(path: DrivenPath) -> str:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    true = path.true[:, :3, 3]
    ground = _ground(true)
    _from_above(axis, ground)
    axis.plot(*true[:, ground].T, color="tab:green", linewidth=2.5, label="true")
    for method, poses in path.estimated.items():
        positions = aligned_positions(path.true, poses)
        if positions is not None:
            axis.plot(*positions[:, ground].T, color=COLOURS[method], label=method)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    words = f"{path.name} from above: motions added up, then aligned and scaled as a whole, metres"
    return page.figure(page.image(figure, words), words)


def _poses(evaluation: SceneEvaluation) -> str:
    """Where frames were put, and whether it went worse where no training view is near."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    above, scatter = figure.subplots(1, 2)
    found = [result for result in evaluation.results if result.estimated is not None]
    true = np.array([result.true[:3, 3] for result in found])
    ends = np.stack([true, [result.estimated[:3, 3] for result in found if result.estimated is not None]])
    known = evaluation.training_poses[:, :3, 3]
    ground = _ground(np.concatenate([true, known]))
    _from_above(above, ground)
    above.plot(*known[:, ground].T, ".", color="0.85", label="training views")
    above.plot(*ends[:, :, ground].transpose(2, 0, 1), color="tab:red", linewidth=0.5)
    above.plot(*true[:, ground].T, ".", color="tab:green", markersize=3, label="true")
    above.plot(*ends[1][:, ground].T, ".", color="tab:red", markersize=3, label="estimated")
    above.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    errors = evaluation.errors[np.isfinite(evaluation.errors[:, 0])]
    near = [nearest_view(result.true, evaluation.training_poses)[0] for result in found]
    points = scatter.scatter(near, errors[:, 0], c=errors[:, 1], s=8, cmap="viridis")
    figure.colorbar(points, ax=scatter, label="rotation error [deg]")
    scatter.set(xlabel="distance to the most similar training view [m]", ylabel="position error [m]")
    words = (
        "Relocalization. Left: from above, a red line from where each image was taken to where the network "
        "puts it. Right: a dot an image; its error over how far training was from it."
    )
    return page.figure(page.image(figure, words), words)


def _example(example: Example) -> str:
    """The image with, beside it, estimated and measured depth, and where the network looks for poses."""
    estimate, true = example.estimate, example.true_depth
    inverse = cv2.resize(1.0 / estimate.depth, example.image.shape[1::-1])
    brightest = float(np.percentile(inverse, BRIGHTEST))
    pictures = [
        (example.image, example.frame.name),
        (_heat(inverse / brightest), f"depth, bright is near: {_range(estimate.depth)} m"),
    ]
    if true is not None:
        measured = true > 0
        inverse_true = np.where(measured, 1.0 / np.where(measured, true, 1.0), 0.0)
        span = f"{_range(true[measured])} m" if measured.any() else "nowhere"
        share = brightest if not measured.any() else float(np.percentile(inverse_true[measured], BRIGHTEST))
        coloured = _heat(inverse_true / share)
        coloured[~measured] = 0
        pictures.append((coloured, f"measured depth, black where unknown: {span}"))
    for name, attention in (
        ("motion", estimate.local_attention),
        ("relocalization", estimate.global_attention),
    ):
        if attention is not None:
            words = f"attention of {name}, red is more: {attention.min():.2f} to {attention.max():.2f}"
            pictures.append((_overlaid(example.image, attention), words))
    return (
        "".join(page.figure(page.photo(rgb, words, PHOTO_WIDTH), words) for rgb, words in pictures) + "<br>"
    )


def _range(metres: NDArray[np.float32]) -> str:
    low, high = np.percentile(metres, (2, 98))
    return f"{low:.1f} to {high:.1f}"


def _heat(share: NDArray[np.number], colours: int = cv2.COLORMAP_MAGMA) -> NDArray[np.uint8]:
    """RGB picture (H, W, 3) of numbers (H, W), of which 0 is drawn dark and 1 bright."""
    grey = (255 * np.clip(share, 0, 1)).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(grey, colours), cv2.COLOR_BGR2RGB), np.uint8)


def _overlaid(image: NDArray[np.uint8], attention: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image with its attention (h', w') over it, from the least in blue to the most in red."""
    span = max(float(np.ptp(attention)), 1e-9)
    share = cv2.resize(
        (attention - attention.min()) / span, image.shape[1::-1], interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(cv2.addWeighted(image, 0.5, _heat(share, cv2.COLORMAP_JET), 0.5, 0), np.uint8)


def _ground(positions: Array) -> list[int]:
    """The two axes in which positions (N, 3) spread most: any world frame is seen from where that helps."""
    return sorted(int(axis) for axis in np.argsort(np.ptp(positions, axis=0))[1:])


def _from_above(axis: Axes, ground: list[int]) -> None:
    across, up = ("xyz"[each] for each in ground)
    axis.set(xlabel=f"{across} [m]", ylabel=f"{up} [m]", aspect="equal")
    axis.margins(0.05)
