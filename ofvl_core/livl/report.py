"""The page by which a person judges a data set: the ways driven, what was dropped, LiDAR points on images."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ofvl_core import page
from ofvl_core.files import write_text
from ofvl_core.geometry import apply
from ofvl_core.livl.lidar_on_depth import FURTHEST, NEAREST
from ofvl_core.livl.part import Part
from ofvl_core.livl.selection import BLURRED, DAMAGED, NO_DEPTH, OUTSIDE
from ofvl_core.livl.takes import TEST, Take
from ofvl_core.livl.views import Moment

REPORT_FILE = "report.html"
PICTURES = 8
PICTURE_WIDTH = 500
CEILING = 1.4
"""Metres above the camera from which map points are not drawn: they would hide the walls."""

ARROW = 0.4
"""Metres that a frame's arrow is long."""

SHOWN_POINTS = 20000
MARKS = {DAMAGED: "tab:brown", NO_DEPTH: "tab:orange", OUTSIDE: "black", BLURRED: "tab:purple"}
"""Colours of dropped images; those too close to the last are everywhere."""


def write_report(
    folder: Path,
    content: dict[str, Any],
    parts: Sequence[Part],
    takes: Sequence[Take],
    seen: Sequence[Moment],
) -> Path:
    """Write `folder`/report.html, which needs no other file, from a manifest's `content`; return its path."""
    warnings = "".join(f"<li>{html.escape(text)}</li>" for text in content["warnings"])
    sections = [
        f"<p>{html.escape(_introduction(content))}</p>",
        f"<h2>To look at before training</h2><ul>{warnings}</ul>" if warnings else "",
        "<h2>Drives</h2>" + page.table(*_drives(content)),
        "<p>Offset: seconds to add to a camera's stamp to have the LiDAR's time. Second opinion: root mean "
        "square difference of another trajectory after the best rigid alignment. Overlap: share of a drive's "
        "map that lies on the drives' before it.</p>",
        "<h2>Sequences</h2>" + page.table(*_sequences(content)),
        "<h2>From above</h2>" + page.image(_from_above(parts, takes), "trajectories from above"),
        "<h2>Coverage</h2>" + page.image(_coverage(parts, takes), "where frames look from and to"),
        "<h2>LiDAR on images</h2>" + _fit(content),
        *(page.figure(_reprojection(moment), _caption(moment)) for moment in _spread(seen)),
    ]
    path = folder / REPORT_FILE
    write_text(path, page.page(f"{content['scene']}: a data set from {len(parts)} drives", "".join(sections)))
    return path


def _introduction(content: dict[str, Any]) -> str:
    frames = {
        split: sum(s["frames"] for s in content["sequences"] if s["split"] == split)
        for split in ("train", "test")
    }
    metres = sum(drive["metres"] for drive in content["drives"])
    return (
        f"{frames['train']} frames for training and {frames['test']} for testing of {metres:.0f} m driven; "
        f"poses by {content['poses']}. Made by {content['made_by']}."
    )


