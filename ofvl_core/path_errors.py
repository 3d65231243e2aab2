"""How good odometry is over a whole path, by evo (Grupp, 2017), whose numbers the field compares.

evo is GPL-3 and not part of what this package needs: only this module imports it, and only evaluations ask
for it, where `evo_is_there`.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from ofvl_core.geometry import Array, quaternion_xyzw

if TYPE_CHECKING:
    from evo.core.trajectory import PosePath3D


def evo_is_there() -> bool:
    """Whether evo is installed; the rest of this module needs it."""
    return find_spec("evo") is not None


@dataclass(frozen=True)
class PathErrors:
    """Errors of a path of `metres` by evo's conventions: root mean squares over all its poses.

    APE is the distance between positions after the best alignment, RPE the error of the motion from one frame
    to the next. An alignment by similarity ("sim3") multiplies the estimate by `scale`; a rigid one ("se3")
    shows a wrong scale. None where positions on one point or line leave the alignment open.
    """

    poses: int
    metres: float
    scale: float | None
    ape_sim3_m: float | None
    ape_se3_m: float | None
    rpe_sim3_m: float | None
    rpe_se3_m: float | None
    rpe_deg: float


def path_errors(true: Array, estimated: Array) -> PathErrors:
    """Errors of an estimated path: poses (N, 4, 4), N > 1, of both paths, each in a frame of its own."""
    from evo.core import metrics

    reference = _evo_path(true)

    def rmse(measured: metrics.PE, estimate: "PosePath3D") -> float:
        measured.process_data((reference, estimate))
        return float(measured.get_statistic(metrics.StatisticsType.rmse))

    metres, degrees = metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg
    similar, scale = _aligned(reference, estimated, with_scale=True)
    rigid, _ = _aligned(reference, estimated, with_scale=False)
    return PathErrors(
        poses=len(true),
        metres=float(reference.path_length),
        scale=scale,
        ape_sim3_m=None if similar is None else rmse(metrics.APE(metres), similar),
        ape_se3_m=None if rigid is None else rmse(metrics.APE(metres), rigid),
        rpe_sim3_m=None if similar is None else rmse(metrics.RPE(metres), similar),
        rpe_se3_m=None if rigid is None else rmse(metrics.RPE(metres), rigid),
        rpe_deg=rmse(metrics.RPE(degrees), _evo_path(estimated)),
    )


def aligned_positions(true: Array, estimated: Array) -> Array | None:
    """Positions (N, 3) of an estimated path laid over the true one by similarity, None where that is open."""
    similar, _ = _aligned(_evo_path(true), estimated, with_scale=True)
    return None if similar is None else np.array(similar.positions_xyz)


def _evo_path(poses: Array) -> "PosePath3D":
    from evo.core.trajectory import PosePath3D

    quaternions = np.array([np.roll(quaternion_xyzw(pose), 1) for pose in poses])  # evo's are w, x, y, z
    return PosePath3D(poses[:, :3, 3], quaternions)


def _aligned(
    reference: "PosePath3D", estimated: Array, with_scale: bool
) -> tuple["PosePath3D | None", float | None]:
    from evo.core.geometry import GeometryException

    path = _evo_path(estimated)
    try:
        _, _, scale = path.align(reference, correct_scale=with_scale)
    except GeometryException:
        return None, None
    return path, float(scale)
