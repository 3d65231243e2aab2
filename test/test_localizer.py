"""From image to pose: cameras and depth of every kind, on each device there is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ofvl_core import checkpoint, localizer
from ofvl_core.camera import Camera
from ofvl_core.datasets import load_scene
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.geometry import apply, invert, pose_error
from ofvl_core.localizer import Localizer

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def tiny(request, tiny_checkpoint):
    return Localizer(tiny_checkpoint, request.param)


@pytest.fixture(scope="module")
def room(tiny_scenes):
    return load_scene(tiny_scenes[0])


@pytest.fixture(scope="module")
def views(room):
    """Image, depth in metres and true pose of frames that the model knows."""
    return [
        (room.read_color(frame), room.read_depth(frame) / np.float32(1000), frame.world_from_camera)
        for frame in room.frames("train")
    ]


def assert_same(one, other):
    assert np.array_equal(one.world_from_camera, other.world_from_camera)
    assert np.allclose(one.covariance, other.covariance, rtol=1e-9)
    assert np.array_equal(one.cells.scene_coordinates, other.cells.scene_coordinates)


def test_what_is_said_of_a_pose(tiny, room, views):
    found = tiny.localize(views[0][0], room.camera, room.name)
    assert found.scene == room.name
    assert found.reason is None
    assert np.array_equal(found.covariance, found.covariance.T)
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()
    assert found.uncertainty == np.median(found.cells.uncertainties[found.cells.inliers])
    assert found.inlier_count == found.cells.inliers.sum()
    assert found.inlier_share == found.inlier_count / len(found.cells.pixels)


def test_cells_lie_where_the_image_shows_them(tiny, room, views):
    """In its own pixels, row by row: what the inliers' coordinates project to."""
    (found,) = tiny.localize_in_each(views[0][0], room.camera, [room.name])
    cells = found.cells
    rows = cells.pixels.reshape(-1, cells.columns, 2)
    assert np.allclose(np.diff(rows[..., 0], axis=1), np.diff(rows[..., 0], axis=1)[0, 0])
    assert (np.diff(rows[..., 0], axis=1) > 0).all()
    assert (np.diff(rows[..., 1], axis=0) > 0).all()
    seen = apply(invert(found.world_from_camera), cells.scene_coordinates[cells.inliers])
    errors = np.linalg.norm(room.camera.project(seen) - cells.pixels[cells.inliers], axis=1)
    scale = room.camera.fy / tiny.manifest.scene(room.name).input_focal
    assert errors.max() < 1.05 * tiny.options.inlier_pixels * scale


def test_scenes_are_tested_on_one_image_as_one_by_one(tiny, room, views):
    image = views[0][0]
    together = tiny.localize_in_each(image, room.camera, ["room_2", "room_1", "room_2"])
    assert [found.scene for found in together] == ["room_2", "room_1", "room_2"]
    assert_same(tiny.refined(together[1], image, room.camera), tiny.localize(image, room.camera, "room_1"))
    assert np.array_equal(together[0].cells.scene_coordinates, together[2].cells.scene_coordinates)
    assert tiny.localize_in_each(image, room.camera, []) == []


def test_depth_makes_the_pose_better(tiny, room, views):
    """The network's own: refined, either is right to millimetres."""
    errors = []
    for image, depth, truth in views:
        found = [tiny.localize_in_each(image, room.camera, [room.name], known)[0] for known in (None, depth)]
        errors.append([pose_error(each.world_from_camera, truth) for each in found])
    colour, both = np.median(errors, axis=0)
    assert both[0] < 0.8 * colour[0]
    assert both[1] < 1.1 * colour[1]


def test_depth_of_another_resolution_is_that_of_the_same_view(tiny, room, views):
    image, depth, _ = views[0]
    whole, half = (
        tiny.localize(image, room.camera, room.name, each).world_from_camera
        for each in (depth, depth[::2, ::2])
    )
    metres, degrees = pose_error(whole, half)
    assert metres < 0.03
    assert degrees < 0.5
    with pytest.raises(ConfigError, match="aligns to the colour image"):
        tiny.localize(image, room.camera, room.name, depth[: len(depth) // 2])


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf, -1.0])
def test_depth_without_any_is_no_depth(tiny, room, views, nothing):
    image, depth, _ = views[0]
    without = tiny.localize(image, room.camera, room.name)
    assert_same(without, tiny.localize(image, room.camera, room.name, np.full_like(depth, nothing)))


STRONG = (-0.35, 0.12, 1e-3, -5e-4, -0.02)


