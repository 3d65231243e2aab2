"""The simulator: what it writes, what its sensors measure, and where its robot drives."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core import geometry
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.simulation import robot, room, simulate, textures
from ofvl_core.simulation.facets import box, rectangle
from ofvl_core.simulation.freespace import FreeSpace
from ofvl_core.simulation.rgbd import BASELINE, D435_COLOUR, DEPTH_NOISE, GRAZING, RgbdCamera
from ofvl_core.simulation.seeding import LAYOUT, ODOMETRY, stream
from ofvl_core.simulation.world import Scenery, World

simulation = importlib.import_module("ofvl_core.simulation.simulate")

SMALL = D435_COLOUR.resized(160, 120)
FRAMES = 8
LOOKING_ALONG_X = geometry.transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """One small scene: two training sequences and a test sequence."""
    out = tmp_path_factory.mktemp("simulated")
    [folder] = simulate(out, 1, seed=7, frames=FRAMES, workers=2, camera=SMALL)
    return folder


def read_frame(scene: Path, sequence: int, number: int):
    stem = scene / f"seq-{sequence:02d}" / f"frame-{number:06d}"
    colour = cv2.imread(f"{stem}.color.png", cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(f"{stem}.depth.png", cv2.IMREAD_UNCHANGED)
    return colour, depth, np.loadtxt(f"{stem}.pose.txt")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------- files


def test_layout_is_complete(scene):
    assert (scene / "TrainSplit.txt").read_text() == "sequence1\nsequence2\n"
    assert (scene / "TestSplit.txt").read_text() == "sequence3\n"
    np.testing.assert_allclose(np.loadtxt(scene / "camera-intrinsics.txt"), SMALL.matrix, atol=1e-5)
    for sequence in (1, 2, 3):
        folder = scene / f"seq-{sequence:02d}"
        assert len(list(folder.iterdir())) == 3 * FRAMES + 2
        stamps = [line.split() for line in (folder / "timestamps.txt").read_text().splitlines()]
        assert [number for number, _ in stamps] == [f"{i:06d}" for i in range(FRAMES)]
        np.testing.assert_allclose(np.diff([float(time) for _, time in stamps]), 1 / simulation.FRAME_RATE)
        for number in range(FRAMES):
            colour, depth, _ = read_frame(scene, sequence, number)
            assert (colour.shape, colour.dtype) == ((120, 160, 3), np.uint8)
            assert (depth.shape, depth.dtype) == ((120, 160), np.uint16)
            assert 0.7 < (depth > 0).mean() < 1.0
            assert colour.std() > 10


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(scene, tmp_path):
    [again] = simulate(tmp_path, 1, seed=7, frames=FRAMES, workers=1, camera=SMALL)
    assert contents(again) == contents(scene)


def test_a_video_is_the_same_drive_looked_at_more_often(tmp_path):
    [folder] = simulate(tmp_path, 1, seed=7, frames=3, rate=10.0, train_sequences=1, workers=1, camera=SMALL)
    stamps = np.loadtxt(folder / "seq-01" / "timestamps.txt")[:, 1]
    np.testing.assert_allclose(np.diff(stamps), 0.1)
    [drive] = simulation.plan_drives(simulation.Place(7, 0, 0), 1, 3, 10.0)
    np.testing.assert_allclose(simulation.frame_times(drive, 3, 10.0), stamps, atol=1e-6)
    for number, stamp in enumerate(stamps):
        world_from_camera = read_frame(folder, 1, number)[2]
        np.testing.assert_allclose(
            world_from_camera, drive.world_from_base(stamp) @ robot.BASE_FROM_OPTICAL, atol=1e-6
        )


def test_seeds_and_scenes_differ():
    sizes = {room.build(stream(seed, scene, LAYOUT)).length for seed in (0, 1) for scene in (0, 1)}
    assert len(sizes) == 4


def test_twins_share_fixtures_and_differ_in_the_rest():
    one, twin = (simulation.Place(3, scene, 0).design() for scene in (0, 1))
    assert (one.length, one.width, one.fixtures) == (twin.length, twin.width, twin.fixtures)
    for mine, theirs in zip(one.facets[: one.fixtures], twin.facets, strict=False):
        np.testing.assert_array_equal(mine.vertices, theirs.vertices)
    loose = [np.concatenate([f.vertices for f in r.facets[r.fixtures :]]) for r in (one, twin)]
    assert loose[0].shape != loose[1].shape or not np.allclose(*loose)
    with pytest.raises(ConfigError, match="cannot be twins"):
        simulate(Path("nowhere"), 3, twins=2)


def test_twins_are_painted_alike_where_they_share():
    shell = simulation.Place(3, 0, 0).design().facets[2:4]
    world = World(shell)
    painted = [Scenery(world, shell, [], 3, 0), Scenery(world, shell, [], 3, 1, painted_as=[0])]
    for number, alike in enumerate((True, False)):
        triangle = np.flatnonzero(world.facet_of_triangle == number)[:1].astype(np.int32)
        points = world.mesh.triangles[triangle] * np.array([0.2, 0.3, 0.5])[:, None]
        looks = [
            scenery.look(
                triangle[None],
                [*points.sum(axis=1).astype(np.float32).T[:, None]],
                np.full((1, 1), 0.02, "f"),
            )
            for scenery in painted
        ]
        assert np.array_equal(*looks) == alike


def test_existing_scene_is_never_overwritten(scene):
    before = contents(scene)
    with pytest.raises(DataError, match="room_1 exists and is not empty: remove it"):
        simulate(scene.parent, 2, frames=FRAMES, camera=SMALL)
    assert contents(scene) == before
    assert [path.name for path in scene.parent.iterdir()] == ["room_1"]


def test_interruption_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "out", 1, frames=20, workers=1, camera=SMALL, progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"scenes": 0}, "scenes is 0"),
        ({"frames": 0}, "frames is 0"),
        ({"test_sequences": 0}, "test sequences is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"rate": 0.0}, "rate is 0 Hz"),
        ({"rate": 60.0}, "rate is 60 Hz"),
        ({"rate": float("nan")}, "rate is nan Hz"),
        ({"motion_blur_ms": 50.0}, "blur is 50 ms"),
        ({"motion_blur_ms": float("nan")}, "blur is nan ms"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, wrong, named):
    with pytest.raises(ConfigError, match=named):
        simulate(tmp_path / "out", **{"scenes": 1, **wrong})
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------- poses and frames


def test_frames_of_the_robot_form_a_tree_that_explains_the_poses(scene):
    description = json.loads((scene / "robot.json").read_text())
    parents = {item["child"]: item for item in description["static_transforms"]}
    assert len(parents) == len(description["static_transforms"])
    base_from_optical, frame, passed = np.eye(4), description["optical_frame"], []
    while frame != description["base_frame"]:
        item = parents[frame]
        base_from_optical = geometry.transform(item["translation"], item["rotation_xyzw"]) @ base_from_optical
        frame = item["parent"]
        passed.append(frame)
    assert passed == ["camera_color_frame", description["camera_frame"], description["base_frame"]]
    for sequence in (1, 2, 3):
        for number in range(FRAMES):
            world_from_camera = read_frame(scene, sequence, number)[2]
            world_from_base = world_from_camera @ geometry.invert(base_from_optical)
            np.testing.assert_allclose(world_from_base[2], [0, 0, 1, 0], atol=1e-8)
            np.testing.assert_allclose(world_from_base[:2, 2], 0, atol=1e-8)


def test_odometry_follows_the_true_motion_with_a_little_drift(scene):
    for sequence in (1, 2, 3):
        folder = scene / f"seq-{sequence:02d}"
        stamps = np.loadtxt(folder / "timestamps.txt")[:, 1]
        rows = np.loadtxt(folder / "odometry.txt")
        times = rows[:, 0]
        np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-6)
        assert times[0] < stamps[0] - 0.3
        assert times[-1] > stamps[-1] + 0.3
        np.testing.assert_allclose(rows[0, 1:], [0, 0, 0, 0, 0, 0, 1], atol=1e-9)

        def true_and_measured(number, folder=folder, stamps=stamps, rows=rows, times=times):
            camera = np.loadtxt(folder / f"frame-{number:06d}.pose.txt")
            row = rows[np.argmin(np.abs(times - stamps[number]))]
            return camera @ geometry.invert(robot.BASE_FROM_OPTICAL), geometry.transform(row[1:4], row[4:])

        (true_first, odom_first), (true_last, odom_last) = true_and_measured(0), true_and_measured(FRAMES - 1)
        position, angle = geometry.pose_error(
            geometry.invert(odom_first) @ odom_last, geometry.invert(true_first) @ true_last
        )
        assert 0 < position < 0.1
        assert 0 < angle < 5


def test_odometry_drift_is_small_and_differs_between_sequences():
    [drive] = simulation.plan_drives(simulation.Place(3, 0, 0), 1, 60)
    path = np.abs(drive.twists[:, 0]).sum() / robot.ODOMETRY_RATE
    turned = np.abs(drive.twists[:, 1]).sum() / robot.ODOMETRY_RATE
    true = geometry.invert(robot.planar_pose(drive.states[0])) @ robot.planar_pose(drive.states[-1])
    errors = [
        geometry.pose_error(robot.planar_pose(drive.odometry(stream(0, 0, ODOMETRY, n))[-1]), true)
        for n in range(20)
    ]
    positions, angles = np.array(errors).T
    assert 0.002 * path < np.median(positions) < 0.08 * path
    assert 0.1 < np.median(angles) < 2 + 0.03 * np.degrees(turned)
    assert len(np.unique(positions)) == 20


@given(st.floats(-0.6, 0.6), st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 2), st.floats(0, 2))
def test_driving_an_arc_in_one_go_or_in_two_is_the_same(speed, rate, yaw, first, second):
    start, twist = np.array([0.3, -0.2, yaw]), np.array([speed, rate])
    halves = robot.advance(robot.advance(start, twist, first), twist, second)
    np.testing.assert_allclose(robot.advance(start, twist, first + second), halves, atol=1e-9)


def test_arc_has_the_radius_of_its_twist():
    state = robot.advance(np.zeros(3), np.array([0.5, 0.25]), 2 * np.pi)
    np.testing.assert_allclose(state, [2.0, 2.0, np.pi / 2], atol=1e-9)  # a quarter of a circle of 2 m


# -------------------------------------------------------------------------------------- trajectories


@pytest.fixture(scope="module", params=[0, 1, 2])
def planned(request):
    """A room's layout and the drives planned in it."""
    layout = room.build(stream(request.param, 0, LAYOUT))
    return layout, simulation.plan_drives(simulation.Place(request.param, 0, 0), 3, 120)


