"""A LiDAR's features, its motion and its map: on surfaces known exactly, and on simulated drives."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import apply, invert, pose_error, transform, transform_from_rotation_vector
from ofvl_core.lidar.aloam import Aloam, aloam
from ofvl_core.lidar.features import FLAT, LESS_SHARP, SECTORS, SHARP, SUPPRESSED, features, pick
from ofvl_core.lidar.kiss import kiss_icp
from ofvl_core.lidar.map_alignment import align_maps, built_map
from ofvl_core.lidar.motion import Velocity
from ofvl_core.lidar.registration import Surfaces, line_fits, plane_fits, register
from ofvl_core.lidar.scan import Scan
from ofvl_core.lidar.voxel_map import VoxelMap
from ofvl_core.simulation.facets import box, rectangle
from ofvl_core.simulation.lidar import RINGS, Vlp16
from ofvl_core.simulation.textures import plain
from ofvl_core.simulation.world import World

PERIOD = 0.1
small = st.tuples(*[st.floats(-0.3, 0.3)] * 3).map(np.array)
SEEDS = st.integers(0, 2**32 - 1)


def room() -> World:
    """7 x 5 x 2.8 m with a cupboard, a table and a pillar: no symmetry."""
    grey = plain(np.full(3, 0.5, np.float32))
    walls = [
        rectangle((x, y, z), (-np.sign(x), -np.sign(y), -np.sign(z - 1.4)), *size, grey)
        for x, y, z, size in (
            (3.5, 0, 1.4, (5, 2.8)),
            (-3.5, 0, 1.4, (5, 2.8)),
            (0, 2.5, 1.4, (7, 2.8)),
            (0, -2.5, 1.4, (7, 2.8)),
        )
    ]
    level = [rectangle((0, 0, 0), (0, 0, 1), 7, 5, grey), rectangle((0, 0, 2.8), (0, 0, -1), 7, 5, grey)]
    things = [
        *box((2.6, -2.5, 0), (3.5, -0.8, 1.9), grey, without=()),
        *box((-3.0, 1.2, 0), (-1.6, 2.1, 0.75), grey, without=()),
        *box((-1.0, -1.9, 0), (-0.7, -1.6, 2.8), grey, without=()),
    ]
    return World([*walls, *level, *things])


def world_from_lidar(times, start=(0.0, 0.0), heading=0.0, speed=0.5, turn=0.7):
    """An arc at constant speed from the very beginning, as poses (K, 4, 4)."""
    times = np.asarray(times, float)
    yaw = heading + turn * times
    radius = speed / turn
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(yaw, (0, 0, 1))).as_matrix()
    poses[:, 0, 3] = start[0] + radius * (np.sin(yaw) - np.sin(heading))
    poses[:, 1, 3] = start[1] - radius * (np.cos(yaw) - np.cos(heading))
    poses[:, 2, 3] = 1.1
    return poses


def drive(count, seed=0, **arc):
    """Scans of a drive around `room`, and the truth world_from_lidar (N, 4, 4) at their stamps."""
    rng, world, sensor = np.random.default_rng(seed), room(), Vlp16()
    stamps = 1_000_000_000 + np.arange(count) * 100_000_000

    def pose(times):
        return world_from_lidar(times - 1.0, **arc)

    return [sensor.scan(world, pose, int(stamp), rng) for stamp in stamps], pose(stamps * 1e-9)


@pytest.fixture(scope="module")
def drives():
    """Two drives that begin at different places, facing apart."""
    return drive(20), drive(20, seed=1, start=(1.0, 0.6), heading=2.5, turn=-0.6)


def errors(path, truth):
    """Root mean square errors, metres and degrees, of poses first_from_lidar; nothing is aligned."""
    pairs = [pose_error(a, b) for a, b in zip(path.poses, invert(truth[0]) @ truth, strict=True)]
    return np.sqrt(np.square(pairs).mean(axis=0))


# Motion


@given(small, small, st.floats(-0.5, 0.5).filter(lambda seconds: abs(seconds) > 1e-3))
def test_velocity_between_poses_leads_from_one_to_the_other(linear, angular, seconds):
    velocity = Velocity(linear, angular)
    again = Velocity.between(np.eye(4), velocity.ahead(seconds), seconds)
    assert np.allclose(again.linear, linear, atol=1e-9)
    assert np.allclose(again.angular, angular, atol=1e-9)


@given(small, small, SEEDS)
def test_carried_points_are_each_moved_by_the_pose_at_their_time(linear, angular, seed):
    random = np.random.default_rng(seed)
    points, times = random.normal(size=(5, 3)), random.uniform(-0.1, 0.1, 5)
    velocity = Velocity(linear * 10, angular * 10)
    one_by_one = [apply(velocity.ahead(t), p[None])[0] for p, t in zip(points, times, strict=True)]
    assert np.allclose(velocity.carry(points, times), one_by_one, atol=1e-9)


# Registration


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_jacobian_of_the_distances_is_their_derivative(seed):
    random = np.random.default_rng(seed)
    points, neighbours = random.normal(size=(4, 3)), random.normal(size=(4, 5, 3))
    for fit in (plane_fits, line_fits):
        surfaces, _ = fit(neighbours)
        analytic = surfaces.jacobian(points)
        for column, step in enumerate(1e-6 * np.eye(6)):
            move = [transform_from_rotation_vector(sign * step[3:], sign * step[:3]) for sign in (1, -1)]
            ahead, behind = (surfaces.errors(apply(each, points)) for each in move)
            assert np.allclose(analytic[:, :, column], (ahead - behind) / 2e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_distances_are_those_of_loams_equations(seed):
    """LOAM's Eq. 2 and 3, from two and three points."""
    random = np.random.default_rng(seed)
    x, j, m, k = random.normal(size=(4, 3))
    lines, _ = line_fits(np.array([[j, k]]))
    planes, _ = plane_fits(np.array([[j, k, m]]))
    to_line = np.linalg.norm(np.cross(x - j, x - k)) / np.linalg.norm(j - k)
    normal = np.cross(j - k, j - m)
    to_plane = abs((x - j) @ normal) / np.linalg.norm(normal)
    assert np.linalg.norm(lines.errors(x[None])) == pytest.approx(to_line, abs=1e-9)
    assert np.linalg.norm(planes.errors(x[None])) == pytest.approx(to_plane, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(SEEDS, small, small)
def test_registration_recovers_a_motion_among_outliers(seed, shift, turn):
    """Points on three planes; one in ten is anywhere."""
    random = np.random.default_rng(seed)
    normals = np.repeat(np.eye(3), 60, axis=0)
    there = random.uniform(-2, 2, (180, 3))
    there[normals > 0] = 1.0
    true = transform_from_rotation_vector(turn / 3, shift / 3)
    points = apply(invert(true), there)
    points[::10] += random.normal(size=(18, 3))
    surfaces = Surfaces(normals[:, :, None] * normals[:, None], normals)
    found = np.eye(4)
    for _ in range(4):
        found = register(found, points, surfaces, np.full(180, 1e4), found, np.full(6, 1e-3))
    metres, degrees = pose_error(found, true)
    assert metres < 2e-3
    assert degrees < 0.1


def test_where_the_points_say_nothing_the_prior_stands():
    """Walls on either side of a corridor, and no end in sight."""
    random = np.random.default_rng(0)
    points = random.uniform(-3, 3, (200, 3))
    points[:, 1] = np.where(np.arange(200) % 2, 1.0, -1.0)
    normal = np.diag([0.0, 1.0, 0.0])
    start = transform((0.4, 0.1, -0.2), (0, 0, 0, 1))
    surfaces = Surfaces(np.tile(normal, (200, 1, 1)), points)
    found = register(start, points, surfaces, np.full(200, 1e4), start, np.full(6, 400.0))
    assert np.allclose(found[:3, 3], (0.4, 0.0, -0.2), atol=1e-4)


def test_a_single_rings_points_are_no_plane():
    along = np.linspace(0, 1, 8)[:, None] * (1.0, 0.2, 0.0)
    flat = np.stack([*np.meshgrid([0.0, 0.1, 0.2], [0.0, 0.1, 0.2]), np.zeros((3, 3))], -1).reshape(-1, 3)[:8]
    _, weights = plane_fits(np.stack([along + np.random.default_rng(0).normal(0, 0.003, (8, 3)), flat]))
    assert weights.tolist() == [0, 1]


# Map


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_voxel_means_do_not_depend_on_the_order_of_points(seed):
    random = np.random.default_rng(seed)
    points = random.uniform(-2, 2, (200, 3))
    once, bit_by_bit = VoxelMap(0.5), VoxelMap(0.5)
    once.add(points)
    for part in np.array_split(random.permutation(points), 7):
        bit_by_bit.add(part)
    assert np.allclose(once.points, bit_by_bit.points)
    cells, place = np.unique(np.floor(points / 0.5), axis=0, return_inverse=True)
    assert len(once.points) == len(cells)
    first = points[place.ravel() == 0].mean(axis=0)
    assert np.abs(once.points - first).sum(axis=1).min() < 1e-9


# Features


def test_edges_are_at_corners_and_planes_are_not():
    scans, truth = drive(1, speed=1e-9, turn=1e-9)
    found = features(scans[0])
    assert found.noise == pytest.approx(0.03, rel=0.1)
    planes = apply(truth[0], found.planes.points)
    wall = planes[(planes[:, 0] > 3.0) & (planes[:, 1] > -0.3) & (planes[:, 1] < 2.0) & (planes[:, 2] > 0.3)]
    assert len(wall) > 50
    assert np.std(wall[:, 0] - 3.5) < 0.012  # a third of the noise
    assert abs(np.mean(wall[:, 0] - 3.5)) < 0.004
    corners = np.array([[3.5, 2.5], [-3.5, 2.5], [-3.5, -2.5], [2.6, -0.8], [2.6, -2.5], [-0.7, -1.6]])
    edges = apply(truth[0], found.edges.points)[:, :2]
    for corner in corners:
        assert np.linalg.norm(edges - corner, axis=1).min() < 0.15


def test_picks_are_spread_over_sectors_and_apart():
    scans, _ = drive(1)
    found = features(scans[0])
    assert len(found.sharp) <= RINGS * SECTORS * SHARP
    assert len(found.edges) <= RINGS * SECTORS * LESS_SHARP
    assert len(found.flat) == RINGS * SECTORS * FLAT
    assert len(found.planes) > 1000


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 6))
def test_pick_takes_the_best_first_and_leaves_their_neighbours(seed, count):
    random = np.random.default_rng(seed)
    score = np.where(random.uniform(size=60) < 0.3, -np.inf, random.permutation(60).astype(float))
    sectors = np.stack([np.append(np.arange(25), np.full(10, 60)), np.arange(25, 60)])
    picked, ranks = pick(score, sectors, count)
    assert np.isfinite(score[picked]).all()
    for sector in (picked < 25, picked >= 25):
        assert ranks[sector].tolist() == list(range(sector.sum()))
        assert (np.diff(score[picked[sector]]) < 0).all()
        assert (np.diff(np.sort(picked[sector])) > SUPPRESSED).all()
    left = np.isfinite(score) & (np.abs(np.arange(60)[:, None] - picked).min(axis=1, initial=60) > SUPPRESSED)
    for places, sector in ((slice(0, 25), picked < 25), (slice(25, 60), picked >= 25)):
        assert sector.sum() == count or not left[places].any()


