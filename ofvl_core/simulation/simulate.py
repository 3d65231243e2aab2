"""Make simulated scenes: plan each, render its frames in parallel, and put it in place when it is whole."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.simulation import writer
from ofvl_core.simulation.place import Place, built, drives
from ofvl_core.simulation.pool import worker_pool
from ofvl_core.simulation.rgbd import D435_COLOUR, RgbdCamera
from ofvl_core.simulation.robot import BASE_FROM_OPTICAL, Motion
from ofvl_core.simulation.seeding import CAMERA, ODOMETRY, stream

Array = NDArray[np.float64]

# Every tenth image of a 30 Hz camera: at the robot's speed neighbouring frames are up to 20 cm or 15 degrees
# apart, so that 120 frames cover a room instead of repeating one another.
FRAME_RATE = 3.0
LEAD = 0.5  # seconds of odometry before the first frame and after the last
BLUR_SAMPLES = 9  # instants averaged while the shutter is open
CAMERA_RATE = 30.0  # Hz, of the camera behind the frames
MAX_SHUTTER_MS = 33.0  # its shutter is open no longer than a frame lasts
CHUNK = 10  # frames a worker renders in one go


@dataclass(frozen=True)
class Recording:
    """Some frames of one sequence, to be rendered: for each its number and camera poses while exposed."""

    place: Place
    sequence: int
    folder: Path
    camera: Camera
    exposures: dict[int, list[Array]]


def simulate(
    out: Path,
    scenes: int,
    *,
    seed: int = 0,
    train_sequences: int = 2,
    test_sequences: int = 1,
    frames: int = 120,
    rate: float = FRAME_RATE,
    motion_blur_ms: float = 0.0,
    twins: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    camera: Camera = D435_COLOUR,
) -> list[Path]:
    """Write `scenes` scenes in the 7-Scenes layout and return their folders, out/room_1 and on.

    Each sequence has `frames` frames, `rate` a second; `motion_blur_ms` is how long the shutter is open. The
    last `twins` rooms are the first ones again, with other pictures and other free-standing furniture.
    `progress` is told (frames done, all frames). A seed gives the same files on the same machine whatever
    the number of worker processes (all cores without `workers`), and scene n, unless it is a twin, the same
    for any `scenes`. Nothing appears in `out` before everything is complete. Raises ConfigError for numbers
    that make no sense and DataError where a scene's folder already holds something.
    """
    _check(scenes, seed, train_sequences, test_sequences, frames, rate, motion_blur_ms, twins, workers)
    targets = [Path(out) / f"room_{number + 1}" for number in range(scenes)]
    for target in targets:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target} exists and is not empty: remove it or simulate into another folder")
    originals = range(scenes - twins)
    places = [
        Place(seed, scene, scene if scene in originals else scene - len(originals)) for scene in range(scenes)
    ]
    Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".simulating-") as partial, worker_pool(workers) as pool:
        folders = [Path(partial) / target.name for target in targets]
        plans = [
            pool.submit(plan_drives, place, train_sequences + test_sequences, frames, rate)
            for place in places
        ]
        renderings = []
        for place, folder, plan in zip(places, folders, plans, strict=True):
            folder.mkdir()
            writer.write_scene(folder, camera, train_sequences, test_sequences)
            for sequence, motion in enumerate(plan.result()):
                at = writer.sequence_folder(folder, sequence + 1)
                at.mkdir()
                times = frame_times(motion, frames, rate)
                writer.write_timestamps(at, times)
                rng = stream(seed, place.scene, ODOMETRY, sequence)
                writer.write_odometry(at, motion.times, motion.odometry(rng))
                for exposures in _chunks(motion, times, motion_blur_ms / 1000):
                    recording = Recording(place, sequence, at, camera, exposures)
                    renderings.append(pool.submit(render, recording))
        total, done = scenes * (train_sequences + test_sequences) * frames, 0
        for rendering in as_completed(renderings):
            done += rendering.result()
            if progress:
                progress(done, total)
        for folder, target in zip(folders, targets, strict=True):
            folder.replace(target)
    return targets


def plan_drives(place: Place, sequences: int, frames: int, rate: float = FRAME_RATE) -> list[Motion]:
    """The drives of a scene, long enough for their frames, `rate` a second."""
    return drives(place, sequences, (frames - 1) / rate + 2 * LEAD)


def render(recording: Recording) -> int:
    """Render and write a recording's frames; returns how many."""
    place = recording.place
    world, scenery = built(place)
    sensor = RgbdCamera(recording.camera)
    for frame, exposure in recording.exposures.items():
        rng = stream(place.seed, place.scene, CAMERA, recording.sequence, frame)
        colour, depth = sensor.capture(world, scenery, exposure, rng)
        writer.write_frame(recording.folder, frame, colour, depth, exposure[len(exposure) // 2])
    return len(recording.exposures)


def frame_times(motion: Motion, frames: int, rate: float = FRAME_RATE) -> list[float]:
    """When the frames of a drive are taken, seconds."""
    return [motion.start + LEAD + frame / rate for frame in range(frames)]


def _chunks(motion: Motion, times: list[float], shutter: float) -> Iterator[dict[int, list[Array]]]:
    """Camera poses during the exposure of every frame, CHUNK frames at a time."""
    samples = BLUR_SAMPLES if shutter > 0 else 1
    offsets = shutter * ((np.arange(samples) + 0.5) / samples - 0.5)
    for first in range(0, len(times), CHUNK):
        yield {
            frame: [motion.world_from_base(times[frame] + offset) @ BASE_FROM_OPTICAL for offset in offsets]
            for frame in range(first, min(first + CHUNK, len(times)))
        }


def _check(
    scenes: int,
    seed: int,
    train: int,
    test: int,
    frames: int,
    rate: float,
    motion_blur_ms: float,
    twins: int,
    workers: int | None,
) -> None:
    counts = {"scenes": scenes, "train sequences": train, "test sequences": test, "frames": frames}
    counts["workers"] = 1 if workers is None else workers
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"the number of {name} is {count}: give at least 1")
    if not 0 <= twins <= scenes / 2:
        raise ConfigError(f"{twins} of {scenes} rooms cannot be twins of others: give at most half of them")
    if seed < 0:
        raise ConfigError(f"the seed is {seed}: give 0 or a positive number")
    if not 0 < rate <= CAMERA_RATE:
        raise ConfigError(f"the rate is {rate:g} Hz: give more than 0 and at most {CAMERA_RATE:g} Hz")
    if not 0 <= motion_blur_ms <= MAX_SHUTTER_MS:
        raise ConfigError(f"the motion blur is {motion_blur_ms:g} ms: give 0 to {MAX_SHUTTER_MS:g} ms")