def test_drives_stay_inside_and_clear_of_furniture(planned):
    layout, drives = planned
    for drive in drives:
        places = drive.states[:, :2]
        assert (np.abs(places) < (layout.length / 2, layout.width / 2)).all()
        assert layout.free.clearance(places).min() > robot.RADIUS


def test_drives_keep_the_limits_of_the_robot(planned):
    _, drives = planned
    for drive in drives:
        speed, rate = drive.twists.T
        assert speed.min() >= 0
        assert speed.max() <= robot.MAX_SPEED
        assert np.abs(rate).max() <= robot.MAX_TURN
        assert np.abs(np.diff(speed)).max() * robot.ODOMETRY_RATE < 1.0 + 1e-6
        assert np.abs(drive.states[-1, 2] - drive.states[0, 2]) > 0.1 or speed.sum() > 0


def test_test_drive_is_another_path_through_what_training_saw(planned):
    _, drives = planned
    views = []
    for drive in drives:
        poses = np.array([drive.world_from_base(time) for time in simulation.frame_times(drive, 120)])
        views.append(np.column_stack([poses[:, :2, 3], np.arctan2(poses[:, 1, 0], poses[:, 0, 0])]))
    train, test = np.concatenate(views[:2]), views[2]
    away = np.linalg.norm(test[:, None, :2] - train[None, :, :2], axis=2)
    turned = np.degrees(np.abs((test[:, None, 2] - train[None, :, 2] + np.pi) % (2 * np.pi) - np.pi))
    nearest = np.argmin(away / 0.3 + turned / 15, axis=1)
    every = np.arange(len(test))
    assert 0.03 < np.median(away[every, nearest]) < 0.6
    assert np.median(turned[every, nearest]) < 20
    headings = np.histogram(train[:, 2] % (2 * np.pi), bins=8, range=(0, 2 * np.pi))[0]
    assert headings.min() > 5  # training looks in all directions