def _drives(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    headings = ["drive", "s", "m", "offset ms", "+- ms", "second opinion", "cm", "deg", "overlap"]
    rows = []
    for drive in content["drives"]:
        second, offset = drive["second_opinion"], drive["time_offset"]
        rows.append(
            [
                Path(drive["bag"]).name,
                f"{drive['seconds']:.1f}",
                f"{drive['metres']:.1f}",
                f"{1000 * offset['seconds']:.1f}",
                "" if offset["deviation"] is None else f"{1000 * offset['deviation']:.1f}",
                "" if second is None else second["from"],
                "" if second is None else f"{100 * second['position_rmse']:.1f}",
                "" if second is None else f"{second['rotation_rmse_deg']:.2f}",
                "" if drive["overlap_with_earlier"] is None else f"{drive['overlap_with_earlier']:.0%}",
            ]
        )
    return headings, rows


def _sequences(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    reasons = list(content["sequences"][0]["dropped"])
    rows = [
        [
            each["name"],
            each["split"],
            Path(each["bag"]).name,
            str(each["images"]),
            str(each["frames"]),
            *(str(each["dropped"][reason]) for reason in reasons),
        ]
        for each in content["sequences"]
    ]
    return ["sequence", "for", "drive", "images", "frames", *reasons], rows


def _from_above(parts: Sequence[Part], takes: Sequence[Take]) -> Figure:
    figure, axis = _plan(parts)
    for number, take in enumerate(takes):
        part = take.part
        stamps = part.survey.stamps + round(part.time_offset * 1e9)
        places = part.camera_path.at(stamps)[:, :2, 3]
        inside = np.array([part.reasons[image] != OUTSIDE for image in take.images])
        line = places[take.images[inside]]
        style = "--" if take.split == TEST else "-"
        axis.plot(line[:, 0], line[:, 1], style, color=f"C{number % 10}", label=f"{take.name} ({take.split})")
        for reason, color in MARKS.items():
            marked = places[[image for image in take.images if part.reasons[image] == reason]]
            axis.plot(marked[:, 0], marked[:, 1], "x", color=color, markersize=5)
    for reason, color in MARKS.items():
        axis.plot([], [], "x", color=color, label=f"dropped: {reason}")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _coverage(parts: Sequence[Part], takes: Sequence[Take]) -> Figure:
    """Frames for training as arrows where they look to, frames for testing over them."""
    figure, axis = _plan(parts)
    for take in sorted(takes, key=lambda take: take.split == TEST):
        part = take.part
        stamps = part.survey.stamps[take.frames] + round(part.time_offset * 1e9)
        poses = part.camera_path.at(stamps)
        color = "tab:red" if take.split == TEST else "tab:blue"
        places, views = poses[:, :2, 3].T, poses[:, :2, 2].T
        axis.quiver(*places, *views, color=color, angles="xy", scale_units="xy", scale=1 / ARROW, width=0.001)
    axis.plot([], [], color="tab:blue", label="training")
    axis.plot([], [], color="tab:red", label="testing")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _plan(parts: Sequence[Part]) -> tuple[Figure, Axes]:
    """The map of all drives from above, without its ceiling."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    axis = figure.subplots()
    points = np.concatenate([apply(part.world_from_frame, part.points) for part in parts])
    camera = min(float(part.camera_path.poses[:, 2, 3].min()) for part in parts)
    points = points[points[:, 2] < camera + CEILING]
    shown = points[:: max(1, len(points) // SHOWN_POINTS)]
    axis.plot(shown[:, 0], shown[:, 1], ",", color="0.6")
    axis.set(xlabel="x [m]", ylabel="y [m]", aspect="equal")
    return figure, axis


def _fit(content: dict[str, Any]) -> str:
    if content["lidar_on_depth"] is None:
        return "<p>Too few LiDAR points fall on depth images to compare them.</p>"
    sentences = [_fit_in_words(content["lidar_on_depth"], "The calibration seems wrong by")]
    if content["lidar_on_depth_refined"] is not None:
        sentences += ["Refined:", _fit_in_words(content["lidar_on_depth_refined"], "What is left are")]
    sentences.append(
        "In the pictures, points are coloured by distance, red near and blue far; their edges must lie on "
        "the image's."
    )
    return f"<p>{html.escape(' '.join(sentences))}</p>"


def _fit_in_words(fit: dict[str, Any], about: str) -> str:
    turn, shift = np.linalg.norm(fit["correction_deg"]), 100 * np.linalg.norm(fit["correction_m"])
    turn_deviation, shift_deviation = max(fit["deviation_deg"]), 100 * max(fit["deviation_m"])
    return (
        f"{fit['share_agreeing']:.0%} of {fit['points']} points agree with the depth beneath them; the "
        f"median difference is {100 * fit['median']:.1f} cm. {about} {turn:.2f} deg and {shift:.1f} cm "
        f"(standard deviations up to {turn_deviation:.2f} deg, {shift_deviation:.1f} cm)."
    )


def _spread(seen: Sequence[Moment]) -> list[Moment]:
    places = np.linspace(0, len(seen) - 1, min(PICTURES, len(seen))).round().astype(int)
    return [seen[at] for at in places]


def _caption(moment: Moment) -> str:
    return f"{moment.drive}, {moment.stamp * 1e-9:.3f} s"


def _reprojection(moment: Moment) -> str:
    picture: NDArray[np.uint8] = moment.rgb.copy()
    height, width = picture.shape[:2]
    camera = moment.view.camera.resized(width, height)
    points = moment.view.points[moment.view.points[:, 2] > NEAREST]
    pixels = np.rint(camera.project(points)).astype(int) if len(points) else np.empty((0, 2), int)
    inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
    near = 1 - np.clip((points[inside, 2] - NEAREST) / (2 * FURTHEST - NEAREST), 0, 1)
    colors = cv2.applyColorMap((255 * near).astype(np.uint8), cv2.COLORMAP_JET).reshape(-1, 3)[:, ::-1]
    size = max(1, width // 320)
    for (u, v), color in zip(pixels[inside].tolist(), colors.tolist(), strict=True):
        cv2.circle(picture, (u, v), size, color, -1)
    return page.photo(picture, "LiDAR points on an image", PICTURE_WIDTH)
