"""The robot of the LIVL data, a D435 and a VLP-16 on wheels, driven through four places; written as bags.

All sensors share one clock, the LiDAR's, but for the camera's driver, whose stamps are off by a constant.
"""

import heapq
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core import bag_messages as ros
from ofvl_core import realsense
from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.files import write_json
from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_core.lidar.scan import Scan
from ofvl_core.simulation.lidar import REVOLUTION, Vlp16
from ofvl_core.simulation.place import Place, built, drives
from ofvl_core.simulation.places import BUILDERS
from ofvl_core.simulation.pool import worker_pool
from ofvl_core.simulation.rgbd import D435_COLOUR, RgbdCamera
from ofvl_core.simulation.robot import BASE_FROM_OPTICAL, ODOMETRY_RATE, ROBOT, Motion, planar_pose
from ofvl_core.simulation.seeding import CALIBRATION, CAMERA, LATENCY, LIDAR, ODOMETRY, stream
from ofvl_core.simulation.writer import sequence_folder
from ofvl_core.trajectory import write_tum

Array = NDArray[np.float64]

Event = tuple[int, str, Any]
"""When a message is received, nanoseconds, its topic, and the message."""

FRAME_RATE = 30.0
SHUTTER = 0.004  # seconds
LEAD = 0.5  # seconds of driving and odometry before the first frame and after the last
LONGEST_OFFSET = 0.4  # seconds, below LEAD: what is seen must be driven
CHUNK = 15  # frames a worker renders in one go
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
PNG = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]  # noise has nothing to look up

CLOUD, LIDAR_FRAME = "/velodyne_points", "velodyne"
POINT = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring", "time"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 18],
        "itemsize": 22,
    }
)
"""A point as the velodyne driver packs it."""

BASE_FROM_LIDAR: Array = transform_from_rotation_vector(np.radians([0.8, -1.2, 4.0]), (-0.06, 0.02, 1.1))
CALIBRATION_ERROR = (np.radians(0.5), 0.01)
"""Radians and metres by which the recorded pose of the LiDAR on the robot is wrong."""

LATENCIES = {"camera": 0.006, "lidar": 0.003, "wheels": 0.001}
"""Seconds from a sensor's stamp, or from what it saw, to the message at the recorder; up to twice as long."""


@dataclass(frozen=True)
class Drive:
    """One sequence: where, how, and the folder that takes what its sensors measure until it is a bag."""

    place: Place
    sequence: int
    motion: Motion
    seconds: float
    folder: Path

    @property
    def frame_times(self) -> Array:
        """When the camera's shutter is half open, seconds."""
        return self.motion.start + LEAD + np.arange(round(self.seconds * FRAME_RATE)) / FRAME_RATE

    @property
    def scan_stamps(self) -> list[int]:
        """When the LiDAR's revolutions end, nanoseconds: they enclose the frames."""
        first = self.motion.start + LEAD
        count = int(np.ceil(self.seconds / REVOLUTION)) + 1
        return [ros.nanoseconds(first + number * REVOLUTION) for number in range(count)]

    def world_from_camera(self, times: float | Array) -> Array:
        """Exact poses of the colour camera (optical frame)."""
        return self.motion.world_from_base(times) @ BASE_FROM_OPTICAL

    def world_from_lidar(self, times: float | Array) -> Array:
        """Exact poses of the LiDAR."""
        return self.motion.world_from_base(times) @ BASE_FROM_LIDAR

    def random(self, purpose: int, *item: int) -> np.random.Generator:
        """The random stream of this sequence for a purpose."""
        return stream(self.place.seed, self.place.scene, purpose, self.sequence, *item)

    def color_file(self, frame: int) -> Path:
        """A frame's colour as the message holds it."""
        return self.folder / f"{frame:06d}.color"

    def depth_file(self, frame: int) -> Path:
        """A frame's depth as the message holds it."""
        return self.folder / f"{frame:06d}.depth"

    def cloud_file(self, scan: int) -> Path:
        """The points of a scan as the message holds them."""
        return self.folder / f"{scan:06d}.cloud"


