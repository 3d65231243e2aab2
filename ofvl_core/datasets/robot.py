"""The robot that carried the camera, where a data set knows it: frames and static transforms."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ofvl_core.errors import DataError
from ofvl_core.files import write_json
from ofvl_core.geometry import Array, quaternion_xyzw, transform

ROBOT_FILE = "robot.json"
ODOMETRY_FILE = "odometry.txt"  # in a sequence: odom_from_base


@dataclass(frozen=True)
class Robot:
    """Frame names (REP-105, realsense) and static transforms as (parent, child, parent_from_child)."""

    odom_frame: str
    base_frame: str
    camera_frame: str
    optical_frame: str
    static_transforms: list[tuple[str, str, Array]]

    @property
    def base_from_optical(self) -> Array:
        """Extrinsics of the camera, composed along the static transforms."""
        parents = {child: (parent, matrix) for parent, child, matrix in self.static_transforms}
        frame, base_from_optical = self.optical_frame, np.eye(4)
        for _ in self.static_transforms:
            if frame == self.base_frame:
                break
            if frame not in parents:
                break
            frame, parent_from_child = parents[frame]
            base_from_optical = parent_from_child @ base_from_optical
        if frame != self.base_frame:
            raise DataError(
                f"{ROBOT_FILE}: no static transforms lead from {self.optical_frame} to {self.base_frame}; "
                "add the missing one"
            )
        return base_from_optical


def load_robot(scene_root: Path) -> Robot | None:
    """The scene's robot, or None when the data set says nothing of it. Raises DataError."""
    path = scene_root / ROBOT_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        static_transforms = [
            (item["parent"], item["child"], transform(item["translation"], item["rotation_xyzw"]))
            for item in content.pop("static_transforms")
        ]
        return Robot(static_transforms=static_transforms, **content)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a robot description ({error}); see docs/datasets.md for its keys"
        ) from None


def write_robot(scene_root: Path, robot: Robot) -> None:
    """Write what `load_robot` reads."""
    content = asdict(robot)
    content["static_transforms"] = [
        {
            "parent": parent,
            "child": child,
            "translation": parent_from_child[:3, 3].tolist(),
            "rotation_xyzw": quaternion_xyzw(parent_from_child).tolist(),
        }
        for parent, child, parent_from_child in robot.static_transforms
    ]
    write_json(scene_root / ROBOT_FILE, content)
