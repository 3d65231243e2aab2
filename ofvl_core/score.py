"""Pose errors of any system's trajectory against the truth, without its model or its images.

Nothing is aligned: a relocalizer answers in the map's own frame, so estimate and truth are compared as they
are (evo's --align is for odometry, whose world frame is arbitrary).
"""

from pathlib import Path

import numpy as np

from ofvl_core.association import STAMP_TOLERANCE, associate
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.errors import DataError
from ofvl_core.evaluation import Result, SceneEvaluation
from ofvl_core.trajectory import ROWS, Format, Trajectory, read_trajectory


def score(
    estimate: Path, ground_truth: Path, tolerance: float = STAMP_TOLERANCE
) -> tuple[SceneEvaluation, int]:
    """Errors of an estimated trajectory, and how many of its poses belong to no row of the truth.

    `ground_truth` is a file of the same format or a scene's folder, whose test split counts then, with the
    poses as the data set publishes them. A row of the truth without an estimate is a failure. `associate`
    says which rows belong together, `tolerance` in seconds. Raises DataError as it and `read_trajectory` do.
    """
    estimated = read_trajectory(estimate)
    if ground_truth.is_dir():
        scene = load_scene(ground_truth, register_depth=False)
        name, true = scene.name, _test_split(scene, estimated.format)
    else:
        name, true = ground_truth.stem, read_trajectory(ground_truth)
    matches = associate(estimated, true, tolerance)
    results = [
        Result(label, None, pose, None, None, "no estimate")
        if match < 0
        else Result(label, None, pose, estimated.poses[match], None)
        for label, pose, match in zip(true.labels, true.poses, matches, strict=True)
    ]
    if true.names is not None:
        results.sort(key=lambda result: result.frame)  # published files are in no order
    unmatched = len(estimated.poses) - int((matches >= 0).sum())
    return SceneEvaluation(name, results, np.empty((0, 4, 4))), unmatched


def _test_split(scene: SceneData, form: Format) -> Trajectory:
    """The test split as a trajectory of the estimate's format."""
    frames = scene.frames("test")
    poses = np.array([frame.world_from_camera for frame in frames])
    if form == "name":
        return Trajectory(scene.root, poses, names=[frame.name for frame in frames])
    if form == "KITTI":
        return Trajectory(scene.root, poses)
    sequences = len({frame.sequence for frame in frames})
    if sequences > 1:
        raise DataError(
            f"{scene.root}: time stamps begin anew in each of its {sequences} test sequences; write "
            f"estimates as rows of '{ROWS['name']}'"
        )
    return Trajectory(scene.root, poses, stamps=np.array([frame.timestamp for frame in frames]))
