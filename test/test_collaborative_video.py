"""Triplets of a video: which frames they are, and that turned views are what a turned camera sees."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scenes import ROOM_CAMERA, render, walk, write_room

from ofvl_core.camera import Camera
from ofvl_core.collaborative.splits import ODOMETRY, RELOCALIZATION, held_out
from ofvl_core.collaborative.video import MIRROR, Turns, VideoSource, pack_video, random_view, runs
from ofvl_core.datasets import Frame, SceneData, load_scene
from ofvl_core.errors import DataError
from ofvl_core.geometry import apply, invert, transform_from_rotation_vector

STILL = Turns(angle_deg=0, zoom=(1, 1), brightness=0, contrast=0)
CPU = torch.device("cpu")
CAMERA = Camera(64, 32, 50.0, 52.0, 30.0, 16.0)
INPUT = CAMERA.resized(32, 16)


def frames_of(numbers, sequence="00", interval=0.1, folder=Path("images")) -> list[Frame]:
    return [
        Frame(f"{sequence}/{n}", sequence, folder / f"{n:06d}.png", None, np.eye(4), interval * n)
        for n in numbers
    ]


def scene_of(*sequences: list[Frame], test: list[Frame] | None = None) -> SceneData:
    train = [frame for sequence in sequences for frame in sequence]
    return SceneData("drive", Path("drive"), CAMERA, {"train": train, "test": test or []})


def names(frames) -> list[str]:
    return [frame.name for frame in frames]


# --- which frames are neighbours


@given(
    st.lists(st.tuples(st.integers(14, 30), st.sets(st.integers(0, 29), max_size=4)), min_size=1, max_size=3),
    st.integers(2, 5),
    st.sampled_from([1 / 30, 0.1, 2.0]),
)
def test_runs_are_all_that_leave_out_no_frame(sequences, length, interval):
    """Against every window tried by hand; intervals jitter by a fifth, and another sequence's differs.

    Most frames of a sequence have their neighbour: else nobody knows what its interval is.
    """
    random = np.random.default_rng(0)
    frames, numbers = [], []
    for at, (count, dropped) in enumerate(sequences):
        kept = [n for n in range(count) if n not in dropped]
        own = frames_of(kept, f"{at}", interval * (at + 1))
        jitter = random.uniform(-0.1, 0.1, len(own)) * interval * (at + 1)
        frames += [replace(f, timestamp=f.timestamp + j) for f, j in zip(own, jitter, strict=True)]
        numbers += [1000 * at + n for n in kept]
    expected = [
        list(range(start, start + length))
        for start in range(len(frames) - length + 1)
        if numbers[start + length - 1] - numbers[start] == length - 1
    ]
    assert runs(frames, length).tolist() == expected


def test_too_few_frames_have_no_run():
    for frames in ([], frames_of([0]), frames_of([0, 1])):
        assert runs(frames, 3).shape == (0, 3)


def test_time_that_stands_still_or_goes_back_is_no_neighbour():
    assert runs(frames_of([0, 1, 1, 2, 3, 2, 3]), 3).tolist() == [[2, 3, 4]]


def test_a_car_that_never_returns():
    """KITTI's 800 frames: the last quarter for odometry, and of the rest frames 40 to 59 of each 100."""
    scene = held_out(scene_of(frames_of(range(800))))
    blocks = [n for n in range(600) if 40 <= n % 100 < 60]
    assert names(scene.frames(ODOMETRY)) == names(frames_of(range(600, 800)))
    assert names(scene.frames(RELOCALIZATION)) == names(frames_of(blocks))
    assert names(scene.frames("train")) == names(frames_of(n for n in range(600) if n not in blocks))
    triplets = runs(scene.frames("train"), 3)
    assert len(triplets) == 480 - 2 * 7  # of each of seven unbroken stretches the ends are no middles
    stamps = np.array([frame.timestamp for frame in scene.frames("train")])
    assert np.ptp(stamps[triplets], axis=1) == pytest.approx(0.2)


