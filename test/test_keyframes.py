"""Keyframes: what is remembered of a scene, which of it a pose sees, and the poses that it makes better."""

import gc
import shutil
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from processes import wait_until
from typer.testing import CliRunner

from ofvl_core.camera import Camera
from ofvl_core.checkpoint import (
    load_keyframes,
    load_manifest,
    load_model,
    save_deployment,
    save_keyframes,
)
from ofvl_core.cli import app
from ofvl_core.datasets import load_scene
from ofvl_core.deployment import measure_deployment
from ofvl_core.errors import CheckpointError
from ofvl_core.geometry import apply, invert, pose_error, transform_from_rotation_vector
from ofvl_core.keyframes import Ahead, Album, refine, remember
from ofvl_core.keyframes.descriptors import describe, roots
from ofvl_core.keyframes.keyframe import Features, find_landmarks, keyframe_camera
from ofvl_core.keyframes.matching import match
from ofvl_core.keyframes.visibility import SAMPLES, sampled, visibility
from ofvl_core.localizer import Localizer
from ofvl_core.scenes import merge, remove_scenes
from ofvl_core.training.add_scene import add_scene
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train
from ofvl_core.trust import distrust

STRONG = (-0.35, 0.12, 1e-3, -5e-4, -0.02)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def rooms(tiny_scenes):
    return [load_scene(path) for path in tiny_scenes]


@pytest.fixture(scope="module")
def albums(rooms):
    """All frames of each room but the first."""
    return [remember(replace(room, splits={"train": room.frames("train")[1:]}), 100) for room in rooms]


TWIN = transform_from_rotation_vector((0, 0, 0), (5.0, 0, 0))


def with_twin(album, camera, changed=lambda grey: grey):
    """The album with all keyframes once more, elsewhere."""
    written = []
    for one in album._written:
        grey = cv2.imdecode(np.frombuffer(one.image, np.uint8), cv2.IMREAD_GRAYSCALE)
        written.append(one._replace(image=cv2.imencode(".png", changed(grey))[1].tobytes()))
    poses = np.concatenate([album._poses, TWIN @ album._poses])
    return Album(camera, [*album._written, *written], np.concatenate([album._landmarks] * 2), poses)


def near(world_from_camera, random, metres=0.05, degrees=2.0):
    """A pose that is wrong by about so much along and about each axis."""
    turn, move = random.normal(0, np.radians(degrees), 3), random.normal(0, metres, 3)
    return world_from_camera @ transform_from_rotation_vector(turn, move)


# --------------------------------------------------------------------------------------- refinement


@pytest.mark.parametrize(
    ("wrong_by", "metres", "degrees"),
    [
        pytest.param((0.05, 2.0), 0.03, 0.7, id="a decimetre: landmarks are followed"),
        pytest.param((0.3, 6.0), 0.05, 1, id="half a metre and ten degrees: features are matched"),
        pytest.param((5.0, 90.0), 0.05, 1, id="metres: all keyframes are looked through"),
    ],
)
def test_a_pose_becomes_right(rooms, albums, wrong_by, metres, degrees):
    """By frames some of which are half a metre away."""
    random = np.random.default_rng(0)
    for room, album in zip(rooms, albums, strict=True):
        frame = room.frames("train")[0]
        image = room.read_color(frame)
        for _ in range(5):
            prior = near(frame.world_from_camera, random, *wrong_by)
            better = refine(prior, image, room.camera, album)
            assert better is not None
            left = pose_error(better.world_from_camera, frame.world_from_camera)
            assert left[0] < metres
            assert left[1] < degrees


def test_an_image_is_found_without_any_pose(rooms, albums):
    for room, album in zip(rooms, albums, strict=True):
        frame = room.frames("train")[0]
        found = refine(None, room.read_color(frame), room.camera, album)
        assert found is not None
        assert pose_error(found.world_from_camera, frame.world_from_camera)[0] < 0.05
        assert refine(None, room.read_color(frame), room.camera, album, search="never") is None


