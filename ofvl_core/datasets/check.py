"""What is in a scene's folder and what is wrong with it, in plain words, before hours of training go by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets.edges import WIDTH, align_edges
from ofvl_core.datasets.loading import load_scene, recognise
from ofvl_core.datasets.robot import load_robot
from ofvl_core.datasets.scene import Frame, SceneData
from ofvl_core.datasets.surfaces import agreement, telling_pairs
from ofvl_core.errors import DataError, OfvlError
from ofvl_core.evaluation import nearest_view, training_poses
from ofvl_core.geometry import pose_error

SAMPLE = 40
"""Images read of a scene, and pairs of frames compared, unless all are asked for."""
NAMED = 3
"""Files named of those with one fault."""
SUBSAMPLING = 8
"""Every so many pixels of a depth image enter the statistics."""
QUERIES = 200
"""Test frames whose nearest training view is looked for."""

PLAUSIBLE_DEPTH, POSSIBLE_DEPTH = (0.2, 10.0), (0.05, 30.0)
"""Metres between which the median depth of rooms lies, and those beyond which the unit must be wrong."""
MIN_VALID = 0.2
PLAUSIBLE_VIEW = (25.0, 130.0)
"""Degrees of the horizontal field of view."""
OFF_CENTRE = 0.15
"""Share of the width or height by which a principal point may be off the middle."""
JUMP_METRES, JUMP_SPEED, JUMP_FACTOR = 0.5, 5.0, 5.0
"""A step this long (metres), this fast (metres a second) and this many times faster than usual is no motion
but a jump of the tracking."""
REPEATED_SHARE = 0.1
FAR_METRES, FAR_DEGREES, FAR_SHARE = 1.0, 45.0, 0.5
"""Test views further than that from all training views can hardly be localized."""


@dataclass(frozen=True)
class Fact:
    """What is there: `text` for people, `values` for programs."""

    topic: str
    text: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong, with its remedy. A scene with an error cannot be used as it is."""

    severity: Literal["error", "warning"]
    text: str