def simulate_livl(
    out: Path,
    *,
    scenes: tuple[str, ...] = tuple(BUILDERS),
    sequences: int = 4,
    seconds: float = 20.0,
    seed: int = 0,
    time_offset: float = -0.030,
    images: str = "compressed",
    storage: str = "mcap",
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    camera: Camera = D435_COLOUR,
) -> list[Path]:
    """Drive through `scenes` and return the bags, out/SCENE/seq-01 and on.

    `time_offset` is what to add to a camera stamp to get the LiDAR's time, in seconds. `images` says whether
    colour and depth are compressed as image_transport does it or raw, `storage` is one of bag_messages.
    STORAGES. The exact truth is in out/SCENE/truth: seq-01.camera.txt and seq-01.lidar.txt are TUM files of
    world_from_camera (optical frame) and world_from_lidar at the stamps that the images and clouds carry,
    truth.json the calibration, true and as recorded. `progress` is told (frames done, all frames).

    A seed gives the same measurements whatever the number of worker processes (all cores without
    `workers`), the scenes chosen and the number of sequences. Nothing appears in `out` before everything is
    complete. Raises ConfigError for settings that make no sense, DataError where a scene's folder exists.
    """
    _check(scenes, sequences, seconds, seed, time_offset, images, storage, workers)
    out = Path(out)
    for name in scenes:
        if (out / name).exists():
            raise DataError(f"{out / name}: exists already; remove it or simulate into another folder")
    recorded = _recorded_calibration(seed)
    total, done, bags = len(scenes) * sequences * round(seconds * FRAME_RATE), 0, []
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".simulating-") as partial, worker_pool(workers) as pool:
        measured: list[tuple[str, Drive, list[Future[int]]]] = []
        for name in scenes:
            number = list(BUILDERS).index(name)
            place = Place(seed, number, number, BUILDERS[name])
            motions = drives(place, sequences, seconds + 2 * LEAD, spread=True)
            for sequence, motion in enumerate(motions):
                folder = Path(partial) / f"{name}-{sequence}"
                folder.mkdir()
                drive = Drive(place, sequence, motion, seconds, folder)
                measured.append((name, drive, _submit(pool.submit, drive, camera, images)))
        for name, drive, parts in measured:
            for part in as_completed(parts):
                done += part.result()
                if progress:
                    progress(done, total)
            bag = sequence_folder(Path(partial) / name, drive.sequence + 1)
            shift = ros.nanoseconds(time_offset)
            with ros.new_bag(bag, storage) as writer:
                for received, topic, message in _events(drive, camera, images, shift, recorded):
                    writer.write(topic, received, message)
            _write_truth(drive, bag, shift)
            for file in drive.folder.iterdir():
                file.unlink()
            bags.append(out / name / bag.name)
        for name in scenes:
            _write_calibration(Path(partial) / name, recorded, time_offset)
            (Path(partial) / name).replace(out / name)
    return bags


def render(drive: Drive, frames: range, camera: Camera, images: str) -> int:
    """Measure and encode some of a drive's frames; returns how many."""
    world, scenery = built(drive.place)
    sensor = RgbdCamera(camera)
    for frame in frames:
        exposure = _exposure(drive, drive.frame_times[frame], camera)
        color, depth = sensor.capture(world, scenery, exposure, drive.random(CAMERA, frame))
        raw = images == "raw"
        drive.color_file(frame).write_bytes(color.tobytes() if raw else _jpeg(color))
        drive.depth_file(frame).write_bytes(depth.tobytes() if raw else _png(depth))
    return len(frames)


def sweep(drive: Drive) -> int:
    """Measure all of a drive's scans; returns the number of frames among them, none."""
    world, _ = built(drive.place)
    sensor = Vlp16()
    for number, stamp in enumerate(drive.scan_stamps):
        scan = sensor.scan(world, drive.world_from_lidar, stamp, drive.random(LIDAR, number))
        drive.cloud_file(number).write_bytes(_packed(scan).tobytes())
    return 0