def test_nan_points_and_the_robots_own_are_left_out():
    scans, _ = drive(1)
    scan = scans[0]
    bad = Scan(
        scan.stamp,
        np.concatenate(
            [scan.points, np.full((500, 3), np.nan, np.float32), np.full((500, 3), 0.1, np.float32)]
        ),
        np.concatenate([scan.rings, np.full(1000, 3, np.uint8)]),
        np.concatenate([scan.times, np.zeros(1000, np.float32)]),
    )
    assert np.array_equal(features(bad).planes.points, features(scan).planes.points)


@pytest.mark.parametrize("count", [0, 1, 7, 21, 40])
def test_scans_of_few_points_have_few_features(count):
    scans, _ = drive(1)
    scan = scans[0]
    few = Scan(scan.stamp, scan.points[:count], scan.rings[:count], scan.times[:count])
    assert len(features(few)) < 10


# Drives


def test_aloam_follows_a_drive_that_begins_in_motion(drives):
    (scans, truth), _ = drives
    done = []
    path = aloam(scans, done.append)
    assert done == list(range(1, 21))
    assert path.stamps.tolist() == [scan.stamp for scan in scans]
    metres, degrees = errors(path, truth)
    assert metres < 0.015
    assert degrees < 0.3


def test_kiss_icp_follows_the_same_drive(drives):
    (scans, truth), _ = drives
    path = kiss_icp(scans)
    metres, degrees = errors(path, truth)
    assert metres < 0.15
    assert degrees < 4