def test_pose_between_odometry_rows_is_exact(planned):
    _, drives = planned
    drive = drives[0]
    step = int(np.argmax(drive.twists[:, 0]))
    half = robot.advance(drive.states[step], drive.twists[step], 0.5 / robot.ODOMETRY_RATE)
    pose = drive.world_from_base(drive.times[step] + 0.5 / robot.ODOMETRY_RATE)
    np.testing.assert_allclose(pose, robot.planar_pose(half), atol=1e-9)


def test_clearance_is_the_distance_to_walls_and_obstacles():
    obstacle = np.array([[0.5, -0.5], [1.5, -0.5], [1.5, 0.5], [0.5, 0.5]])
    free = FreeSpace(6.0, 4.0, [obstacle])
    points = np.array([[-2.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, -1.5], [9.0, 0.0]])
    np.testing.assert_allclose(free.clearance(points), [1.0, 0.5, 0.0, 0.5, 0.0], atol=0.08)
    ends = np.array([[2.5, 0.0], [0.0, 1.5]])
    assert free.visible(np.array([-2.0, 0.0]), ends, 0.2).tolist() == [False, True]


# --------------------------------------------------------------------------------- world and sensors


def ramp_across(rng, height, width, density):
    """A picture that grows redder and less green from left to right."""
    share = np.tile((np.arange(width, dtype=np.float32) + 0.5) / width, (height, 1))
    return np.stack([share, 1 - share, np.zeros_like(share)], axis=2)


