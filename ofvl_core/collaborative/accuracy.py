"""How right a trained model is: its unit of length in metres, and how far it is off elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ofvl_core.checkpoint_folder import save_manifest
from ofvl_core.collaborative.checkpoint import Accuracy
from ofvl_core.collaborative.estimator import Estimator
from ofvl_core.collaborative.splits import ODOMETRY, RELOCALIZATION
from ofvl_core.collaborative.video import runs
from ofvl_core.datasets import SceneData
from ofvl_core.geometry import Array, invert, pose_error

FEWEST = 10
"""Frames or motions from which a deviation can be told."""

MEDIAN_OF_NORMAL = 0.6745
"""Median of the size of a normal variable of deviation 1."""

MEDIAN_IN_SPACE = 1.5382
"""Median length of a vector whose three parts are normal of deviation 1."""


class Motions(NamedTuple):
    """Motions (N, 4, 4) previous_from_current of neighbouring frames, estimated and true; and poses
    world_from_camera (M, 4, 4) of all frames likewise, M = 0 without GlobalPoseNet."""

    estimated: Array
    true: Array
    estimated_poses: Array
    true_poses: Array


def with_accuracy(checkpoint: Path, scenes: Sequence[SceneData], device: torch.device) -> None:
    """Measure the accuracy of a checkpoint on its scenes, and keep it in the manifest."""
    estimator = Estimator(checkpoint, device.type)
    for scene in scenes:
        estimator.manifest.scene(scene.name).accuracy = accuracy(estimator, scene)
    save_manifest(checkpoint, estimator.manifest)


def accuracy(estimator: Estimator, scene: SceneData) -> Accuracy:
    """The accuracy in a scene that has the splits of `held_out`, of a model whose unit is not known yet."""
    trained = observe(estimator, scene, "train")
    lengths, true_lengths = (np.linalg.norm(motions[:, :3, 3], axis=1) for motions in trained[:2])
    moved = true_lengths > np.median(true_lengths) / 2
    unit = float(np.median(true_lengths[moved] / np.maximum(lengths[moved], 1e-9))) if moved.any() else 1.0
    found: dict[str, float] = {"metres_per_unit": unit}
    if scene.splits[ODOMETRY]:
        held = observe(estimator, scene, ODOMETRY)
        lengths, true_lengths = (np.linalg.norm(motions[:, :3, 3], axis=1) for motions in held[:2])
        moved = true_lengths > np.median(true_lengths) / 2
        if moved.sum() >= FEWEST:
            logs = np.log(np.maximum(unit * lengths[moved], 1e-9) / true_lengths[moved])
            found["scale_deviation"] = float(np.median(np.abs(logs)) / MEDIAN_OF_NORMAL)
            errors = np.swapaxes(held.estimated[:, :3, :3], 1, 2) @ held.true[:, :3, :3]
            turns = Rotation.from_matrix(errors).magnitude()
            found["rotation_deviation"] = float(np.median(turns) / MEDIAN_IN_SPACE)
    if scene.splits[RELOCALIZATION]:
        held = observe(estimator, scene, RELOCALIZATION)
        pairs = zip(held.estimated_poses, held.true_poses, strict=True)
        errors = np.array([pose_error(*pair) for pair in pairs])
        if len(errors) >= FEWEST:
            metres, degrees = np.median(errors, axis=0) / MEDIAN_IN_SPACE
            found["position_deviation"] = float(metres)
            found["orientation_deviation"] = float(np.radians(degrees))
    return Accuracy(**found)


def observe(estimator: Estimator, scene: SceneData, split: str) -> Motions:
    """What the estimator says of the frames of a split."""
    frames = scene.frames(split)
    follows = set(runs(frames, 2)[:, 1].tolist())
    motions, true_motions, poses, true_poses = [], [], [], []
    for number, frame in enumerate(frames):
        if number not in follows:
            estimator.reset()
        estimate = estimator.estimate(scene.read_color(frame), scene.camera, scene.name)
        if estimate.previous_from_current is not None:
            motions.append(estimate.previous_from_current)
            true_motions.append(invert(frames[number - 1].world_from_camera) @ frame.world_from_camera)
        if estimate.world_from_camera is not None:
            poses.append(estimate.world_from_camera)
            true_poses.append(frame.world_from_camera)
    estimator.reset()
    return Motions(*(np.array(each).reshape(-1, 4, 4) for each in (motions, true_motions, poses, true_poses)))