def test_a_place_that_looks_like_another_is_not_confirmed(rooms, albums):
    """The room twice, five metres apart: nothing tells one from the other."""
    room, frame = rooms[0], rooms[0].frames("train")[0]
    image = room.read_color(frame)
    twice = with_twin(albums[0], room.camera)
    for pose in (frame.world_from_camera, TWIN @ frame.world_from_camera):
        found = refine(pose, image, room.camera, twice)
        assert found.is_confirmed
        assert pose_error(found.world_from_camera, pose)[0] < 0.03
        assert not refine(pose, image, room.camera, twice, search="always").is_confirmed
    assert refine(frame.world_from_camera, image, room.camera, albums[0], search="always").is_confirmed


def test_of_two_places_the_likelier_is_found(rooms, albums):
    """The other is as it was, but out of focus."""
    room, frame = rooms[0], rooms[0].frames("train")[0]
    image = room.read_color(frame)
    blurred = with_twin(albums[0], room.camera, lambda grey: cv2.GaussianBlur(grey, (0, 0), 2))
    wrong = TWIN @ frame.world_from_camera
    assert pose_error(refine(wrong, image, room.camera, blurred).world_from_camera, wrong)[0] < 0.1
    found = refine(wrong, image, room.camera, blurred, search="always")
    assert found.is_confirmed
    assert pose_error(found.world_from_camera, frame.world_from_camera)[0] < 0.03


def test_landmarks_lie_where_the_image_shows_them(rooms, albums):
    room, frame = rooms[0], rooms[0].frames("train")[0]
    better = refine(frame.world_from_camera, room.read_color(frame), room.camera, albums[0])
    pixels = room.camera.project(apply(invert(frame.world_from_camera), better.seen.points))
    errors = np.linalg.norm(pixels - better.pixels, axis=1)[better.inliers]
    assert np.median(errors) < 1.5 * room.camera.height / albums[0].camera.height
    assert len(better.pixels) == len(better.seen.points) == len(better.inliers)


def test_another_room_shows_nothing_of_it(rooms, albums):
    for frame in rooms[1].frames("train"):
        image = rooms[1].read_color(frame)
        assert refine(None, image, rooms[1].camera, albums[0]) is None
        for pose in [frame.world_from_camera, *(one.world_from_camera for one in rooms[0].frames("train"))]:
            assert refine(pose, image, rooms[1].camera, albums[0], search="never") is None


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("distortion", [(), STRONG])
def test_an_image_without_texture_is_not_found(rooms, albums, level, distortion):
    frame = rooms[0].frames("train")[0]
    camera = replace(rooms[0].camera, distortion=distortion)
    blank = np.full_like(rooms[0].read_color(frame), level)
    depth = np.ones((120, 160), np.float32)
    assert refine(frame.world_from_camera, blank, camera, albums[0]) is None
    assert refine(frame.world_from_camera, blank, camera, albums[0], depth) is None
    away = frame.world_from_camera @ transform_from_rotation_vector((0, 0, 0), (0, 0, 1000.0))
    assert refine(away, blank, camera, albums[0], depth) is None
    assert refine(None, blank, camera, albums[0], depth) is None


@settings(max_examples=30)
@given(seeds)
def test_any_pose_and_any_noise_end_in_a_pose_or_none(rooms, albums, seed):
    random = np.random.default_rng(seed)
    pose = transform_from_rotation_vector(random.normal(0, 2, 3), random.normal(0, 5, 3))
    noise = random.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    found = refine(pose, noise, Camera(80, 60, 70, 70, 40, 30), albums[0])
    assert found is None or np.isfinite(found.world_from_camera).all()


@pytest.mark.parametrize("distortion", [(), STRONG])
@pytest.mark.parametrize("size", [(601, 451), (963, 817), (200, 150)])
def test_another_camera_is_refined_as_well(rooms, albums, distortion, size):
    width, height = size
    room, frame = rooms[0], rooms[0].frames("train")[0]
    focal = 0.95 * room.camera.fx * width / room.camera.width
    other = Camera(width, height, focal, 0.97 * focal, 0.5 * width + 7, 0.5 * height - 5, distortion)
    rays = other.rays(np.indices((height, width))[::-1].reshape(2, -1).T.astype(float))
    u, v = room.camera.project(rays).T.reshape(2, height, width).astype(np.float32)
    image = np.asarray(cv2.remap(room.read_color(frame), u, v, cv2.INTER_LINEAR))
    better = refine(near(frame.world_from_camera, np.random.default_rng(0)), image, other, albums[0])
    assert better is not None
    metres, degrees = pose_error(better.world_from_camera, frame.world_from_camera)
    assert metres < 0.04
    assert degrees < 1