@given(st.lists(st.integers(1, 450), min_size=1, max_size=4))
@example([99, 100])
def test_every_frame_is_in_one_split(counts):
    sequences = [frames_of(range(count), f"{at}") for at, count in enumerate(counts)]
    scene = held_out(scene_of(*sequences))
    parts = [scene.splits[split] for split in ("train", ODOMETRY, RELOCALIZATION)]
    every = [name for part in parts for name in names(part)]
    assert sorted(every) == sorted(name for sequence in sequences for name in names(sequence))
    for at, count in enumerate(counts):
        train, ahead, gaps = (
            [int(f.name.split("/")[1]) for f in part if f.sequence == f"{at}"] for part in parts
        )
        assert bool(ahead) == bool(gaps) == (count >= 100)
        assert not gaps or max(gaps) < max(train)  # seen before and after
        assert not ahead or min(ahead) > max(train)


def test_test_frames_are_held_out_already():
    test = frames_of(range(9), "test")
    scene = held_out(scene_of(frames_of(range(300)), test=test))
    assert scene.splits[ODOMETRY] == scene.splits[RELOCALIZATION] == test
    assert len(scene.frames("train")) == 300


def test_a_short_video_holds_nothing_out_and_says_so(caplog):
    scene = held_out(scene_of(frames_of(range(99))))
    assert len(scene.frames("train")) == 99
    assert "no sequence has 100 frames" in caplog.text
    with pytest.raises(DataError, match="no frames are held out for odometry"):
        scene.frames(ODOMETRY)


# --- turned views


angles = st.floats(0.0, 8.0)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def views(draw, distorted=False):
    """A view, the camera that it is a view of, and random numbers."""
    random = np.random.default_rng(draw(seeds))
    low = draw(st.floats(1.0, 1.5))
    ranges = Turns(angle_deg=draw(angles), zoom=(low, low * draw(st.floats(1.0, 1.5))))
    camera = replace(CAMERA, distortion=(0.1, -0.05, 0.001, -0.002)) if distorted else CAMERA
    return random_view(INPUT, ranges, draw(st.booleans()), random), camera, random


@settings(deadline=None)
@given(views() | views(distorted=True))
def test_a_point_lies_on_the_pixel_that_was_sampled_for_it(drawn):
    """What a pixel of the view shows is at the place of the stored image that its value was taken from: at
    whatever depth, with the view's own pose and intrinsics, lens and mirror undone."""
    view, stored, random = drawn
    world_from_camera = transform_from_rotation_vector(random.normal(size=3), random.normal(size=3))
    columns, rows = random.integers(0, (INPUT.width, INPUT.height), (50, 2)).T
    rays = view.camera.rays(np.stack([columns, rows], axis=1))
    points = apply(view.poses(world_from_camera), rays * random.uniform(0.5, 80, (50, 1)))
    if view.mirrored:
        points = apply(MIRROR, points)
    expected = stored.project(apply(invert(world_from_camera), points))
    assert np.allclose(view.stored_pixels(stored)[rows, columns], expected, atol=1e-3)


@given(views())
def test_the_motion_between_frames_is_that_of_the_turned_camera(drawn):
    view, _, random = drawn
    first, second = (transform_from_rotation_vector(*random.normal(size=(2, 3))) for _ in range(2))
    motion, seen = invert(first) @ second, invert(view.poses(first)) @ view.poses(second)
    turn = np.eye(4)
    turn[:3, :3] = view.turned_from_camera
    expected = turn @ motion @ invert(turn)
    assert np.allclose(seen, MIRROR @ expected @ MIRROR if view.mirrored else expected)
    assert np.linalg.norm(seen[:3, 3]) == pytest.approx(np.linalg.norm(motion[:3, 3]))  # the scale is kept
    assert np.allclose(view.poses(np.stack([first, second])), [view.poses(first), view.poses(second)])


@pytest.mark.parametrize(
    "camera", [INPUT, Camera(416, 128, 241, 245, 203, 63), Camera(160, 96, 100, 99, 80, 50)]
)
def test_by_default_no_border_shows(camera):
    random = np.random.default_rng(0)
    for _ in range(100):
        pixels = random_view(camera, Turns(), False, random).stored_pixels(camera)
        assert (pixels > -0.5).all()
        assert (pixels < (camera.width - 0.5, camera.height - 0.5)).all()


