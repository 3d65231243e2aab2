"""The real recordings: their geometry holds from the files on disk to the pose."""

import cv2
import numpy as np
import pytest
import torch
from numpy.linalg import norm

from ofvl_core.camera import cell_pixels
from ofvl_core.collaborative.splits import ODOMETRY, RELOCALIZATION, held_out
from ofvl_core.collaborative.video import Turns, VideoSource, pack_video
from ofvl_core.correspondences import Correspondences
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.geometry import invert, pose_error
from ofvl_core.pose import estimate_pose
from ofvl_core.resize import input_camera
from ofvl_core.training.augmentation import cell_targets, unwarped
from ofvl_core.training.packed import pack_frames

SCENES = {"redkitchen": (350, 45), "hololens_office": (301, 24), "fr1_rpy": (225, 45)}


def test_all_scenes_are_read(real_scenes):
    found = {path.name: load_scene(path) for path in find_scenes([real_scenes])}
    sizes = {name: (len(scene.frames("train")), len(scene.frames("test"))) for name, scene in found.items()}
    assert sizes == SCENES


@pytest.mark.parametrize("name", SCENES)
def test_training_targets_hold_the_recorded_pose(real_scenes, name):
    """Depth, intrinsics, poses and pixel convention together: PnP on the targets gives the pose file back."""
    scene = load_scene(real_scenes / name)
    few = scene.frames("train")[::60]
    scene.splits["train"] = few
    camera = input_camera(scene.camera, scene.camera.fy / 4, 8)
    packed = pack_frames(scene, camera)
    warps = np.tile(unwarped(camera, packed.camera), (len(packed), 1, 1))
    coordinates, valid, *_ = cell_targets(packed, np.arange(len(packed)), warps, stride=8)
    rays = camera.rays(cell_pixels(camera.width, camera.height, 8))[:, :2]
    for points, mask, frame in zip(coordinates, valid, few, strict=True):
        known = mask.flatten()
        points = points.reshape(3, -1).T[known]
        seen = Correspondences(rays[known], points, np.ones(len(points)))
        estimate = estimate_pose(seen, camera.focal)
        metres, degrees = pose_error(estimate.world_from_camera, frame.world_from_camera)
        assert metres < 1e-3
        assert degrees < 0.02


@pytest.mark.parametrize("name", SCENES)
def test_neighbouring_frames_agree_on_the_surface(real_scenes, name):
    """Camera-to-world poses and registered depth: a frame's points land on the next frame's depth."""
    scene = load_scene(real_scenes / name)
    scene.splits["train"] = scene.frames("train")[:2]
    packed = pack_frames(scene, scene.camera)
    first, second = packed.world_from_camera
    depths = packed.depths / 1000.0
    rows, columns = np.nonzero(depths[0])
    points = scene.camera.rays(np.stack([columns, rows], axis=1)) * depths[0, rows, columns, None]
    seen = (invert(second) @ first @ np.column_stack([points, np.ones(len(points))]).T).T[:, :3]
    u, v = np.rint(scene.camera.project(seen)).astype(int).T
    inside = (u >= 0) & (u < scene.camera.width) & (v >= 0) & (v < scene.camera.height) & (seen[:, 2] > 0)
    measured = depths[1, v[inside], u[inside]]
    difference = np.abs(measured - seen[inside, 2])[measured > 0]
    assert np.median(difference) < 0.05


@pytest.fixture
def kitti(real_scenes):
    """The first 800 frames of KITTI odometry 00."""
    folder = real_scenes.with_name("kitti") / "00"
    if not folder.is_dir():
        pytest.skip(f"real recordings are incomplete: {folder} is absent")
    return load_scene(folder)


def test_a_drive_is_read_and_held_out(kitti):
    assert (kitti.name, kitti.splits["test"]) == ("kitti_00", [])
    scene = held_out(kitti)
    counts = {split: len(scene.frames(split)) for split in ("train", ODOMETRY, RELOCALIZATION)}
    assert counts == {"train": 480, ODOMETRY: 200, RELOCALIZATION: 120}
    poses = np.stack([frame.world_from_camera for frame in kitti.frames("train")])
    steps = (invert(poses[:-1]) @ poses[1:])[:, :3, 3]
    assert norm(steps, axis=1).max() < 1.5
    assert np.median(steps[:, 2] / norm(steps, axis=1)) > 0.99  # a car drives where its camera looks


@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_views_of_a_drive_keep_to_the_epipolar_lines(kitti, mirrored):
    """Corners followed from frame to frame lie on the lines that a batch's own poses and intrinsics say."""
    kitti.splits["train"] = kitti.frames("train")[200:240]  # a bend; straight ahead, lines say little
    video = pack_video(kitti, kitti.camera)
    batch = VideoSource(
        video, 12, Turns(angle_deg=4, zoom=(1, 1.4)), (0,), torch.device("cpu"), mirrored
    ).batch(0)
    greys = (255 * batch.clean[:, :2].mean(2)).byte().numpy()
    distances = []
    for (before, after), matrix, poses in zip(
        greys, batch.intrinsics.double().numpy(), batch.world_from_camera.double().numpy(), strict=True
    ):
        corners = cv2.goodFeaturesToTrack(before, 200, 0.01, 5)
        followed, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None)
        start, end = (np.insert(ends[found[:, 0] == 1, 0], 2, 1, axis=1) for ends in (corners, followed))
        motion = invert(poses[1]) @ poses[0]
        essential = np.cross(motion[:3, 3], motion[:3, :3], axisb=0, axisc=0)
        lines = start @ (np.linalg.inv(matrix).T @ essential @ np.linalg.inv(matrix)).T
        distances.append(np.abs((lines * end).sum(axis=1)) / norm(lines[:, :2], axis=1))
    assert np.median(np.concatenate(distances)) < 0.2  # pixels; 0.5 where turn or zoom are not accounted for