def test_depth_has_a_part_in_the_pose(rooms, albums):
    room, frame = rooms[0], rooms[0].frames("train")[0]
    depth = room.read_depth(frame) / np.float32(1000)
    better = refine(frame.world_from_camera, room.read_color(frame), room.camera, albums[0], depth)
    assert better.seen.depths is not None
    assert pose_error(better.world_from_camera, frame.world_from_camera)[0] < 0.02


# ---------------------------------------------------------------------------------------- landmarks


def test_landmarks_are_corners_of_known_depth_and_on_no_edge():
    image = np.zeros((120, 160), np.uint8)
    image[20:40, 20:40] = image[20:40, 100:120] = image[80:100, 20:40] = 255
    depth = np.full((120, 160), 2000, np.uint16)
    depth[:, 90:] = 0
    depth[90:, :] = 3000
    found = find_landmarks(image, depth)
    assert len(found)
    assert set(found[:, 2]) == {2000, 3000}
    assert (found[:, 0] < 90).all()
    assert (np.abs(found[:, 1].astype(int) - 90) > 2).all()
    coarse = find_landmarks(image, depth[::2, ::2])
    assert {tuple(row) for row in coarse} <= {tuple(row) for row in find_landmarks(image, depth)}


@pytest.mark.parametrize("level", [0, 200])
def test_an_image_without_corners_has_none(level):
    found = find_landmarks(np.full((48, 64), level, np.uint8), np.full((48, 64), 1000, np.uint16))
    assert found.shape == (0, 3)


# ----------------------------------------------------------------------------------------- features


def test_features_are_what_the_keyframe_shows_there(rooms, albums):
    room, album = rooms[0], albums[0]
    pose = room.frames("train")[1].world_from_camera
    keyframe = album.best(pose, room.camera, 1)[0]
    described = describe(keyframe.image, 240)
    points, descriptors = keyframe.features
    assert len(points) == len(described.pixels) > 50
    assert_array_equal(descriptors, described.descriptors)
    assert_allclose(np.linalg.norm(roots(descriptors), axis=1), 1, atol=1e-5)
    errors = np.linalg.norm(album.camera.project(apply(invert(pose), points)) - described.pixels, axis=1)
    assert np.median(errors) < 0.1


def test_an_image_shows_a_keyframe_as_it_is(rooms, albums):
    """Where a corner is twice in a room it is nobody's."""
    room, album = rooms[0], albums[0]
    pose = room.frames("train")[1].world_from_camera
    keyframe = album.best(pose, room.camera, 1)[0]
    image = describe(cv2.convertScaleAbs(keyframe.image, alpha=0.9), 240)
    pixels, points = match([keyframe], image)
    assert len(pixels) > 0.4 * len(keyframe.features.points)
    errors = np.linalg.norm(album.camera.project(apply(invert(pose), points)) - pixels, axis=1)
    assert np.median(errors) < 0.2
    elsewhere = replace(keyframe)
    elsewhere.__dict__["features"] = keyframe.features._replace(points=keyframe.features.points + 1.0)
    assert len(match([keyframe, elsewhere], image)[0]) == 0


def test_where_nothing_is_seen_nothing_is_matched(rooms, albums):
    room, album = rooms[0], albums[0]
    best = album.best(room.frames("train")[1].world_from_camera, room.camera, 3)
    blank = describe(np.full((60, 80), 128, np.uint8), 240)
    assert len(blank.pixels) == 0
    smooth = replace(best[0], image=np.full_like(best[0].image, 128))
    assert len(smooth.features.points) == 0
    few = replace(best[0])
    few.__dict__["features"] = Features(*(part[:5] for part in best[0].features))
    _, points = match([few], describe(best[0].image, 240))
    assert np.isin(points, few.features.points).all()
    for keyframes, image in (
        (best, blank),
        ([], describe(best[0].image, 240)),
        ([smooth], describe(best[0].image, 240)),
    ):
        pixels, points = match(keyframes, image)
        assert pixels.shape == (0, 2)
        assert points.shape == (0, 3)


