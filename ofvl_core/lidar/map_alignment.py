"""Two maps of one building, made by drives that began at different places, brought together.

First by what stands upright in them, seen from above in layers: for every heading the shift with the most
agreement is found at once, by a Fourier transform (the search of Olson, "Real-time correlative scan
matching", ICRA 2009). Then the best few are refined from points to planes, and judged by what agrees.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, apply, pose_error, transform_from_rotation_vector
from ofvl_core.lidar.motion import STANDSTILL, Velocity
from ofvl_core.lidar.registration import Surfaces, register
from ofvl_core.lidar.scan import Scan
from ofvl_core.lidar.voxel_map import VoxelMap
from ofvl_core.stamped_path import StampedPath

CELL = 0.2  # metres of the view from above
LAYER = 0.6  # metres of height
HEADINGS = 180
BLUR = 1.0  # cells
UPRIGHT = 0.3  # sine of a wall's greatest lean
NEIGHBOURS = 12  # of a point, that show its surface

CANDIDATES = 12
REFINEMENTS = 15
SAMPLES = 4000  # points that are refined with
FACING = 0.8  # cosine between the normals of a match
ERROR = 0.02  # metres between a map's points and its surfaces
REACHES = 0.6, 0.05  # metres to a point's match, at the first and at the last refinement
AGREES = 0.1  # metres
FEWEST = 100  # points of a map

SAME_DISTANCE, SAME_ANGLE = 0.5, 10.0  # metres and degrees within which two candidates are one
MARGIN = 0.02  # overlap by which the best must be ahead


@dataclass(frozen=True, eq=False)
class MapAlignment:
    """`reference_from_other` (4, 4); `overlap` is the share of both maps' upright surfaces that have the
    other's within AGREES, `residual` the root mean square distance, metres, between their surfaces there.

    `runner_up` is the overlap of the next best alignment that is another one.
    """

    reference_from_other: Array
    overlap: float
    residual: float
    runner_up: float

    @property
    def sure(self) -> bool:
        """Whether no other alignment is nearly as good: in a symmetric building one is."""
        return self.overlap > self.runner_up + MARGIN


class _Map:
    """Points (N, 3) with their surfaces' normals (N, 3); `upright` (N,) are walls and the like."""

    def __init__(self, points: Array, name: str) -> None:
        self.points = points[np.isfinite(points).all(axis=1)]
        if len(self.points) < FEWEST:
            raise DataError(
                f"the {name} map has {len(self.points)} points, too few to align: record a longer drive"
            )
        self.tree = cKDTree(self.points)
        _, places = self.tree.query(self.points, NEIGHBOURS)
        near = self.points[places]
        near = near - near.mean(axis=1, keepdims=True)
        _, axes = np.linalg.eigh(np.swapaxes(near, 1, 2) @ near)
        self.normals = axes[:, :, 0]
        self.upright = np.abs(self.normals[:, 2]) < UPRIGHT


def align_maps(reference: Array, other: Array) -> MapAlignment:
    """The alignment of two maps' points (N, 3) and (M, 3), metres, each with z roughly up.

    Takes points that are evenly spread, as `built_map` makes them. Heading and shift may be anything.
    Raises DataError for maps of too few points.
    """
    fixed, moving = _Map(reference, "first"), _Map(other, "second")
    found: list[tuple[float, float, Array]] = []
    for start in _candidates(fixed, moving):
        pose = _refined(fixed, moving, start)
        if not any(_alike(pose, known, moving) for _, _, known in found):
            found.append((*_agreement(fixed, moving, pose), pose))
    found.sort(key=lambda each: -each[0])
    overlap, residual, pose = found[0]
    return MapAlignment(pose, overlap, residual, found[1][0] if len(found) > 1 else 0.0)


def built_map(scans: Iterable[Scan], path: StampedPath, voxel: float) -> Array:
    """Points (N, 3), metres in the path's frame, of scans whose sensor went along `path`, one a `voxel`.

    Every point is carried by the velocity during its scan. Scans that begin before the path or end after it
    are left out.
    """
    built = VoxelMap(voxel)
    for scan in scans:
        finite = np.isfinite(scan.points).all(axis=1)
        times = scan.times[finite].astype(np.float64)
        duration = -float(times.min(initial=0.0))
        begin = scan.stamp - round(1e9 * duration)
        if begin < path.stamps[0] or scan.stamp > path.stamps[-1]:
            continue
        before, pose = path.at(np.array([begin, scan.stamp], np.int64))
        velocity = Velocity.between(before, pose, duration) if duration else STANDSTILL
        built.add(apply(pose, velocity.carry(scan.points[finite].astype(np.float64), times)))
    return built.points