@dataclass
class SceneReport:
    """All that was found out about a scene's folder."""

    path: Path
    facts: list[Fact] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether training and evaluation can work with the scene."""
        return all(problem.severity != "error" for problem in self.problems)

    def fact(self, topic: str, text: str, **values: Any) -> None:
        """Add a fact."""
        self.facts.append(Fact(topic, text, values))

    def error(self, text: str) -> None:
        """Add a problem that keeps the scene from being used."""
        self.problems.append(Problem("error", text))

    def warning(self, text: str) -> None:
        """Add a problem that does not."""
        self.problems.append(Problem("warning", text))

    def unusable_images(self, causes: list[str]) -> None:
        """Add what is wrong with images, naming few of many and each only once."""
        known = {problem.text for problem in self.problems}
        new = [cause for cause in causes if cause not in known]
        for cause in new[:NAMED]:
            self.error(cause)
        if len(new) > NAMED:
            self.error(f"{len(new) - NAMED} more images are unusable like these")

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "path": str(self.path),
            "usable": self.usable,
            "facts": {fact.topic: fact.values for fact in self.facts},
            "errors": [problem.text for problem in self.problems if problem.severity == "error"],
            "warnings": [problem.text for problem in self.problems if problem.severity == "warning"],
        }


Progress = Callable[[int, int], None]


def check_scene(
    root: Path, every_image: bool = False, progress: Progress = lambda done, total: None
) -> SceneReport:
    """Look at a scene's folder: a sample of its images, or all, and all of its poses.

    Never raises for what is wrong with the scene: that is what the report says. `progress` is called with the
    images read and their total.
    """
    report = SceneReport(root)
    found = recognise(root)
    if found is None:
        report.error(f"{root}: not a scene in a known layout; docs/datasets.md lists what a scene looks like")
        return report
    layout, sign = found
    report.fact("layout", f"{layout.title}: {sign}", title=layout.title, sign=sign)
    try:
        scene = load_scene(root)
        load_robot(root)
    except OfvlError as error:
        report.error(str(error))
        return report
    _check_splits(report, scene)
    _check_camera(report, scene.camera)
    everything = scene.splits["train"] + scene.splits["test"]
    sample = everything if every_image else _spread(everything, SAMPLE)
    pairs = list(telling_pairs([frame for frame in everything if frame.depth is not None], SAMPLE // 2))
    total = len(sample) + 2 * len(pairs)
    _check_images(report, scene, sample, lambda done: progress(done, total))
    _check_motion(report, list(scene.splits.values()))
    _check_views(report, scene)
    _check_surfaces(report, scene, pairs, lambda done: progress(len(sample) + done, total))
    return report


def _spread(frames: list[Frame], count: int) -> list[Frame]:
    places = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int))
    return [frames[place] for place in places]


def _check_splits(report: SceneReport, scene: SceneData) -> None:
    counts = {split: len(frames) for split, frames in scene.splits.items()}
    sequences = {
        split: sorted({frame.sequence for frame in frames}) for split, frames in scene.splits.items()
    }
    text = ", ".join(
        f"{counts[split]} for {purpose} ({_names(sequences[split])})"
        for split, purpose in (("train", "training"), ("test", "testing"))
    )
    report.fact("scene", scene.name, name=scene.name)
    report.fact("frames", text, counts=counts, sequences=sequences, skipped=scene.skipped_poses)
    if scene.skipped_poses:
        report.warning(
            f"{scene.skipped_poses} frames are left out because their pose is missing, NaN or infinite; that "
            "is fine unless they are many"
        )
    if not counts["train"]:
        report.error("no training frames; name sequences for training where the layout lists them")
    if not counts["test"]:
        report.warning("no test frames; hold some out to learn how good a model is")
    both = {frame.color for frame in scene.splits["train"]} & {frame.color for frame in scene.splits["test"]}
    if both:
        report.warning(f"{len(both)} frames are in both splits; test on frames that training never saw")
    without_depth = sum(frame.depth is None for frame in scene.splits["train"])
    if without_depth and without_depth == counts["train"]:
        report.warning(
            "no frame has a depth image: enough for ofvl collab, but ofvl train needs one for each"
        )
    elif without_depth:
        report.error(
            f"{without_depth} of {counts['train']} training frames have no depth image; restore them or "
            "leave the frames out, training needs one for each"
        )


def _check_camera(report: SceneReport, camera: Camera) -> None:
    across, down = (
        float(np.degrees(2 * np.arctan(size / (2 * focal))))
        for size, focal in ((camera.width, camera.fx), (camera.height, camera.fy))
    )
    distorted = ", distorted" if any(camera.distortion) else ""
    report.fact(
        "camera",
        f"{camera.width}x{camera.height}, fx {camera.fx:g} fy {camera.fy:g} cx {camera.cx:g} cy {camera.cy:g}"
        f"{distorted}: sees {across:.0f} x {down:.0f} degrees",
        width=camera.width,
        height=camera.height,
        fx=camera.fx,
        fy=camera.fy,
        cx=camera.cx,
        cy=camera.cy,
        distortion=list(camera.distortion),
        view_deg=[across, down],
    )
    remedy = "check that the intrinsics are those of images of this size, in pixels"
    if not PLAUSIBLE_VIEW[0] <= across <= PLAUSIBLE_VIEW[1]:
        report.warning(f"a field of view of {across:.0f} degrees is unusual; {remedy}")
    offset = max(abs(camera.cx / camera.width - 0.5), abs(camera.cy / camera.height - 0.5))
    if offset > OFF_CENTRE:
        report.warning(f"the principal point is far from the image's middle; {remedy}")
    if not 0.9 < camera.fx / camera.fy < 1.1:
        report.warning(f"the focal lengths differ by more than a tenth; {remedy}")


def _check_images(
    report: SceneReport, scene: SceneData, sample: list[Frame], on_frame: Callable[[int], None]
) -> None:
    unreadable: list[str] = []
    empty: list[str] = []
    valid: list[float] = []
    depths: list[NDArray[np.uint16]] = []
    whole: list[tuple[NDArray[np.uint8], NDArray[np.uint16]]] = []
    for_edges = {frame.name for frame in _spread(sample, SAMPLE // 2)}
    for done, frame in enumerate(sample, 1):
        color = depth = None
        try:
            color = scene.read_color(frame)
        except DataError as error:
            unreadable.append(str(error))
        try:
            depth = scene.read_depth(frame) if frame.depth is not None else None
        except DataError as error:
            unreadable.append(str(error))
        if depth is not None:
            valid.append(float(np.mean(depth > 0)))
            if valid[-1] == 0:
                empty.append(str(frame.depth))
            few = depth[::SUBSAMPLING, ::SUBSAMPLING]
            depths.append(few[few > 0])
            if color is not None and frame.name in for_edges:
                whole.append((color, depth))
        on_frame(done)
    report.fact("images", f"{len(sample)} frames read", read=len(sample), unreadable=len(unreadable))
    report.unusable_images(unreadable)
    if empty:
        report.warning(
            f"{len(empty)} depth images have no valid pixel, so that their frames teach nothing: "
            f"{_names(empty, NAMED)}; remove the frames or record them again"
        )
    if depths:
        _check_depth(report, np.concatenate(depths) / 1000, float(np.mean(valid)))
        _check_registration(report, whole)


def _check_depth(report: SceneReport, depths: NDArray[np.float64], valid: float) -> None:
    if not len(depths):
        report.error("no depth image read has a valid pixel; check the depth's invalid values and unit")
        return
    low, median, high = (float(depth) for depth in np.percentile(depths, (1, 50, 99)))
    report.fact(
        "depth",
        f"{valid:.0%} of the pixels are valid, {low:.2f} to {high:.2f} m, median {median:.2f} m",
        valid=valid,
        low_m=low,
        median_m=median,
        high_m=high,
    )
    if not POSSIBLE_DEPTH[0] <= median <= POSSIBLE_DEPTH[1]:
        report.error(f"a median depth of {median:.3g} m means another unit; {_UNIT_REMEDY}")
    elif not PLAUSIBLE_DEPTH[0] <= median <= PLAUSIBLE_DEPTH[1]:
        report.warning(f"a median depth of {median:.3g} m is unusual indoors; if it is wrong, {_UNIT_REMEDY}")
    if valid < MIN_VALID:
        report.warning(
            f"only {valid:.0%} of the depth pixels are valid; if that is not the sensor's nature, check the "
            "depth's invalid values"
        )


_UNIT_REMEDY = "depth images hold millimetres unless a dataset.yaml says otherwise (depth_unit)"


def _check_registration(
    report: SceneReport, images: list[tuple[NDArray[np.uint8], NDArray[np.uint16]]]
) -> None:
    alignment = align_edges(images)
    if alignment is None:
        return
    report.fact(
        "registration",
        "edges of depth lie on those of colour"
        if alignment.registered
        else "edges of depth do not lie on those of colour",
        contrast=alignment.contrast,
        best_contrast=alignment.best_contrast,
        best_scale=alignment.scale,
        best_shift_px_of_640=list(alignment.shift),
    )
    if not alignment.registered:
        report.warning(
            f"depth seems not registered to colour: their edges meet when the depth image is scaled by "
            f"{alignment.scale:g} and moved by {alignment.shift[0]:+d}, {alignment.shift[1]:+d} pixels of "
            f"{WIDTH} in width; record depth aligned to colour or register it (raw 7-Scenes is registered on "
            "loading unless a camera-intrinsics.txt lies in the scene)"
        )


def _check_motion(report: SceneReport, splits: list[list[Frame]]) -> None:
    frames = [frame for split in splits for frame in split]
    extent = np.ptp([frame.world_from_camera[:3, 3] for frame in frames], axis=0)
    successive = [
        (before, after)
        for split in splits
        for before, after in pairwise(split)
        if before.sequence == after.sequence
    ]
    steps = np.array(
        [pose_error(before.world_from_camera, after.world_from_camera) for before, after in successive]
    ).reshape(-1, 2)
    elapsed = np.array([after.timestamp - before.timestamp for before, after in successive])
    step_m, step_deg = (float(step) for step in np.median(steps, axis=0)) if len(steps) else (0.0, 0.0)
    moved_on = elapsed > 0
    speeds = steps[moved_on, 0] / elapsed[moved_on]
    possible = max(JUMP_SPEED, JUMP_FACTOR * float(np.median(speeds)) if len(speeds) else 0.0)
    too_far = steps[:, 0] > np.maximum(JUMP_METRES, possible * elapsed)
    jumps = [successive[at][1].name for at in np.flatnonzero(too_far & moved_on)]
    backwards = [successive[at][1].name for at in np.flatnonzero(~moved_on)]
    repeated = sum(
        bool((before.world_from_camera == after.world_from_camera).all()) for before, after in successive
    )
    report.fact(
        "motion",
        f"within {extent[0]:.2f} x {extent[1]:.2f} x {extent[2]:.2f} m, median step {100 * step_m:.1f} cm "
        f"and {step_deg:.1f} degrees",
        extent_m=extent.tolist(),
        median_step_m=step_m,
        median_step_deg=step_deg,
        jumps=len(jumps),
        repeated=repeated,
    )
    interval = float(np.median(elapsed)) if len(elapsed) else 0.0
    if interval > 0:
        report.fact("time", f"{1 / interval:.3g} frames a second", median_interval_s=interval)
    if backwards:
        report.warning(
            f"time does not move on at {len(backwards)} frames ({_names(backwards, NAMED)}); correct their "
            "time stamps"
        )
    if jumps:
        report.warning(
            f"the pose jumps at {len(jumps)} frames ({_names(jumps, NAMED)}); leave the frames out if the "
            "tracking was lost there"
        )
    if repeated > REPEATED_SHARE * len(frames):
        report.warning(
            f"{repeated} frames have exactly the pose of the frame before; if the camera moved, the tracking "
            "was stuck: leave them out"
        )


def _check_views(report: SceneReport, scene: SceneData) -> None:
    known = training_poses(scene)
    queries = _spread(scene.splits["test"], QUERIES)
    if not len(known) or not queries:
        return
    nearest = np.array([nearest_view(frame.world_from_camera, known) for frame in queries])
    metres, degrees = (float(median) for median in np.median(nearest, axis=0))
    far = float(np.mean((nearest[:, 0] > FAR_METRES) | (nearest[:, 1] > FAR_DEGREES)))
    report.fact(
        "views",
        f"half of the test views are within {metres:.2f} m and {degrees:.0f} degrees of a training view",
        nearest_m=metres,
        nearest_deg=degrees,
        far_share=far,
    )
    if far > FAR_SHARE:
        report.warning(
            f"{far:.0%} of the test views are further than {FAR_METRES:g} m or {FAR_DEGREES:g} degrees from "
            "any training view; train on sequences that see what is tested"
        )


def _check_surfaces(
    report: SceneReport, scene: SceneData, pairs: list[tuple[Frame, Frame]], on_image: Callable[[int], None]
) -> None:
    depths: dict[str, NDArray[np.uint16]] = {}
    unreadable: list[str] = []
    for done, frame in enumerate((frame for pair in pairs for frame in pair), 1):
        if frame.name not in depths:
            try:
                depths[frame.name] = scene.read_depth(frame)
            except DataError as error:
                depths[frame.name] = np.zeros((1, 1), np.uint16)
                unreadable.append(str(error))
        on_image(done)
    report.unusable_images(unreadable)
    usable = [pair for pair in pairs if all(depths[frame.name].any() for frame in pair)]
    if not usable:
        report.fact("surfaces", "not compared: too little motion or depth", pairs=0)
        return
    found = agreement(scene.camera, usable, depths)
    report.fact(
        "surfaces",
        f"depth of a frame, carried into another, meets its depth to {found.as_given:.1%} (median of "
        f"{len(usable)} pairs)",
        pairs=len(usable),
        disagreement=found.as_given,
        mistake=found.mistake,
        disagreement_without_mistake=found.without_mistake,
    )
    if found.mistake:
        report.error(
            f"poses and depth do not fit: frames disagree by {found.as_given:.0%}, but only by "
            f"{found.without_mistake:.1%} if {found.mistake}; correct the files, or say so in a dataset.yaml"
        )
    elif not found.fits:
        report.warning(
            f"poses, depth and intrinsics do not fit well: frames disagree by {found.as_given:.0%} and none "
            "of the usual mistakes explains it; check intrinsics, registration and whose image each pose is"
        )


def _names(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