def ramp_down(rng, height, width, density):
    """A picture that grows redder and less green from top to bottom."""
    return ramp_across(rng, width, height, density).swapaxes(0, 1)


def grey(rng, height, width, density):
    return np.full((height, width, 3), 0.5, np.float32)


def wall_at(distance: float, *others) -> tuple[World, Scenery]:
    """A wall of 40 x 40 m across the x axis, with what stands before it."""
    facets = [rectangle((distance, 0, 0), (-1, 0, 0), 40, 40, grey, density=2, glows=True), *others]
    world = World(facets)
    return world, Scenery(world, facets, [], 0, 0)


@pytest.mark.parametrize(("paint", "axis"), [(ramp_across, 1), (ramp_down, 2)])
def test_view_shows_every_surface_point_where_the_camera_projects_it(paint, axis):
    facet = rectangle((3, 0, 0), (-1, 0, 0), 6.0, 6.0, paint, density=200, glows=True)
    world = World([facet])
    pose = geometry.transform_from_rotation_vector((0.03, -0.08, 0.05), (0.1, -0.05, 0.2)) @ LOOKING_ALONG_X
    view = RgbdCamera(SMALL).view(world, Scenery(world, [facet], [], 0, 0), pose)
    v, u = np.indices((SMALL.height, SMALL.width)).reshape(2, -1)
    points = SMALL.rays(np.stack([u, v], axis=1).astype(float)) * view.depth.reshape(-1, 1)
    in_world = geometry.apply(pose, points)
    np.testing.assert_allclose(in_world[:, 0], 3.0, atol=1e-4)
    red, green = view.colour[..., 0].ravel() / 255, view.colour[..., 1].ravel() / 255
    off = -6.0 * (red - green) / 2 - in_world[:, axis]
    # A pixel is 2 cm on the wall and a grey value 2.4 cm: half a pixel off would show in the mean.
    assert np.abs(off.mean()) < 0.003
    assert np.abs(off).max() < 0.03