def test_a_turn_never_zooms_beyond_what_is_asked_for():
    random = np.random.default_rng(0)
    zooms = [
        random_view(INPUT, Turns(angle_deg=9, zoom=(1, 1.1)), False, random).camera.fx for _ in range(50)
    ]
    assert (np.array(zooms) / INPUT.fx).clip(1, 1.1) == pytest.approx(np.array(zooms) / INPUT.fx)


# --- batches


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A walk of 12 frames through a room that can be rendered from anywhere."""
    scene = load_scene(write_room(tmp_path_factory.mktemp("room")))
    return pack_video(scene, ROOM_CAMERA.resized(80, 60))


@pytest.mark.parametrize("mirrored", [False, True])
def test_images_are_what_cameras_of_these_poses_and_intrinsics_see(room, mirrored):
    ranges = Turns(angle_deg=4, zoom=(1, 1.4))
    batch = VideoSource(room, 6, ranges, (0,), CPU, mirrored).batch(0)
    assert batch.images.shape == batch.clean.shape == (6, 3, 3, 60, 80)
    flipped = 0
    for images, matrix, poses in zip(batch.clean, batch.intrinsics, batch.world_from_camera, strict=True):
        fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        plain, mirror = [], []
        for image, pose in zip(images, poses.double().numpy(), strict=True):
            shown = 255 * image.permute(1, 2, 0).numpy()
            seen = render(Camera(80, 60, fx, fy, cx, cy), pose).color
            in_mirror = render(Camera(80, 60, fx, fy, 79 - cx, cy), MIRROR @ pose @ MIRROR).color[:, ::-1]
            plain.append(np.abs(shown - seen).mean())
            mirror.append(np.abs(shown - in_mirror).mean())
        assert max(min(plain, mirror)) < 1.2  # of 255; a shift by half a pixel is more, by a whole one 2.5
        flipped += mirror < plain
    assert (0 < flipped < 6) if mirrored else flipped == 0


def test_light_changes_what_is_shown_and_not_what_is_compared(room):
    ranges = Turns(brightness=30, contrast=0.3)
    batch = VideoSource(room, 4, ranges, (0,), CPU).batch(0)
    assert batch.images.abs().max() <= 1
    lights = set()
    for images, clean in zip(batch.images.flatten(1), batch.clean.flatten(1), strict=True):
        unclipped = images.abs() < 1
        contrast, brightness = np.polyfit(2 * clean[unclipped] - 1, images[unclipped], 1)
        assert torch.allclose(
            images, (contrast * (2 * clean - 1) + brightness).float().clamp(-1, 1), atol=1e-5
        )
        assert abs(contrast - 1) <= 0.3
        assert abs(brightness) <= 30 / 127.5
        lights.add((round(contrast, 4), round(brightness, 4)))
    assert len(lights) == 4
    still = VideoSource(room, 4, STILL, (0,), CPU).batch(0)
    assert torch.allclose(still.images, 2 * still.clean - 1, atol=1e-6)


def test_a_batch_depends_on_seed_and_iteration_alone(room):
    def batch(seed, iteration, before=()):
        source = VideoSource(room, 4, Turns(), seed, CPU)
        for other in before:
            source.batch(other)
        return source.batch(iteration)

    one = batch((0, 1), 5)
    for same in (batch((0, 1), 5), batch((0, 1), 5, before=(7, 4))):
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    for other in (batch((0, 2), 5), batch((0, 1), 6)):
        assert not torch.equal(one.intrinsics, other.intrinsics)


def test_a_mirrored_source_sees_the_same_triplets(room):
    plain, mirrored = (VideoSource(room, 8, STILL, (3,), CPU, flag).batch(0) for flag in (False, True))
    for image, flipped in zip(plain.clean, mirrored.clean, strict=True):
        assert torch.equal(image, flipped) or torch.allclose(image.flip(-1), flipped, atol=1 / 255)
    assert not torch.equal(plain.clean, mirrored.clean)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Two sequences of 130 and 40 frames; each frame's grey and its position tell which it is."""
    folder = tmp_path_factory.mktemp("numbered")
    sequences = []
    for sequence, count in (("a", 130), ("b", 40)):
        (folder / sequence).mkdir()
        frames = []
        for frame in frames_of(range(count), sequence, folder=folder / sequence):
            pose = np.eye(4)
            pose[:3, 3] = (float(sequence == "b"), 0, 0.5 * len(frames))
            cv2.imwrite(str(frame.color), np.full((32, 64, 3), len(frames), np.uint8))
            frames.append(replace(frame, world_from_camera=pose))
        sequences.append(frames)
    return replace(scene_of(*sequences), root=folder)