@pytest.mark.parametrize("distortion", [(), STRONG])
@pytest.mark.parametrize("size", [(601, 451), (963, 817)])
def test_another_camera_sees_the_same_pose(tiny, room, views, distortion, size):
    """Another size, focal length, principal point and lens: the image is the same view through them."""
    width, height = size
    focal = 0.95 * room.camera.fx * width / room.camera.width
    other = Camera(width, height, focal, 0.97 * focal, 0.5 * width + 7, 0.5 * height - 5, distortion)
    rays = other.rays(np.indices((height, width))[::-1].reshape(2, -1).T.astype(float))
    u, v = room.camera.project(rays).T.reshape(2, height, width).astype(np.float32)
    moved = []
    for image, _, _ in views[:4]:
        seen = cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        one = tiny.localize(image, room.camera, room.name)
        two = tiny.localize(seen, other, room.name)
        moved.append(pose_error(two.world_from_camera, one.world_from_camera))
    metres, degrees = np.median(moved, axis=0)
    assert metres < 0.15
    assert degrees < 4


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("size", [(640, 480), (8, 8), (1, 1), (7680, 4320), (37, 900)])
def test_images_that_show_nothing(tiny, room, level, size):
    """No pose but a reason, or one that says how little it is to be trusted."""
    camera = replace(room.camera.resized(*size), fx=0.9 * max(size), fy=0.9 * max(size))
    found = tiny.localize(np.full((size[1], size[0], 3), level, np.uint8), camera, room.name)
    assert (found.world_from_camera is None) == bool(found.reason)
    if found.world_from_camera is None:
        assert found.covariance is None
        assert found.uncertainty == np.inf
        assert found.inlier_count == 0


def test_what_does_not_fit_is_refused(tiny, room, views):
    image = views[0][0]
    with pytest.raises(ConfigError, match="camera_info of this image stream"):
        tiny.localize(image[:-1], room.camera, room.name)
    with pytest.raises(CheckpointError, match="unknown scene 'attic'"):
        tiny.localize(image, room.camera, "attic")
    with pytest.raises(ConfigError, match="focal length 1,"):
        tiny.localize(image, replace(room.camera, fx=1.0, fy=1.0), room.name)


def test_released_memory_is_taken_again(tiny, room, views):
    before = tiny.localize(views[0][0], room.camera, room.name)
    tiny.release()
    assert next(tiny.model.parameters()).device.type == "cpu"
    tiny.release()
    tiny.acquire()
    tiny.warm_up(room.camera, room.name)
    assert next(tiny.model.parameters()).device.type == tiny.device.type
    assert_same(before, tiny.localize(views[0][0], room.camera, room.name))


def test_buffers_follow_a_camera_that_changes_its_size(tiny, room, views):
    image = views[0][0]
    before = tiny.localize(image, room.camera, room.name)
    for focal in np.linspace(300, 500, 6):  # another size of the network's input each
        tiny.localize(image, replace(room.camera, fx=focal, fy=focal), room.name)
    assert_same(before, tiny.localize(image, room.camera, room.name))


@pytest.fixture
def full_gpu(monkeypatch):
    """A GPU that takes nothing."""

    def place(model, device):
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        model.to(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(localizer, "place", place)
    monkeypatch.setattr(checkpoint, "place", place)


def test_a_full_gpu_is_left_for_the_cpu(full_gpu, tiny_checkpoint, room, views):
    fallen = Localizer(tiny_checkpoint, "auto")
    fallen.acquire()
    assert fallen.note == "CUDA is out of memory: running on the CPU"
    assert fallen.device.type == "cpu"
    on_cpu = Localizer(tiny_checkpoint, "cpu")
    assert on_cpu.note is None
    found = [each.localize(views[0][0], room.camera, room.name) for each in (fallen, on_cpu)]
    assert_same(*found)


def test_a_full_gpu_that_was_insisted_on_is_an_error(full_gpu, tiny_checkpoint, room, views):
    insisting = Localizer(tiny_checkpoint, "cuda")
    for _ in range(2):
        with pytest.raises(ConfigError, match="out of memory; end what else"):
            insisting.localize(views[0][0], room.camera, room.name)


@needs_cuda
def test_a_graph_answers_as_the_network_does(tiny_checkpoint, room, views):
    """Image after image, scene after scene: nothing of the one before is left in it."""
    gpu, cpu = Localizer(tiny_checkpoint, "cuda"), Localizer(tiny_checkpoint, "cpu")
    for image, _, _ in views:
        for scene in gpu.scenes:
            one, two = (each.localize(image, room.camera, scene).cells for each in (gpu, cpu))
            moved = np.linalg.norm(one.scene_coordinates - two.scene_coordinates, axis=1)
            assert np.median(moved) < 0.03
    used = torch.cuda.memory_allocated()
    for image, _, _ in views:
        gpu.localize(image, room.camera, room.name)
    assert torch.cuda.memory_allocated() == used
    gpu.release()
    assert torch.cuda.memory_allocated() < used