def test_frames_agree_on_the_geometry_of_the_room(scene):
    """Depth of one frame, carried by the poses into the next, meets the depth and colour measured there."""
    agreeing = []
    for sequence in (1, 2, 3):
        for number in range(FRAMES - 1):
            colour_a, depth_a, world_from_a = read_frame(scene, sequence, number)
            colour_b, depth_b, world_from_b = read_frame(scene, sequence, number + 1)
            v, u = np.nonzero(depth_a)
            points = SMALL.rays(np.stack([u, v], axis=1).astype(float)) * (depth_a[v, u, None] / 1000)
            in_b = geometry.apply(geometry.invert(world_from_b) @ world_from_a, points)
            front = in_b[:, 2] > 0.3
            in_b, u, v = in_b[front], u[front], v[front]
            target = np.round(SMALL.project(in_b)).astype(int)
            inside = ((target >= 0) & (target < (160, 120))).all(axis=1)
            in_b, target, u, v = in_b[inside], target[inside], u[inside], v[inside]
            measured = depth_b[target[:, 1], target[:, 0]] / 1000
            valid = measured > 0
            close = np.abs(measured - in_b[:, 2]) < 0.02 + 0.02 * in_b[:, 2]
            difference = np.abs(colour_a[v, u].astype(float) - colour_b[target[:, 1], target[:, 0]]).mean(
                axis=1
            )
            if valid.sum() > 2000:
                agreeing.append((close[valid].mean(), np.median(difference[valid & close])))
    assert len(agreeing) > 5
    depth_share, colour_difference = np.median(agreeing, axis=0)
    assert depth_share > 0.85
    assert colour_difference < 12


@pytest.mark.parametrize("distance", [1.0, 2.0, 4.0])
def test_depth_noise_grows_with_the_square_of_the_range(distance):
    world, scenery = wall_at(distance)
    _, depth = RgbdCamera(SMALL).capture(world, scenery, [LOOKING_ALONG_X], np.random.default_rng(0))
    measured = depth[depth > 0] / 1000
    assert measured.mean() == pytest.approx(distance, abs=0.002)
    assert measured.std() == pytest.approx(DEPTH_NOISE * distance**2, rel=0.1)
    assert 0.95 < (depth > 0).mean() < 1.0  # some pixels are lost at random


@pytest.mark.parametrize("distance", [0.2, 7.0])
def test_no_depth_too_near_or_too_far(distance):
    world, scenery = wall_at(distance)
    _, depth = RgbdCamera(SMALL).capture(world, scenery, [LOOKING_ALONG_X], np.random.default_rng(0))
    assert not depth.any()


def test_no_depth_at_grazing_incidence():
    floor = rectangle((2.5, 0, -0.3), (0, 0, 1), 5, 40, grey, density=2, glows=True)
    world, scenery = wall_at(5.0, floor)
    camera = RgbdCamera(SMALL)
    view = camera.view(world, scenery, LOOKING_ALONG_X)
    _, depth = camera.capture(world, scenery, [LOOKING_ALONG_X], np.random.default_rng(0))
    grazing = view.incidence < GRAZING
    assert 0.01 < grazing.mean() < 0.2
    assert not depth[grazing].any()
    assert (depth[~grazing] > 0).mean() > 0.9


def test_second_imager_does_not_see_behind_a_foreground_edge():
    board = rectangle((1, 0, 0), (-1, 0, 0), 0.4, 8, grey, density=50, glows=True)
    world, scenery = wall_at(4.0, board)
    camera = RgbdCamera(D435_COLOUR)
    _, depth = camera.capture(world, scenery, [LOOKING_ALONG_X], np.random.default_rng(0))
    lost = (depth == 0).mean(axis=0)
    left_edge = D435_COLOUR.cx - 0.2 * D435_COLOUR.fx
    band = D435_COLOUR.fx * BASELINE * (1 / 1.0 - 1 / 4.0)  # pixels
    inside = lost[int(left_edge - band + 2) : int(left_edge - 1)]
    assert inside.min() > 0.98
    assert np.delete(lost, np.arange(int(left_edge - band - 1), int(left_edge + 2))).max() < 0.2


