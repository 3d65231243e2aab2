"""The simulated LIVL robot: its LiDAR, the four places, and the bags that it leaves."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import ConnectionExtRosbag2, QosDurability
from scipy.spatial import cKDTree

from ofvl_core import geometry, realsense
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.simulation import livl, robot, textures
from ofvl_core.simulation.facets import box
from ofvl_core.simulation.lidar import ELEVATIONS, NEAR, RANGE_NOISE, RINGS, Vlp16
from ofvl_core.simulation.livl import BASE_FROM_LIDAR, simulate_livl
from ofvl_core.simulation.place import Place, drives
from ofvl_core.simulation.places import BUILDERS
from ofvl_core.simulation.rgbd import D435_COLOUR
from ofvl_core.simulation.robot import Motion
from ofvl_core.simulation.seeding import LAYOUT, LOOSE, stream
from ofvl_core.simulation.world import World
from ofvl_core.trajectory import read_tum

TINY = D435_COLOUR.resized(64, 48)
SECONDS, OFFSET = 0.6, -0.030
FRAMES, SCANS = 18, 7  # more frames than a worker renders in one go
GREY = textures.plain(np.full(3, 0.5, np.float32))


# ---------------------------------------------------------------------------------------------- VLP-16


def walls(half: float) -> World:
    """Four walls, a floor and a ceiling: a cube around the origin."""
    return World(box((-half,) * 3, (half,) * 3, GREY, without=()))


def off_the_walls(points: np.ndarray, half: float) -> np.ndarray:
    """How far points (N, 3) are from the nearest face of the cube, with a sign."""
    return np.abs(points).max(axis=1) - half


def at_rest(times: np.ndarray) -> np.ndarray:
    return np.tile(np.eye(4), (len(times), 1, 1))


@pytest.fixture(scope="module")
def resting_scan():
    return Vlp16().scan(walls(4.0), at_rest, 5_000_000_000, np.random.default_rng(0))


def test_ranges_are_those_of_the_walls_with_noise(resting_scan):
    points = resting_scan.points.astype(float)
    ranges = np.linalg.norm(points, axis=1)
    expected = 4.0 * ranges / np.abs(points).max(axis=1)
    assert (ranges - expected).std() == pytest.approx(RANGE_NOISE, rel=0.05)
    assert abs((ranges - expected).mean()) < 0.001


def test_a_revolution_is_that_of_the_sensor(resting_scan):
    scan = resting_scan
    assert scan.stamp == 5_000_000_000
    assert (scan.points.dtype, scan.rings.dtype, scan.times.dtype) == (np.float32, np.uint8, np.float32)
    assert np.bincount(scan.rings).tolist() == [1808] * RINGS
    elevation = np.arctan2(scan.points[:, 2], np.hypot(*scan.points[:, :2].T))
    np.testing.assert_allclose(elevation, ELEVATIONS[scan.rings], atol=1e-6)
    assert scan.times[-1] == 0
    assert -0.1 <= scan.times[0] < -0.0999
    assert (np.diff(scan.times) > 0).all()
    azimuth = np.unwrap(np.arctan2(scan.points[:, 1], scan.points[:, 0]).astype(float))
    assert (np.diff(azimuth) < 0).all()  # clockwise
    assert np.degrees(azimuth[0] - azimuth[-1]) == pytest.approx(360, abs=0.25)


def test_a_moving_robots_points_lie_on_the_walls_from_their_own_poses_alone():
    states = [np.array([-1.0, -0.5, 0.3])]
    twists = np.tile([0.6, 0.8], (100, 1))
    for twist in twists:
        states.append(robot.advance(states[-1], twist, 1 / robot.ODOMETRY_RATE))
    motion = Motion(10.0, np.array(states), twists)
    scan = Vlp16().scan(walls(4.0), motion.world_from_base, 11_000_000_000, np.random.default_rng(0))
    poses = motion.world_from_base(11.0 + scan.times.astype(float))
    points = scan.points.astype(float)
    carried = (poses[:, :3, :3] @ points[..., None])[..., 0] + poses[:, :3, 3]
    assert np.abs(off_the_walls(carried, 4.0)).mean() < RANGE_NOISE
    at_once = geometry.apply(motion.world_from_base(11.0), points)
    assert np.abs(off_the_walls(at_once, 4.0)).mean() > 2 * RANGE_NOISE


def test_what_is_too_near_too_far_or_absent_is_no_point():
    near_and_far = [
        *box((0.3, -0.2, -1), (0.4, 0.2, 1), GREY, without=()),
        *box((-120, -200, -200), (-119, 200, 200), GREY, without=()),
    ]
    scan = Vlp16().scan(World(near_and_far), at_rest, 10**9, np.random.default_rng(0))
    assert len(scan.points) == len(scan.rings) == len(scan.times) == 0
    one_wall = World(box((2, -1, -1), (3, 1, 1), GREY, without=()))
    some = Vlp16().scan(one_wall, at_rest, 10**9, np.random.default_rng(0))
    assert 0 < len(some.points) < 28928 / 5
    assert np.linalg.norm(some.points, axis=1).min() > NEAR


def test_poses_at_many_times_are_those_at_each():
    [motion] = drives(Place(3, 0, 0), 1, 4.0)
    times = motion.start + np.linspace(0, 4.0, 57)
    np.testing.assert_array_equal(
        motion.world_from_base(times), [motion.world_from_base(float(time)) for time in times]
    )


# ---------------------------------------------------------------------------------------------- places


def livl_place(name: str, seed: int = 0) -> Place:
    number = list(BUILDERS).index(name)
    return Place(seed, number, number, BUILDERS[name])


@pytest.mark.parametrize(
    ("name", "size"),
    [("K544", (12, 9)), ("Floor5", (12, 5)), ("Parking_lot1", (8, 6)), ("Parking_lot2", (8, 8))],
)
def test_places_have_the_papers_sizes_and_drives_that_share_a_route(name, size):
    place = livl_place(name)
    layout = place.design()
    assert (layout.length, layout.width) == size
    motions = drives(place, 4, 20.0, spread=True)
    for motion in motions:
        assert layout.free.clearance(motion.states[:, :2]).min() > robot.RADIUS
        assert motion.twists[:, 0].sum() / robot.ODOMETRY_RATE > 6.0  # metres
        assert motion.twists[:60, 0].sum() > 0
    starts = np.array([motion.states[0, :2] for motion in motions])
    assert min(np.linalg.norm(a - b) for i, a in enumerate(starts) for b in starts[:i]) > 0.5
    known = np.concatenate([motion.states[:, :2] for motion in motions[:3]])
    away, _ = cKDTree(known).query(motions[3].states[:, :2])
    assert np.median(away) < 0.6
    world, sensor = World(layout.facets), Vlp16()
    for time in (1.0, 10.0):
        stamp = round((motions[0].start + time) * 1e9)
        scan = sensor.scan(
            world, lambda t: motions[0].world_from_base(t) @ BASE_FROM_LIDAR, stamp, np.random.default_rng(0)
        )
        assert len(scan.points) > 26000  # closed: only what is too near is no point
        directions = scan.points[:, :2] / np.linalg.norm(scan.points[:, :2], axis=1, keepdims=True)
        assert np.linalg.eigvalsh(np.cov(directions.T)).min() > 0.3  # seen all around


@pytest.mark.parametrize("name", BUILDERS)
def test_only_what_is_loose_differs_between_twins(name):
    build, number = BUILDERS[name], list(BUILDERS).index(name)
    one, twin = (build(stream(1, number, LAYOUT), stream(1, other, LOOSE)) for other in (8, 9))
    assert one.fixtures == twin.fixtures
    for mine, theirs in zip(one.facets[: one.fixtures], twin.facets, strict=False):
        np.testing.assert_array_equal(mine.vertices, theirs.vertices)
    loose = [np.concatenate([f.vertices for f in r.facets[r.fixtures :]]) for r in (one, twin)]
    assert loose[0].shape != loose[1].shape or not np.allclose(*loose)


# ------------------------------------------------------------------------------------------------ bags


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> list[Path]:
    """Two sequences of a parking deck, compressed."""
    out = tmp_path_factory.mktemp("livl")
    return simulate_livl(
        out,
        scenes=("Parking_lot1",),
        sequences=2,
        seconds=SECONDS,
        time_offset=OFFSET,
        workers=1,
        camera=TINY,
    )


@lru_cache(maxsize=3)
def read(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    """(receive stamp, message) of each topic."""
    with AnyReader([bag]) as reader:
        topics: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in reader.topics}
        for connection, stamp, data in reader.messages():
            topics[connection.topic].append((stamp, reader.deserialize(data, connection.msgtype)))
    return topics


def stamps(messages: list[tuple[int, Any]]) -> np.ndarray:
    return np.array([m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in messages])


def matrix(transform: Any) -> np.ndarray:
    t, q = transform.translation, transform.rotation
    return geometry.transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


COLOR = f"{realsense.COLOR_IMAGE}/compressed"
DEPTH = f"{realsense.DEPTH_IMAGE}/compressedDepth"


def test_a_bag_holds_every_topic_at_its_rate(bags):
    assert [bag.name for bag in bags] == ["seq-01", "seq-02"]
    for bag in bags:
        topics = read(bag)
        wheels = round((SECONDS + 2 * livl.LEAD) * robot.ODOMETRY_RATE) + 1
        assert {topic: len(messages) for topic, messages in topics.items()} == {
            COLOR: FRAMES,
            DEPTH: FRAMES,
            realsense.COLOR_INFO: FRAMES,
            realsense.DEPTH_INFO: FRAMES,
            livl.CLOUD: SCANS,
            "/odom": wheels,
            "/tf": wheels,
            "/tf_static": 1,
        }
        for topic, period in ((COLOR, 1 / 30), (DEPTH, 1 / 30), (livl.CLOUD, 0.1), ("/odom", 0.02)):
            np.testing.assert_allclose(np.diff(stamps(topics[topic])) * 1e-9, period, atol=1e-8)
            late = np.array([received for received, _ in topics[topic]]) - stamps(topics[topic])
            assert 0 < late.min() <= late.max() < 0.02e9
        np.testing.assert_array_equal(stamps(topics[COLOR]), stamps(topics[DEPTH]))


def test_images_are_encoded_as_image_transport_does_it(bags):
    topics = read(bags[0])
    _, color = topics[COLOR][0]
    assert (color.format, color.header.frame_id) == ("rgb8; jpeg compressed bgr8", realsense.OPTICAL_FRAME)
    assert cv2.imdecode(color.data, cv2.IMREAD_UNCHANGED).shape == (48, 64, 3)
    _, depth = topics[DEPTH][0]
    assert (depth.format, depth.header.frame_id) == ("16UC1; compressedDepth png", realsense.OPTICAL_FRAME)
    assert not depth.data[:12].any()
    assert cv2.imdecode(depth.data[12:], cv2.IMREAD_UNCHANGED).dtype == np.uint16
    _, info = topics[realsense.COLOR_INFO][0]
    np.testing.assert_allclose(info.k.reshape(3, 3), TINY.matrix)


def test_camera_truth_is_the_motion_at_the_stamp_plus_the_offset(bags):
    motions = drives(livl_place("Parking_lot1"), 2, SECONDS + 2 * livl.LEAD, spread=True)
    for bag, motion in zip(bags, motions, strict=True):
        truth, topics = bag.parent / "truth", read(bag)
        for name, topic, base_from_sensor, offset in (
            ("camera", COLOR, robot.BASE_FROM_OPTICAL, OFFSET),
            ("lidar", livl.CLOUD, BASE_FROM_LIDAR, 0.0),
        ):
            seconds, poses = read_tum(truth / f"{bag.name}.{name}.txt")
            np.testing.assert_allclose(seconds, stamps(topics[topic]) * 1e-9, atol=1e-9)
            expected = motion.world_from_base(seconds + offset) @ base_from_sensor
            np.testing.assert_allclose(poses, expected, atol=1e-7)


def test_the_tree_is_complete_and_the_calibration_slightly_wrong(bags):
    with AnyReader([bags[0]]) as reader:
        [static] = (c for c in reader.connections if c.topic == "/tf_static")
        assert isinstance(static.ext, ConnectionExtRosbag2)
        assert static.ext.offered_qos_profiles[0].durability is QosDurability.TRANSIENT_LOCAL
    topics = read(bags[0])
    [(_, tree)] = topics["/tf_static"]
    edges = {t.child_frame_id: (t.header.frame_id, matrix(t.transform)) for t in tree.transforms}
    assert {child: parent for child, (parent, _) in edges.items()} == {
        "camera_link": "base_link",
        "camera_color_frame": "camera_link",
        "camera_color_optical_frame": "camera_color_frame",
        "velodyne": "base_link",
    }
    truth = json.loads((bags[0].parent / "truth" / "truth.json").read_text())
    true, recorded = np.array(truth["base_from_lidar"]), np.array(truth["recorded_base_from_lidar"])
    np.testing.assert_allclose(edges["velodyne"][1], recorded, atol=1e-9)
    position, angle = geometry.pose_error(recorded, true)
    assert (position, angle) == (pytest.approx(0.01), pytest.approx(0.5))
    np.testing.assert_allclose(truth["base_from_optical"], robot.BASE_FROM_OPTICAL)
    assert truth["time_offset"] == OFFSET
    for (_, odom), (_, tf) in zip(topics["/odom"], topics["/tf"], strict=True):
        [edge] = tf.transforms
        assert (edge.header.frame_id, edge.child_frame_id) == (odom.header.frame_id, odom.child_frame_id)
        assert odom.pose.pose.position.x == edge.transform.translation.x


def cloud_points(message: Any) -> np.ndarray:
    assert [(f.name, f.offset, f.datatype) for f in message.fields] == [
        ("x", 0, 7),
        ("y", 4, 7),
        ("z", 8, 7),
        ("intensity", 12, 7),
        ("ring", 16, 4),
        ("time", 18, 7),
    ]
    assert (message.point_step, message.row_step) == (22, 22 * message.width)
    assert message.header.frame_id == "velodyne"
    return np.frombuffer(message.data.tobytes(), livl.POINT)


def test_clouds_meet_the_depth_images_by_true_calibration_and_offset(bags):
    topics = read(bags[0])
    [motion] = drives(livl_place("Parking_lot1"), 1, SECONDS + 2 * livl.LEAD, spread=True)
    _, cloud = topics[livl.CLOUD][5]
    points = cloud_points(cloud)
    ends = stamps(topics[livl.CLOUD])[5] * 1e-9
    poses = motion.world_from_base(ends + points["time"].astype(float)) @ BASE_FROM_LIDAR
    seen = np.stack([points[axis] for axis in "xyz"], axis=1).astype(float)
    in_world = (poses[:, :3, :3] @ seen[..., None])[..., 0] + poses[:, :3, 3]
    frame = int(np.argmin(np.abs(stamps(topics[DEPTH]) * 1e-9 + OFFSET - ends + 0.05)))
    _, truth = read_tum(bags[0].parent / "truth" / "seq-01.camera.txt")
    in_camera = geometry.apply(geometry.invert(truth[frame]), in_world)
    in_camera = in_camera[in_camera[:, 2] > 0.3]
    u, v = np.round(TINY.project(in_camera)).astype(int).T
    inside = (u >= 0) & (u < TINY.width) & (v >= 0) & (v < TINY.height)
    depth = cv2.imdecode(topics[DEPTH][frame][1].data[12:], cv2.IMREAD_UNCHANGED) / 1000
    measured, expected = depth[v[inside], u[inside]], in_camera[inside, 2]
    valid = measured > 0
    assert valid.sum() > 500
    assert np.median(np.abs(measured - expected)[valid]) < 0.05


def test_the_same_seed_measures_the_same_in_any_form(bags, tmp_path):
    [raw] = simulate_livl(
        tmp_path,
        scenes=("Parking_lot1",),
        sequences=1,
        seconds=SECONDS,
        time_offset=0.1,
        images="raw",
        storage="sqlite3",
        workers=2,
        camera=TINY,
    )
    one, other = read(bags[0]), read(raw)
    assert stamps(one[COLOR])[0] - stamps(other[realsense.COLOR_IMAGE])[0] == round((0.1 - OFFSET) * 1e9)
    for (_, packed), (_, plain) in zip(one[DEPTH], other[realsense.DEPTH_IMAGE], strict=True):
        pixels = cv2.imdecode(packed.data[12:], cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(pixels, plain.data.view(np.uint16).reshape(48, 64))
        assert (plain.encoding, plain.step) == ("16UC1", 128)
    _, plain = other[realsense.COLOR_IMAGE][0]
    jpeg = cv2.imdecode(one[COLOR][0][1].data, cv2.IMREAD_UNCHANGED)[..., ::-1]
    difference = jpeg.astype(int) - plain.data.reshape(48, 64, 3)
    assert (plain.encoding, np.abs(difference).mean() < 8) == ("rgb8", True)
    for (_, mine), (_, theirs) in zip(one[livl.CLOUD], other[livl.CLOUD], strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)


def test_existing_output_is_refused_and_interruption_leaves_nothing(bags, tmp_path):
    with pytest.raises(DataError, match="Parking_lot1: exists already; remove it"):
        simulate_livl(bags[0].parents[1], seconds=SECONDS)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_livl(
            tmp_path,
            scenes=("Parking_lot1",),
            sequences=1,
            seconds=SECONDS,
            workers=1,
            camera=TINY,
            progress=interrupt,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"scenes": ("K545",)}, "unknown scene 'K545'; choose from K544"),
        ({"scenes": ()}, "name each scene once"),
        ({"sequences": 0}, "sequences is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"seconds": 0.1}, "sequence of 0.1 s"),
        ({"seconds": float("nan")}, "sequence of nan s"),
        ({"seed": -1}, "seed is -1"),
        ({"time_offset": 1.0}, "offset is 1 s"),
        ({"images": "h264"}, "unknown kind of images 'h264'"),
        ({"storage": "tape"}, "unknown storage 'tape'"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, wrong, named):
    with pytest.raises(ConfigError, match=named):
        simulate_livl(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
