"""What is known of one drive: its trajectory, a second opinion on it, its images, its map, its clock."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, invert
from ofvl_core.lidar.map_alignment import built_map
from ofvl_core.lidar.scan import Scan
from ofvl_core.livl import sources
from ofvl_core.livl.comparison import Comparison, compare
from ofvl_core.livl.drive import Drive
from ofvl_core.livl.options import Options, Progress
from ofvl_core.livl.resume import Arrays, Steps
from ofvl_core.livl.survey import Survey, survey
from ofvl_core.livl.time_offset import UNKNOWN, TimeOffset, estimate_time_offset
from ofvl_core.stamped_path import StampedPath

MAP_VOXEL = 0.1
"""Metres between points of a drive's map."""

NO_SECOND = "none"
"""What `compare` is where the user wants no second opinion."""


@dataclass(eq=False)
class Part:
    """What becomes known of a drive from step to step.

    `source` is its trajectory in a `frame` of its own, `second` how another one compares with it, `points`
    (N, 3) its map in that frame. `time_offset` seconds lead from the camera's stamps to the trajectory's;
    `found_offset` is what this drive alone says of it. `correction` (4, 4) is what LiDAR points in the
    camera's frame need; `reasons` has, for every image, why it is dropped.
    """

    drive: Drive
    source: sources.Source
    second_source: str
    second: Comparison | None
    survey: Survey
    points: Array
    found_offset: TimeOffset
    time_offset: float = 0.0
    world_from_frame: Array = field(default_factory=lambda: np.eye(4))
    overlap: float | None = None
    correction: Array = field(default_factory=lambda: np.eye(4))
    reasons: list[str] = field(default_factory=list)

    @property
    def lidar_path(self) -> StampedPath:
        """world_from_lidar, on the trajectory's clock."""
        return self._of(self.drive.tree.static(self.source.body, self.drive.lidar_frame))

    @property
    def camera_path(self) -> StampedPath:
        """world_from_camera, on the trajectory's clock."""
        return self._of(self.drive.body_from_camera(self.source.body) @ invert(self.correction))

    def _of(self, body_from_sensor: Array) -> StampedPath:
        return _carrying(self.source.path, body_from_sensor, self.world_from_frame)


def examine(drive: Drive, options: Options, steps: Steps, progress: Progress) -> Part:
    """Look at a drive from end to end; each long step is done once."""

    def doing(what: str, total: int | None) -> partial[None]:
        return partial(_tell, progress, f"{drive.name}: {what}", total)

    def once(name: str, what: str, wanted: str) -> sources.Source:
        def compute() -> Arrays:
            scans = drive.scan_count if sources.is_computed(wanted) else None
            found = sources.trajectory(drive, wanted, options.body, doing(what, scans))
            return {"stamps": found.path.stamps, "poses": found.path.poses, "body": np.array(found.body)}

        held = steps.once(f"{name} of {drive.name}", compute)
        return sources.Source(StampedPath(held["stamps"], held["poses"]), str(held["body"]))

    source = once("trajectory", f"trajectory by {options.poses}", options.poses)
    if not len(source.path):
        raise DataError(f"{drive.bag}: {options.poses} gives no poses; name another source with --poses")
    wanted = second_source(drive, options)
    second = None
    if wanted != NO_SECOND:
        other = once("second trajectory", f"second opinion by {wanted}", wanted)
        second = compare(_camera_path(drive, source), _camera_path(drive, other))
    images = Survey.from_arrays(
        steps.once(
            f"survey of {drive.name}",
            lambda: survey(
                drive.images(),
                drive.camera,
                drive.read_color,
                drive.read_depth,
                doing("looking at images", drive.image_count),
                turns=options.time_offset is None,
            ).arrays(),
        )
    )
    if not len(images.stamps):
        raise DataError(f"{drive.bag}: no image of {drive.topics.color} can be read; record it again")
    points: NDArray = np.empty((0, 3))
    if drive.has_lidar:
        lidar = _carrying(source.path, drive.tree.static(source.body, drive.lidar_frame), np.eye(4))
        scans = _counted(drive.scans(), doing("building the map", drive.scan_count))
        held = steps.once(f"map of {drive.name}", lambda: {"points": built_map(scans, lidar, MAP_VOXEL)})
        points = held["points"]
    found = UNKNOWN
    if options.time_offset is None:
        found = estimate_time_offset(images.turns, source.path, drive.body_from_camera(source.body))
    return Part(drive, source, wanted, second, images, points, found)


def second_source(drive: Drive, options: Options) -> str:
    """What the trajectory is compared with: what the user named, else the other method that can be had."""
    if options.compare != "auto":
        return options.compare
    if not drive.has_lidar:
        return NO_SECOND
    if options.poses == "kiss-icp":
        return "aloam"
    return "kiss-icp" if importlib.util.find_spec("kiss_icp") else NO_SECOND


def _camera_path(drive: Drive, source: sources.Source) -> StampedPath:
    return _carrying(source.path, drive.body_from_camera(source.body), np.eye(4))


def _carrying(path: StampedPath, body_from_sensor: Array, world_from_frame: Array) -> StampedPath:
    return StampedPath(path.stamps, world_from_frame @ path.poses @ body_from_sensor)


def _counted(scans: Iterable[Scan], progress: Callable[[int], None]) -> Iterator[Scan]:
    """The scans; `progress` is told how many were asked for."""
    for number, scan in enumerate(scans, 1):
        progress(number)
        yield scan


def _tell(progress: Progress, what: str, total: int | None, done: int) -> None:
    progress(what, done, total)