def test_motion_blur_softens_colour_and_leaves_depth():
    edge = box((1.9, -0.05, -5), (2.0, 0.05, 5), textures.plain(np.ones(3, np.float32)), glows=True)
    world, scenery = wall_at(3.0, *edge)
    exposure = [
        geometry.transform_from_rotation_vector((0, 0, angle), (0, 0, 0)) @ LOOKING_ALONG_X
        for angle in np.radians(np.linspace(-1.5, 1.5, 9))
    ]
    camera = RgbdCamera(SMALL)
    sharp, sharp_depth = camera.capture(world, scenery, exposure[4:5], np.random.default_rng(0))
    blurred, blurred_depth = camera.capture(world, scenery, exposure, np.random.default_rng(0))
    steepest = [np.abs(np.diff(image[60].astype(int), axis=0)).max() for image in (sharp, blurred)]
    assert steepest[1] < 0.6 * steepest[0]
    np.testing.assert_array_equal(sharp_depth, blurred_depth)


def test_furniture_casts_a_shadow():
    floor = rectangle((0, 0, 0), (0, 0, 1), 6, 6, grey, density=50)
    table = box((-0.5, -0.5, 0.7), (0.5, 0.5, 0.75), grey, without=())
    facets = [floor, *table]
    light = room.Light(
        np.array([-0.2, -0.2, 2.5]), (np.array([0.4, 0, 0]), np.array([0, 0.4, 0])), np.full(3, 20.0)
    )
    world = World(facets)
    scenery = Scenery(world, facets, [light], 0, 0)
    places = np.array([[0, 0, 0], [1.6, 0, 0]], np.float32)
    hits = world.cast(np.array([0, 0, 0.3], np.float32), places - (0, 0, np.float32(0.3)))
    np.testing.assert_allclose(hits.distance, 1, atol=1e-5)
    patch = np.full((2, 1), 0.02, np.float32)
    under, beside = scenery.look(hits.triangle[:, None], places.T[..., None], patch)[:, 0, 0]
    assert 0 < under < 0.8 * beside


RED, BLUE = np.array([0.7, 0.3, 0.3], np.float32), np.array([0.3, 0.3, 0.7], np.float32)
PAINTERS = {
    "plain": textures.plain(RED),
    "wallpaper": textures.wallpaper(RED, BLUE, RED),
    "stripes": textures.stripes(RED, BLUE, 0.05),
    "checks": textures.stripes(RED, BLUE, 0.05, checked=True),
    "planks": textures.planks(RED),
    "tiles": textures.tiles(RED, BLUE),
    "rug": textures.rug(0.3),
    "door": textures.door(RED),
    "drawers": textures.drawers(RED, 3, 2),
    "art": textures.art,
    "notice": textures.notice,
    "window": textures.window,
    "spines": textures.spines,
    "screen": textures.screen,
    "concrete": textures.concrete(RED),
    "formwork": textures.formwork(RED),
    "banded": textures.banded(RED, BLUE, 0.1, 0.4),
    "road paint": textures.road_paint(RED),
    "hazard": textures.hazard,
    "lettering": textures.lettering("A1", RED, BLUE),
    "glazing": textures.glazing,
}


@pytest.mark.parametrize("name", PAINTERS)
@pytest.mark.parametrize("size", [(180, 240), (9, 60), (60, 2), (2, 2)])
def test_pictures_fill_any_rectangle_and_none_is_like_another(name, size):
    pictures = [PAINTERS[name](np.random.default_rng(seed), *size, 150.0) for seed in (0, 1)]
    for picture in pictures:
        assert picture.shape == (*size, 3)
        assert np.isfinite(picture).all()
    if min(size) > 100:
        assert np.abs(pictures[0] - pictures[1]).mean() > 0.01