def test_kiss_icp_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "kiss_icp.kiss_icp", None)
    with pytest.raises(ConfigError, match="pip install kiss-icp"):
        kiss_icp([])


def test_missed_and_empty_scans_are_gone_without_harm(drives):
    (scans, truth), _ = drives
    empty = Scan(scans[6].stamp, *(a[:0] for a in (scans[6].points, scans[6].rings, scans[6].times)))
    kept = [0, 1, 2, 3, 4, 5, *range(9, 20)]
    method = Aloam()
    for scan in [*scans[:6], empty, *scans[9:]]:
        method.add(scan)
    path = method.path()
    assert method.skipped == 1
    assert path.stamps.tolist() == [scans[i].stamp for i in kept]
    metres, degrees = errors(path, truth[kept])
    assert metres < 0.02
    assert degrees < 0.4


def test_a_scan_at_once_after_another_is_skipped(drives):
    (scans, truth), _ = drives
    again = Scan(scans[2].stamp + 1, scans[2].points, scans[2].rings, scans[2].times)
    method = Aloam()
    for scan in [*scans[:3], again, *scans[3:6]]:
        method.add(scan)
    assert method.skipped == 1
    metres, _ = errors(method.path(), truth[:6])
    assert metres < 0.015


def test_scans_without_times_are_counted_and_used():
    """Standing still there is nothing to compensate."""
    scans, truth = drive(4, speed=1e-9, turn=1e-9)
    untimed = [Scan(each.stamp, each.points, each.rings, np.zeros_like(each.times)) for each in scans]
    method = Aloam()
    for scan in untimed:
        method.add(scan)
    assert method.untimed == 4
    metres, _ = errors(method.path(), truth)
    assert metres < 0.02
    assert len(kiss_icp(untimed)) == 4