def test_every_triplet_comes_once_an_epoch_and_none_spans_a_gap(numbered):
    scene = held_out(numbered)
    video = pack_video(scene, INPUT)
    assert video.frames.depths.size == 0
    triplets = (40 - 2) + (38 - 2) + (40 - 2)  # of a, frames 0-39 and 60-97 are left; of b, all 40
    assert len(video.centres) == triplets
    source, seen = VideoSource(video, 7, STILL, (0,), CPU), []
    for iteration in range(2 * triplets // 7):
        batch = source.batch(iteration)
        numbers = (255 * batch.clean[:, :, 0, 8, 16]).round().int()
        sequence, _, along = batch.world_from_camera[:, :, :3, 3].unbind(-1)
        assert torch.equal(numbers, (2 * along).round().int())  # poses are those of the images
        assert torch.equal(numbers, numbers[:, 1:2] + torch.tensor([-1, 0, 1]))
        assert torch.equal(sequence, sequence[:, :1].expand(-1, 3))
        seen += list(zip(sequence[:, 0].int().tolist(), numbers[:, 1].tolist(), strict=True))
    first, second = seen[:triplets], seen[triplets : 2 * triplets]
    assert len(set(first)) == triplets
    assert first != second
    assert len(set(second)) == len(second)
    held = {frame.name for split in (ODOMETRY, RELOCALIZATION) for frame in scene.frames(split)}
    assert not held & {f"{'ab'[s]}/{n + step}" for s, n in first for step in (-1, 0, 1)}


def test_batches_larger_than_a_video_repeat_it(room):
    batch = VideoSource(room, 25, STILL, (0,), CPU).batch(1)
    assert len(batch.images) == 25
    _, counts = np.unique(batch.world_from_camera[:, 1].numpy(), axis=0, return_counts=True)
    assert len(counts) == len(room.centres) == 10
    assert set(counts) <= {2, 3}


def test_a_lens_is_undone(tmp_path, room):
    """The batch of a distorted recording has the intrinsics without distortion, and straight images."""
    scene = load_scene(write_room(tmp_path / "bent", frames=4))
    lens = replace(ROOM_CAMERA, distortion=(0.15, -0.05, 0.0, 0.0))
    for frame in scene.frames("train"):
        view = render(lens, frame.world_from_camera)
        assert cv2.imwrite(str(frame.color), view.color[..., ::-1])
    video = pack_video(replace(scene, camera=lens), lens.resized(80, 60))
    ranges = Turns(angle_deg=2, zoom=(1.3, 1.4))
    batch = VideoSource(video, 2, ranges, (0,), CPU).batch(0)
    for image, matrix, pose in zip(
        batch.clean[:, 1], batch.intrinsics, batch.world_from_camera[:, 1], strict=True
    ):
        fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        seen = render(Camera(80, 60, fx, fy, cx, cy), pose.double().numpy()).color
        assert np.abs(255 * image.permute(1, 2, 0).numpy() - seen).mean() < 2.0


def test_single_images_are_no_video(numbered):
    scattered = replace(numbered, splits={"train": numbered.frames("train")[:2]})
    with pytest.raises(DataError, match="no three training frames follow each other in time"):
        pack_video(scattered, INPUT)


def test_walking_poses_are_kept_as_they_are(room):
    poses = np.stack(walk(12))
    batch = VideoSource(room, 10, STILL, (0,), CPU).batch(0)
    assert set(batch.intrinsics[:, 0, 0].tolist()) == {np.float32(ROOM_CAMERA.fx / 2)}
    gaps = np.abs(batch.world_from_camera[:, 1, None].numpy() - poses[None, 1:-1]).max(axis=(2, 3))
    assert gaps.min(axis=1).max() < 1e-5
    assert sorted(gaps.argmin(axis=1)) == list(range(10))