# ------------------------------------------------------------------------------ choice of keyframes


@settings(max_examples=60)
@given(seeds)
def test_a_frame_shows_itself_best(seed):
    random = np.random.default_rng(seed)
    camera = Camera(160, 120, 140, 140, 80, 60)
    poses = [transform_from_rotation_vector(random.normal(0, 1, 3), random.normal(0, 2, 3)) for _ in range(6)]
    pixels = random.uniform((0, 0), (159, 119), (6, 40, 2))
    depths = random.uniform(0.5, 5, (6, 40, 1))
    points = [apply(pose, camera.rays(at) * far) for pose, at, far in zip(poses, pixels, depths, strict=True)]
    samples = np.stack([sampled(each) for each in points])
    places = np.stack(poses)[:, :3, 3]
    for number, pose in enumerate(poses):
        shown = visibility(samples, places, pose, camera)
        assert ((shown >= 0) & (shown <= 1 + 1e-9)).all()
        assert shown.argmax() == number
        assert shown[number] == pytest.approx(1)


def test_few_points_are_padded():
    assert np.isfinite(sampled(np.ones((5, 3)))).sum() == 15
    assert sampled(np.ones((1000, 3))).shape == (SAMPLES, 3)
    places = np.zeros((1, 3))
    shown = visibility(sampled(np.empty((0, 3)))[None], places, np.eye(4), Camera(16, 12, 14, 14, 8, 6))
    assert shown.tolist() == [0]


def test_few_keyframes_are_those_that_show_most(rooms):
    """And never more than there are frames, nor one twice."""
    room = rooms[0]
    frames = len(room.frames("train"))
    assert len(remember(room, 1)) == 1
    assert len(remember(room, 3)) == 3
    assert frames - 2 <= len(remember(room, 1000)) <= frames
    seen = []
    assert remember(room, 2, lambda: seen.append(1)) is not None
    assert len(seen) == 2 * frames, "once for the focal length"


def test_dark_frames_are_no_keyframes(rooms, monkeypatch):
    monkeypatch.setattr(type(rooms[0]), "read_color", lambda *_: np.zeros((480, 640, 3), np.uint8))
    assert remember(rooms[0], 10) is None


def test_the_best_come_first_and_the_blind_not_at_all(rooms, albums):
    room, album = rooms[0], albums[0]
    frames = room.frames("train")[1:]
    pose = frames[2].world_from_camera
    best = album.best(pose, room.camera, 3)
    assert len(best) == 3
    points = apply(invert(pose), best[0].points)
    assert_allclose(album.camera.project(points), best[0].pixels, atol=0.05)
    away = pose @ transform_from_rotation_vector((0, 0, 0), (0, 0, 1000.0))
    assert album.best(away, room.camera, 3) == []


# --------------------------------------------------------------------------------------- focal length


@pytest.mark.parametrize("wrong", [0.8, 0.98, 1.01, 1.5])
def test_a_wrong_focal_length_is_found(rooms, albums, wrong):
    """And set right where it matters: in keyframes and in images of the same camera."""
    for room, right in zip(rooms, albums, strict=True):
        frames = room.frames("train")
        given = room.camera.zoomed(wrong)
        album = remember(replace(room, camera=given, splits={"train": frames[1:]}), 100)
        assert album.focal_scale == pytest.approx(1 / wrong, rel=5e-3)
        pose, image = frames[0].world_from_camera, room.read_color(frames[0])
        there = refine(pose, image, room.camera, right).world_from_camera
        away = [
            pose_error(refine(pose, image, given, one).world_from_camera, there)[0]
            for one in (album, album.rescaled(1.0))
        ]
        assert away[0] < min(0.003, away[1] / 2)