def _candidates(fixed: _Map, moving: _Map) -> list[Array]:
    """For headings all around the shift with the most agreement; of those the best CANDIDATES that differ."""
    walls, others = fixed.points[fixed.upright], moving.points[moving.upright]
    if not len(walls) or not len(others):
        return [np.eye(4)]
    corner, centre = walls.min(axis=0), np.append(others[:, :2].mean(axis=0), 0.0)
    reach = float(np.linalg.norm((others - centre)[:, :2], axis=1).max())
    size = next_fast_len(int(np.ceil((np.ptp(walls[:, :2], axis=0).max() + 2 * reach) / CELL)) + 4, real=True)
    lowest = min(corner[2], others[:, 2].min())
    layers = int((max(walls[:, 2].max(), others[:, 2].max()) - lowest) / LAYER) + 1
    origin = np.array([corner[0], corner[1], lowest])

    def view(points: Array) -> NDArray[np.float32]:
        """Which cells (layers, size, size) hold a point, around the grid's ends."""
        cells = np.floor((points - origin) / (CELL, CELL, LAYER)).astype(int)
        seen = np.zeros((layers, size, size), np.float32)
        seen[cells[:, 2], cells[:, 0] % size, cells[:, 1] % size] = 1
        return seen

    blurred = rfft2(gaussian_filter(view(walls), (0, BLUR, BLUR), mode="wrap"))
    scored = []
    for heading in np.arange(HEADINGS) * (2 * np.pi / HEADINGS):
        turn = transform_from_rotation_vector((0, 0, heading), (0, 0, 0))
        # Around its own middle, placed at the grid's origin.
        placed = apply(turn, others - centre) + origin * (1, 1, 0)
        agreement = irfft2((blurred * rfft2(view(placed)).conj()).sum(axis=0), (size, size))
        best = np.unravel_index(agreement.argmax(), agreement.shape)
        # Shifts are cyclic: what is beyond the end is before the beginning.
        cells = (np.array(best) + reach / CELL) % size - reach / CELL
        turn[:3, 3] = np.append(cells * CELL + corner[:2], 0.0) - turn[:3, :3] @ centre
        scored.append((float(agreement[best]), turn))
    scored.sort(key=lambda each: -each[0])
    chosen: list[Array] = []
    for _, pose in scored:
        if len(chosen) < CANDIDATES and not any(_alike(pose, known, moving) for known in chosen):
            chosen.append(pose)
    return chosen


def _refined(fixed: _Map, moving: _Map, pose: Array) -> Array:
    """From points to planes, with matches ever nearer."""
    some = slice(None, None, max(1, len(moving.points) // SAMPLES))
    points, normals = moving.points[some], moving.normals[some]
    for reach in np.geomspace(*REACHES, REFINEMENTS):
        distances, places = fixed.tree.query(apply(pose, points))
        across = fixed.normals[places]
        facing = np.abs(np.einsum("ni,ni->n", across, normals @ pose[:3, :3].T)) > FACING
        surfaces = Surfaces(across[:, :, None] * across[:, None], fixed.points[places])
        pose = register(pose, points, surfaces, ((distances < reach) & facing) / ERROR**2, pose, np.ones(6))
    return pose


def _agreement(fixed: _Map, moving: _Map, pose: Array) -> tuple[float, float]:
    """Overlap and residual, as in MapAlignment."""
    moved = apply(pose, moving.points)
    to_fixed, places = fixed.tree.query(moved)
    to_moved, _ = cKDTree(moved).query(fixed.points)
    near = to_fixed < AGREES
    # Floors and ceilings agree whatever the heading.
    shares = near[moving.upright], to_moved[fixed.upright] < AGREES
    overlap = float(np.mean([share.mean() if len(share) else 0.0 for share in shares]))
    across = np.einsum("ni,ni->n", fixed.normals[places], moved - fixed.points[places])[near]
    return overlap, float(np.sqrt(np.square(across).mean())) if near.any() else np.inf


def _alike(pose: Array, other: Array, moving: _Map) -> bool:
    """Whether two poses of the moving map are one: in heading, and where they put its middle."""
    _, degrees = pose_error(pose, other)
    middle = moving.points.mean(axis=0, keepdims=True)
    shift = np.linalg.norm(apply(pose, middle) - apply(other, middle))
    return bool(degrees < SAME_ANGLE and shift < SAME_DISTANCE)
