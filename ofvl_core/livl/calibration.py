"""Where LiDAR and camera sit on the robot: read from a file or from the recorded /tf_static."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, transform
from ofvl_core.yaml_files import read_yaml

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _TransformKeys(BaseModel):
    """A transform as ROS writes it: the pose of `child` in `parent`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    parent: str
    child: str
    translation: tuple[Finite, Finite, Finite]
    rotation_xyzw: tuple[Finite, Finite, Finite, Finite]


class _CalibrationKeys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    transforms: tuple[_TransformKeys, ...] = Field(min_length=1)
    time_offset: Finite | None = None


@dataclass(frozen=True)
class Calibration:
    """Transforms (parent, child, parent_from_child) that stand above the recorded ones.

    `time_offset` is added to a camera's stamp to have the LiDAR's time, seconds; None: to be estimated.
    """

    transforms: list[tuple[str, str, Array]]
    time_offset: float | None


def read_calibration(path: Path) -> Calibration:
    """A checked calibration file, as config/camera_lidar.yaml explains it. Raises DataError."""
    keys = read_yaml(path, _CalibrationKeys, "config/camera_lidar.yaml")
    for item in keys.transforms:
        if abs(np.linalg.norm(item.rotation_xyzw) - 1) > 0.01:
            raise DataError(
                f"{path}: rotation_xyzw of {item.child} is no unit quaternion; write x, y, z, w as "
                "'ros2 run tf2_ros tf2_echo' prints them"
            )
    return Calibration(
        [
            (item.parent, item.child, transform(item.translation, item.rotation_xyzw))
            for item in keys.transforms
        ],
        keys.time_offset,
    )