def test_a_right_focal_length_stays(rooms, albums):
    assert [album.focal_scale for album in albums] == [1, 1]
    assert remember(replace(rooms[0], camera=rooms[0].camera.zoomed(1.002)), 100).focal_scale == 1


def test_of_few_frames_or_wrong_poses_no_focal_length_is_learned(rooms):
    room, random = rooms[0], np.random.default_rng(0)
    wrong, frames = room.camera.zoomed(1.01), room.frames("train")
    assert remember(replace(room, camera=wrong, splits={"train": frames[:1]}), 100).focal_scale == 1
    poor = [replace(frame, world_from_camera=near(frame.world_from_camera, random)) for frame in frames]
    assert remember(replace(room, camera=wrong, splits={"train": poor}), 100).focal_scale == 1


def test_the_focal_length_is_that_of_one_camera(rooms, albums):
    camera = replace(rooms[0].camera, distortion=STRONG)
    album = Album(camera, albums[0]._written, albums[0]._landmarks, albums[0]._poses, 0.99)
    assert album.camera == keyframe_camera(camera).zoomed(0.99)
    for width, height in (
        (camera.width, camera.height),
        (camera.width // 2, camera.height // 2),
        (1920, 1440),
    ):
        same = camera.resized(width, height)
        assert album.corrected(same) == same.zoomed(0.99)
        rounded = replace(same, cx=round(same.cx, 1), fy=round(same.fy, 1))
        assert album.corrected(rounded) == rounded.zoomed(0.99)
    others = [camera.zoomed(1.005), rooms[0].camera, replace(camera, cx=camera.cx + 5)]
    others.append(replace(camera, height=camera.height // 2, cy=camera.cy - camera.height // 4))
    assert [album.corrected(other) for other in others] == others


# -------------------------------------------------------------------------------------------- on disk


def test_an_album_is_its_tensors(rooms, albums):
    room, album = rooms[0], albums[0]
    again = Album.from_tensors(album.tensors(), room.camera)
    pose = room.frames("train")[0].world_from_camera
    for one, other in zip(album.best(pose, room.camera, 9), again.best(pose, room.camera, 9), strict=True):
        assert_array_equal(one.image, other.image)
        assert_array_equal(one.points, other.points)
        assert_array_equal(one.surface, other.surface)
    assert album.camera == keyframe_camera(room.camera)
    assert len(again) == len(album)
    assert album.size < 40_000 * len(album)


def test_an_album_that_makes_no_sense_is_refused(rooms, albums):
    tensors = albums[0].tensors()
    camera = rooms[0].camera
    for name, wrong in {
        "landmarks": tensors["landmarks"][:-1],
        "world_from_camera": tensors["world_from_camera"][:, :3],
        "ends": tensors["ends"][:-1],
    }.items():
        with pytest.raises(ValueError, match=r"differ|shorter"):
            Album.from_tensors(tensors | {name: wrong}, camera)
    with pytest.raises(ValueError, match="no landmarks"):
        empty = torch.zeros_like(tensors["landmarks"])
        Album.from_tensors(tensors | {"landmarks": empty}, camera)
    with pytest.raises(KeyError):
        Album.from_tensors({}, camera)
    for damage in ("contents", "ends"):  # garbage, and nothing at all
        garbage = Album.from_tensors(tensors | {damage: torch.zeros_like(tensors[damage])}, camera)
        with pytest.raises(CheckpointError, match="damaged; train again"):
            garbage.best(rooms[0].frames("train")[1].world_from_camera, camera, 1)
        with pytest.raises(CheckpointError, match="damaged; train again"):
            garbage.all()
        garbage.describe(lambda: False)  # whoever looks through them is told
        with pytest.raises(CheckpointError, match="damaged; train again"):
            garbage.all()


def test_a_localizer_that_is_replaced_leaves_no_keyframes_behind(tiny_checkpoint, rooms):
    localizer = Localizer(tiny_checkpoint, "cpu")
    album = weakref.ref(localizer._albums[rooms[0].name])
    localizer.localize(rooms[0].read_color(rooms[0].frames("train")[0]), rooms[0].camera, rooms[0].name)
    localizer.release()
    del localizer
    gc.collect()
    assert album() is None


def test_what_is_not_ready_holds_up_nobody(rooms, albums):
    room, frame = rooms[0], rooms[0].frames("train")[0]
    album, image = Album.from_tensors(albums[0].tensors(), room.camera), room.read_color(frame)
    ready = []

    def is_stopped():
        ready.append(len(album.all()))
        assert (refine(None, image, room.camera, album) is not None) == (ready[-1] > 0)
        return len(ready) == 3

    album.describe(is_stopped)
    assert ready == [0, 1, 2]
    assert len(set(album.all())) == len(album)  # who stopped it waits for the others


def test_keyframes_are_described_ahead(rooms, albums):
    album = Album.from_tensors(albums[0].tensors(), rooms[0].camera)
    Ahead(album).stop()
    described = sum("features" in vars(keyframe) for keyframe in album.all())
    assert described < len(album)
    ahead = Ahead(album)
    assert wait_until(lambda: all("features" in vars(keyframe) for keyframe in album.all()), 10)
    assert wait_until(lambda: len(album.all()) == len(album), 10)
    ahead.stop()


# ------------------------------------------------------------------------------------ with a network


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return Localizer(tiny_checkpoint, "cpu")


def test_training_remembers_keyframes(rooms, tiny_checkpoint):
    manifest = load_manifest(tiny_checkpoint)
    kept = load_keyframes(tiny_checkpoint, manifest)
    for room in rooms:
        record = manifest.scene(room.name)
        assert record.frames - 2 <= record.keyframes.count == len(kept[room.name]) <= record.frames
    files = {path.name for path in tiny_checkpoint.iterdir()}
    assert files == {"manifest.json", *manifest.tensor_files}


def test_a_localizer_refines(rooms, model, tiny_checkpoint):
    """Frames that the network knows, which is right about them to decimetres, and their keyframes exactly."""
    alone = Localizer(tiny_checkpoint, "cpu", keyframes=False)
    own, refined = [], []
    for room in rooms:
        for frame in room.frames("train"):
            image, true = room.read_color(frame), frame.world_from_camera
            found = model.localize(image, room.camera, room.name)
            unrefined = alone.localize(image, room.camera, room.name)
            (same,) = model.localize_in_each(image, room.camera, [room.name])
            assert_array_equal(unrefined.world_from_camera, same.world_from_camera)
            assert unrefined.landmarks is None
            assert alone.refined(unrefined, image, room.camera) is unrefined
            if found.landmarks is None:
                continue
            assert "landmarks agree" in found.agreement
            assert found.landmarks.inliers.sum() >= 20
            assert (np.linalg.eigvalsh(found.covariance) > 0).all()
            own.append(pose_error(unrefined.world_from_camera, true)[0])
            refined.append(pose_error(found.world_from_camera, true)[0])
    assert len(own) > 8
    assert np.median(refined) < 0.5 * np.median(own)
    assert np.median(refined) < 0.02


def test_keyframes_find_what_the_network_does_not(rooms, model):
    room, frame = rooms[0], rooms[0].frames("train")[0]
    image = room.read_color(frame)
    (found,) = model.localize_in_each(image, room.camera, [room.name])
    lost = replace(found, world_from_camera=None, covariance=None, reason="RANSAC found no pose")
    refined = model.refined(lost, image, room.camera)
    assert refined.reason is None
    assert distrust(refined) is None
    assert pose_error(refined.world_from_camera, frame.world_from_camera)[0] < 0.05
    assert model.refined(lost, np.zeros_like(image), room.camera) is lost


def test_landmarks_bear_a_pose_out_where_few_cells_do(rooms, model):
    room, frame = rooms[0], rooms[0].frames("train")[0]
    found = model.localize(room.read_color(frame), room.camera, room.name)
    assert found.landmarks is not None
    cells = replace(found.cells, inliers=np.zeros_like(found.cells.inliers))
    assert distrust(replace(found, cells=cells, covariance=1e-4 * np.eye(6))) is None
    assert "cells agree" in distrust(replace(found, cells=cells, landmarks=None))


def test_the_command_gives_an_old_model_keyframes(tiny_checkpoint, tiny_scenes, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    arguments = [str(model), *map(str, tiny_scenes)]
    result = CliRunner().invoke(app, ["keyframes", *arguments, "--most", "3"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "room_1: 3 keyframes" in result.output
    assert "covariances are as they were" in result.output
    manifest = load_manifest(model)
    assert [scene.keyframes.count for scene in manifest.scenes] == [3, 3]
    assert {path.name for path in model.iterdir()} == {"manifest.json", *manifest.tensor_files}
    shown = CliRunner().invoke(app, ["info", str(model)], catch_exceptions=False).output
    assert "3 keyframes refine its poses" in shown
    assert "focal length" not in shown


def test_a_user_is_told_of_another_focal_length(tiny_checkpoint, rooms, tmp_path):
    """By who finds it and by who shows the model, which a deployment file goes on being."""
    model, told = (
        tmp_path / "model",
        "keyframes refine its poses, which show a focal length 1.2% shorter than given",
    )
    shutil.copytree(tiny_checkpoint, model)
    manifest = load_manifest(model)
    album = load_keyframes(model, manifest)["room_1"].rescaled(0.988)
    manifest = save_keyframes(model, manifest, {"room_1": album})
    file = tmp_path / "one.safetensors"
    albums = load_keyframes(model, manifest)
    save_deployment(file, manifest, load_model(model, manifest, torch.device("cpu")), False, albums)
    for path in (model, file):
        kept = load_keyframes(path, load_manifest(path))
        assert {scene: one.focal_scale for scene, one in kept.items()} == {"room_1": 0.988, "room_2": 1}
        shown = CliRunner().invoke(app, ["info", str(path)], catch_exceptions=False).output
        assert told in " ".join(shown.split())


def test_damaged_keyframes_are_refused(tiny_checkpoint, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    manifest = load_manifest(model)
    file = model / manifest.scenes[0].keyframes.file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        Localizer(model, "cpu")
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Localizer(model, "cpu")


def contents(path):
    """The keyframes of a checkpoint or a deployment file, as bytes."""
    kept = load_keyframes(path, load_manifest(path))
    return {
        scene: {name: tensor.numpy().tobytes() for name, tensor in album.tensors().items()}
        for scene, album in kept.items()
    }


def test_keyframes_go_where_their_scene_goes(tiny_checkpoint, rooms, tmp_path):
    before = contents(tiny_checkpoint)
    assert sorted(before) == ["room_1", "room_2"]
    manifest = load_manifest(tiny_checkpoint)
    network = load_model(tiny_checkpoint, manifest, torch.device("cpu"))
    file, without = tmp_path / "all.safetensors", tmp_path / "none.safetensors"
    save_deployment(file, manifest, network, True, load_keyframes(tiny_checkpoint, manifest))
    save_deployment(without, manifest, network)
    assert contents(file) == before
    assert contents(without) == {}
    parts = measure_deployment(file, network)
    assert sum(share.bytes for share in parts.values()) == file.stat().st_size
    assert 0.9 * file.stat().st_size > parts["keyframes"].bytes > 100_000

    alone = tmp_path / "alone"
    remove_scenes(file, ["room_2"], alone)
    assert contents(alone) == {"room_1": before["room_1"]}
    config = manifest.training.config.model_copy(update={"iterations": 1, "keyframes": 2})
    assert add_scene(alone, rooms[1], config, tmp_path / "both", Surroundings(torch.device("cpu")))
    after = contents(tmp_path / "both")
    assert after["room_1"] == before["room_1"]
    assert load_manifest(tmp_path / "both").scene("room_2").keyframes.count == 2
    merge([alone, tmp_path / "both"], tmp_path / "merged")
    assert contents(tmp_path / "merged") == after


def test_a_scene_may_do_without(rooms, tmp_path):
    config = TrainConfig(iterations=1, batch_size=1, keyframes=0)
    assert train(rooms[:1], config, tmp_path / "model", Surroundings(torch.device("cpu")))
    assert contents(tmp_path / "model") == {}