def _submit(
    submit: Callable[..., Future[int]], drive: Drive, camera: Camera, images: str
) -> list[Future[int]]:
    frames = len(drive.frame_times)
    chunks = [range(first, min(first + CHUNK, frames)) for first in range(0, frames, CHUNK)]
    return [submit(sweep, drive), *(submit(render, drive, chunk, camera, images) for chunk in chunks)]


def _exposure(drive: Drive, time: float, camera: Camera) -> list[Array]:
    """Camera poses while the shutter is open, as many as the picture moves pixels in that time."""
    speed, rate = drive.motion.twist(time)
    smear = SHUTTER * camera.fx * np.hypot(rate, speed / 2)  # of what is 2 m away, across the line of sight
    samples = 1 + 2 * round(smear / 2)
    offsets = SHUTTER * ((np.arange(samples) + 0.5) / samples - 0.5)
    return list(drive.world_from_camera(time + offsets))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], JPEG)
    return data.tobytes()


def _png(pixels: NDArray[np.uint16]) -> bytes:
    _, data = cv2.imencode(".png", pixels, PNG)
    return bytes(12) + data.tobytes()  # compressed_depth_image_transport's header, unused for integers


def _packed(scan: Scan) -> NDArray[np.void]:
    """The scan's points as the velodyne driver packs them; reflectivity is not simulated."""
    points = np.zeros(len(scan.points), POINT)
    points["x"], points["y"], points["z"] = scan.points.T
    points["ring"], points["time"] = scan.rings, scan.times
    return points


def _recorded_calibration(seed: int) -> Array:
    """base_from_lidar as the robot's builder measured it."""
    axes = stream(seed, CALIBRATION).normal(size=(2, 3))
    rotation, shift = (
        axes / np.linalg.norm(axes, axis=1, keepdims=True) * np.array(CALIBRATION_ERROR)[:, None]
    )
    return BASE_FROM_LIDAR @ transform_from_rotation_vector(rotation, shift)


def _events(drive: Drive, camera: Camera, images: str, shift: int, recorded: Array) -> Iterator[Event]:
    """All messages of a drive in the order in which they are received."""
    start = ros.nanoseconds(drive.motion.start)
    tree = [*ROBOT.static_transforms, (ROBOT.base_frame, LIDAR_FRAME, recorded)]
    yield start, "/tf_static", ros.transforms(start, tree)
    streams = (_camera_events(drive, camera, images, shift), _cloud_events(drive), _wheel_events(drive))
    yield from heapq.merge(*streams, key=itemgetter(0))


def _latencies(drive: Drive, sensor: str, count: int) -> list[int]:
    """Nanoseconds, one each message."""
    rng = drive.random(LATENCY, list(LATENCIES).index(sensor))
    return [int(late) for late in 1e9 * LATENCIES[sensor] * rng.uniform(1, 2, count)]


def _camera_events(drive: Drive, camera: Camera, images: str, shift: int) -> Iterator[Event]:
    frame = ROBOT.optical_frame
    shape = (camera.height, camera.width)
    times = drive.frame_times
    for number, late in enumerate(_latencies(drive, "camera", len(times))):
        seen = ros.nanoseconds(times[number])
        stamp = seen - shift
        received = max(seen, stamp) + late
        info = ros.camera_info(stamp, frame, camera)
        yield received, realsense.COLOR_INFO, info
        color, depth = drive.color_file(number).read_bytes(), drive.depth_file(number).read_bytes()
        if images == "raw":
            pixels = np.frombuffer(color, np.uint8).reshape(*shape, 3)
            yield received, realsense.COLOR_IMAGE, ros.image(stamp, frame, pixels, "rgb8")
            yield received, realsense.DEPTH_INFO, info
            ranges = np.frombuffer(depth, np.uint16).reshape(shape)
            yield received, realsense.DEPTH_IMAGE, ros.image(stamp, frame, ranges, "16UC1")
        else:
            jpeg = ros.compressed_image(stamp, frame, color, "rgb8; jpeg compressed bgr8")
            yield received, f"{realsense.COLOR_IMAGE}/compressed", jpeg
            yield received, realsense.DEPTH_INFO, info
            png = ros.compressed_image(stamp, frame, depth, "16UC1; compressedDepth png")
            yield received, f"{realsense.DEPTH_IMAGE}/compressedDepth", png


