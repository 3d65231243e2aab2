"""Make simulated scenes: plan each, render its frames in parallel, and put it in place when it is whole."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.simulation import room, writer
from ofvl_core.simulation.rgbd import D435_COLOUR, RgbdCamera
from ofvl_core.simulation.robot import BASE_FROM_OPTICAL, Motion
from ofvl_core.simulation.seeding import CAMERA, LAYOUT, LOOSE, MOTION, ODOMETRY, stream
from ofvl_core.simulation.trajectory import patrol
from ofvl_core.simulation.world import Scenery, World

Array = NDArray[np.float64]

# Every tenth image of a 30 Hz camera: at the robot's speed neighbouring frames are up to 20 cm or 15 degrees
# apart, so that 120 frames cover a room instead of repeating one another.
FRAME_RATE = 3.0
LEAD = 0.5  # seconds of odometry before the first frame and after the last
PAUSE = 10.0  # seconds between sequences
BLUR_SAMPLES = 9  # instants averaged while the shutter is open
MAX_SHUTTER_MS = 33.0  # the camera behind the frames runs at 30 Hz
CHUNK = 10  # frames a worker renders in one go


@dataclass(frozen=True)
class Place:
    """Which room: the `scene` of a `seed`, built and painted like the room `twin_of` if that is another."""

    seed: int
    scene: int
    twin_of: int

    def design(self) -> room.Room:
        """The room's surfaces, lights and free space."""
        is_twin = self.twin_of != self.scene
        loose = stream(self.seed, self.scene, LOOSE) if is_twin else None
        return room.build(stream(self.seed, self.twin_of, LAYOUT), loose)


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
    motion_blur_ms: float = 0.0,
    twins: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    camera: Camera = D435_COLOUR,
) -> list[Path]:
    """Write `scenes` scenes in the 7-Scenes layout and return their folders, out/room_1 and on.

    Each sequence has `frames` frames at FRAME_RATE; `motion_blur_ms` is how long the shutter is open. The
    last `twins` rooms are the first ones again, with other pictures and other free-standing furniture.
    `progress` is told (frames done, all frames). A seed gives the same files on the same machine whatever
    the number of worker processes (all cores without `workers`), and scene n, unless it is a twin, the same
    for any `scenes`. Nothing appears in `out` before everything is complete. Raises ConfigError for numbers
    that make no sense and DataError where a scene's folder already holds something.
    """
    _check(scenes, seed, train_sequences, test_sequences, frames, motion_blur_ms, twins, workers)
    targets = [Path(out) / f"room_{number + 1}" for number in range(scenes)]
    for target in targets:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target} exists and is not empty: remove it or simulate into another folder")
    originals = range(scenes - twins)
    places = [
        Place(seed, scene, scene if scene in originals else scene - len(originals)) for scene in range(scenes)
    ]
    Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".simulating-") as partial, _pool(workers) as pool:
        folders = [Path(partial) / target.name for target in targets]
        plans = [
            pool.submit(plan_drives, place, train_sequences + test_sequences, frames) for place in places
        ]
        renderings = []
        for place, folder, plan in zip(places, folders, plans, strict=True):
            folder.mkdir()
            writer.write_scene(folder, camera, train_sequences, test_sequences)
            for sequence, motion in enumerate(plan.result()):
                at = writer.sequence_folder(folder, sequence + 1)
                at.mkdir()
                _write_tables(at, motion, frames, stream(seed, place.scene, ODOMETRY, sequence))
                for exposures in _chunks(motion, frames, motion_blur_ms / 1000):
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


def plan_drives(place: Place, sequences: int, frames: int) -> list[Motion]:
    """The drives of a scene: one route, another path each time."""
    free, seed, scene = place.design().free, place.seed, place.scene
    clockwise = bool(stream(seed, scene, MOTION).integers(2))
    duration = (frames - 1) / FRAME_RATE + 2 * LEAD
    return [
        patrol(
            free,
            clockwise,
            PAUSE + sequence * (duration + PAUSE),
            duration,
            stream(seed, scene, MOTION, sequence),
        )
        for sequence in range(sequences)
    ]


def render(recording: Recording) -> int:
    """Render and write a recording's frames; returns how many."""
    place = recording.place
    world, scenery = _scene(place)
    sensor = RgbdCamera(recording.camera)
    for frame, exposure in recording.exposures.items():
        rng = stream(place.seed, place.scene, CAMERA, recording.sequence, frame)
        colour, depth = sensor.capture(world, scenery, exposure, rng)
        writer.write_frame(recording.folder, frame, colour, depth, exposure[len(exposure) // 2])
    return len(recording.exposures)


@lru_cache(maxsize=1)
def _scene(place: Place) -> tuple[World, Scenery]:
    design = place.design()
    world = World(design.facets)
    painted_as = [place.twin_of] * design.fixtures
    return world, Scenery(world, design.facets, design.lights, place.seed, place.scene, painted_as)


def frame_times(motion: Motion, frames: int) -> list[float]:
    """When the frames of a drive are taken, seconds."""
    return [motion.start + LEAD + frame / FRAME_RATE for frame in range(frames)]


def _chunks(motion: Motion, frames: int, shutter: float) -> Iterator[dict[int, list[Array]]]:
    """Camera poses during the exposure of every frame, CHUNK frames at a time."""
    samples = BLUR_SAMPLES if shutter > 0 else 1
    offsets = shutter * ((np.arange(samples) + 0.5) / samples - 0.5)
    times = frame_times(motion, frames)
    for first in range(0, frames, CHUNK):
        yield {
            frame: [motion.world_from_base(times[frame] + offset) @ BASE_FROM_OPTICAL for offset in offsets]
            for frame in range(first, min(first + CHUNK, frames))
        }


def _write_tables(sequence: Path, motion: Motion, frames: int, rng: np.random.Generator) -> None:
    writer.write_timestamps(sequence, frame_times(motion, frames))
    writer.write_odometry(sequence, motion.times, motion.odometry(rng))


@contextmanager
def _pool(workers: int | None) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, started afresh: a fork would copy the locks of the caller's threads.

    On the way out, also by an error or Ctrl-C, what has not begun is dropped and what runs is waited for.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism
    # A terminal's Ctrl-C reaches all processes: the parent alone ends the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check(
    scenes: int,
    seed: int,
    train: int,
    test: int,
    frames: int,
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
    if not 0 <= motion_blur_ms <= MAX_SHUTTER_MS:
        raise ConfigError(f"the motion blur is {motion_blur_ms:g} ms: give 0 to {MAX_SHUTTER_MS:g} ms")