@pytest.mark.parametrize("method", [aloam, kiss_icp])
def test_stamps_that_do_not_rise_are_refused(drives, method):
    (scans, _), _ = drives
    with pytest.raises(DataError, match=r"scan 3 .* clock jumped back"):
        method([scans[0], scans[2], scans[1]])


@pytest.mark.parametrize("method", [aloam, kiss_icp])
def test_nothing_but_empty_scans_is_refused(drives, method):
    (scans, _), _ = drives
    empty = Scan(scans[0].stamp, *(a[:0] for a in (scans[0].points, scans[0].rings, scans[0].times)))
    with pytest.raises(DataError, match="spinning LiDAR"):
        method([empty])


# Maps of two drives


def test_two_drives_maps_are_brought_together(drives):
    maps, paths = [], []
    for scans, _ in drives:
        paths.append(aloam(scans))
        maps.append(built_map(scans, paths[-1], 0.1))
    found = align_maps(*maps)
    (_, truth), (_, other) = drives
    metres, degrees = pose_error(
        found.reference_from_other @ paths[1].poses[10], invert(truth[0]) @ other[10]
    )
    assert found.sure
    assert found.overlap > 0.7
    assert found.residual < 0.04
    assert metres < 0.04
    assert degrees < 0.6


def test_a_symmetric_room_is_no_sure_alignment():
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (12000, 3)) * (3, 2, 1.3)
    side = random.integers(3, size=len(points))
    points[np.arange(len(points)), side] = (
        np.sign(points[np.arange(len(points)), side]) * np.array([3, 2, 1.3])[side]
    )
    found = align_maps(points, points)
    assert found.overlap > 0.95
    assert not found.sure


def test_built_map_undoes_the_motion_within_scans(drives):
    (scans, truth), _ = drives
    path = type(aloam(scans[:2]))(np.array([scan.stamp for scan in scans]), truth)
    points = built_map(scans, path, 0.1)
    wall = points[
        (points[:, 0] > 3.3) & (points[:, 1] > -0.3) & (np.abs(points[:, 1]) < 2) & (points[:, 2] > 0.3)
    ]
    assert len(wall) > 300
    assert abs(np.median(wall[:, 0]) - 3.5) < 0.005


def test_maps_of_few_points_are_refused():
    with pytest.raises(DataError, match="second map has 5 points"):
        align_maps(np.random.default_rng(0).normal(size=(500, 3)), np.zeros((5, 3)))