def _cloud_events(drive: Drive) -> Iterator[Event]:
    stamps = drive.scan_stamps
    for number, late in enumerate(_latencies(drive, "lidar", len(stamps))):
        points = np.fromfile(drive.cloud_file(number), POINT)
        yield stamps[number] + late, CLOUD, ros.point_cloud(stamps[number], LIDAR_FRAME, points)


def _wheel_events(drive: Drive) -> Iterator[Event]:
    states = drive.motion.odometry(drive.random(ODOMETRY))
    moved = np.diff(states, axis=0, prepend=states[:1]) * ODOMETRY_RATE
    for number, late in enumerate(_latencies(drive, "wheels", len(states))):
        stamp = ros.nanoseconds(drive.motion.times[number])
        odom_from_base, twist = planar_pose(states[number]), moved[number]
        speed, rate = float(np.hypot(*twist[:2])), float(twist[2])  # it never drives backwards
        frames = (ROBOT.odom_frame, ROBOT.base_frame)
        yield stamp + late, "/odom", ros.odometry(stamp, *frames, odom_from_base, speed, rate)
        yield stamp + late, "/tf", ros.transforms(stamp, [(*frames, odom_from_base)])


def _write_truth(drive: Drive, bag: Path, shift: int) -> None:
    times, truth = drive.frame_times, bag.parent / "truth"
    seen = [(ros.nanoseconds(time) - shift) * 1e-9 for time in times]
    write_tum(truth / f"{bag.name}.camera.txt", zip(seen, drive.world_from_camera(times), strict=True))
    ends = np.array(drive.scan_stamps) * 1e-9
    write_tum(truth / f"{bag.name}.lidar.txt", zip(ends, drive.world_from_lidar(ends), strict=True))


def _write_calibration(scene: Path, recorded: Array, time_offset: float) -> None:
    content = {
        "time_offset": time_offset,
        "time_offset_means": "seconds to add to a camera stamp to get the LiDAR clock's time",
        "base_from_lidar": BASE_FROM_LIDAR.tolist(),
        "recorded_base_from_lidar": recorded.tolist(),
        "base_from_optical": BASE_FROM_OPTICAL.tolist(),
    }
    write_json(scene / "truth" / "truth.json", content)


def _check(
    scenes: tuple[str, ...],
    sequences: int,
    seconds: float,
    seed: int,
    time_offset: float,
    images: str,
    storage: str,
    workers: int | None,
) -> None:
    for name in scenes:
        if name not in BUILDERS:
            raise ConfigError(f"unknown scene '{name}'; choose from {', '.join(BUILDERS)}")
    if not scenes or len(set(scenes)) < len(scenes):
        raise ConfigError("no scene, or one of them twice: name each scene once")
    if images not in ("compressed", "raw"):
        raise ConfigError(f"unknown kind of images '{images}'; choose compressed or raw")
    ros.check_storage(storage)
    for name, count in {"sequences": sequences, "workers": 1 if workers is None else workers}.items():
        if count < 1:
            raise ConfigError(f"the number of {name} is {count}: give at least 1")
    if seed < 0:
        raise ConfigError(f"the seed is {seed}: give 0 or a positive number")
    if not 0.5 <= seconds <= 3600:
        raise ConfigError(f"a sequence of {seconds:g} s: give 0.5 to 3600 s")
    if not abs(time_offset) <= LONGEST_OFFSET:
        raise ConfigError(f"the time offset is {time_offset:g} s: give at most {LONGEST_OFFSET} s either way")
