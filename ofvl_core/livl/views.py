"""Moments of a drive at which the LiDAR's points are held against an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.lidar.scan import Scan
from ofvl_core.livl.drive import Drive
from ofvl_core.livl.lidar_on_depth import View
from ofvl_core.livl.options import Progress
from ofvl_core.livl.part import Part
from ofvl_core.livl.selection import LEAST_DEPTH_SHARE
from ofvl_core.stamped_path import StampedPath

MOMENTS = 40
"""Images, spread over all drives, at which LiDAR and depth are compared."""

HALF_REVOLUTION = 50_000_000
"""Nanoseconds from a scan's middle to its stamp, its end."""


@dataclass(frozen=True, eq=False)
class Moment:
    """An image (H, W, 3) and a view of the LiDAR's points on its depth; `drive` and `stamp` say which."""

    drive: str
    stamp: int
    rgb: NDArray[np.uint8]
    view: View

    def corrected(self, correction: Array) -> "Moment":
        """The moment with a correction (4, 4) applied to the LiDAR's points."""
        return replace(self, view=replace(self.view, points=apply(correction, self.view.points)))


def moments(
    drive: Drive,
    stamps: Sequence[int],
    time_offset: float,
    camera_path: StampedPath,
    lidar_path: StampedPath,
) -> list[Moment]:
    """The moments of some images, given by the stamps that the camera put on them.

    The paths are world_from_camera and world_from_lidar, on the LiDAR's clock. An image without depth, or
    without a scan of its time, gives none.
    """
    offset = round(time_offset * 1e9)
    scans = _nearest(drive, np.array(stamps, np.int64) + offset)
    wanted = dict(zip(stamps, scans, strict=True))
    found = []
    for pair in drive.images():
        scan = wanted.get(pair.stamp)
        if scan is None or pair.depth is None:
            continue
        camera_from_world = invert(camera_path.at(np.array([pair.stamp + offset]))[0])
        points = apply(camera_from_world, _carried(scan, lidar_path))
        depth = drive.read_depth(pair.depth)
        view = View(depth, _camera_of(drive.camera, depth), points)
        found.append(Moment(drive.name, pair.stamp, drive.read_color(pair.color), view))
    return found


def _carried(scan: Scan, world_from_lidar: StampedPath) -> Array:
    """The scan's points (N, 3) in the world, each from where the LiDAR was at its time."""
    poses = world_from_lidar.at(scan.stamp + np.round(scan.times * 1e9).astype(np.int64))
    return np.einsum("nij,nj->ni", poses[:, :3, :3], scan.points) + poses[:, :3, 3]


def spread_moments(parts: Sequence[Part], progress: Progress) -> list[Moment]:
    """Moments of images that have depth, spread over all drives with a LiDAR."""
    seen: list[Moment] = []
    for done, part in enumerate(parts):
        progress("comparing LiDAR and depth", done, len(parts))
        if part.drive.has_lidar:
            stamps = _spread(part, -(-MOMENTS // len(parts)))
            seen += moments(part.drive, stamps, part.time_offset, part.camera_path, part.lidar_path)
    return seen


def _spread(part: Part, count: int) -> list[int]:
    """Stamps of about `count` usable images, evenly over the drive."""
    survey = part.survey
    usable = survey.stamps[
        (survey.depth_share >= LEAST_DEPTH_SHARE)
        & (survey.sharpness > 0)
        & part.camera_path.covers(survey.stamps + round(part.time_offset * 1e9))
    ]
    places = np.unique(np.linspace(0, len(usable) - 1, count + 2).round().astype(int)[1:-1])
    return [int(usable[at]) for at in places] if len(usable) else []


def _camera_of(camera: Camera, image: NDArray) -> Camera:
    height, width = image.shape[:2]
    return camera.resized(width, height)


def _nearest(drive: Drive, times: NDArray[np.int64]) -> list[Scan | None]:
    """For each time the revolution in the middle of which it lies, None without one."""
    best: list[Scan | None] = [None] * len(times)
    apart = np.full(len(times), HALF_REVOLUTION)
    for scan in drive.scans():
        distance = np.abs(scan.stamp - HALF_REVOLUTION - times)
        for at in np.flatnonzero(distance <= apart):
            best[at], apart[at] = scan, distance[at]
    return best
