"""The data set as files: a described folder, which every command of this project reads."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.datasets.described import DESCRIPTION_FILE, Description
from ofvl_core.datasets.images import millimetres
from ofvl_core.errors import DataError
from ofvl_core.files import atomic_path, write_text
from ofvl_core.geometry import Array
from ofvl_core.recording.images import rgb_array

MICROSECOND = 1e-6

JPEG = b"\xff\xd8\xff"


def sequence_name(number: int) -> str:
    """The folder of a sequence; numbers begin at 1."""
    return f"seq-{number:02d}"


def write_description(
    root: Path, camera: Camera, depth_size: tuple[int, int], suffix: str, splits: dict[str, list[str]]
) -> None:
    """dataset.yaml: what the images are and which sequences are for what. `depth_size` is width, height."""
    description = Description.model_validate(
        {
            "camera": {
                **{name: getattr(camera, name) for name in ("width", "height", "fx", "fy", "cx", "cy")},
                "distortion": camera.distortion if any(camera.distortion) else (),
            },
            "color": f"frame-*.color{suffix}",
            "depth": "frame-*.depth.png",
            "depth_size": None if depth_size == (camera.width, camera.height) else depth_size,
            "stamp_unit": MICROSECOND,
            "poses": {"file": "frame-*.pose.txt", "format": "matrix"},
            "sequences": {split: tuple(names) for split, names in splits.items()},
        }
    )
    content = description.model_dump(mode="json", exclude_defaults=True)
    write_text(root / DESCRIPTION_FILE, yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


def frame_stem(folder: Path, microseconds: int) -> Path:
    """Where a frame's files begin: named by its time since the sequence's first image."""
    return folder / f"frame-{microseconds:012d}"


def suffix_of(color: Any) -> str:
    """How an image's file ends: a JPEG stays as it was recorded, everything else becomes PNG."""
    return ".jpg" if _is_jpeg(color) else ".png"


def write_frame(
    stem: Path, color: Any, depth: NDArray[np.float32], world_from_camera: Array, suffix: str
) -> None:
    """Files of one frame; the pose comes last and shows that the others are whole.

    `color` is an Image or CompressedImage message, `depth` (h, w) metres with NaN where unknown.
    """
    image = Path(f"{stem}.color{suffix}")
    if suffix == ".jpg" and _is_jpeg(color):
        with atomic_path(image) as temporary:
            temporary.write_bytes(bytes(color.data))
    else:
        _write_image(image, cv2.cvtColor(rgb_array(color), cv2.COLOR_RGB2BGR))
    _write_image(Path(f"{stem}.depth.png"), millimetres(depth))
    write_text(
        pose_file(stem),
        "\n".join(" ".join(f"{number:.9f}" for number in row) for row in world_from_camera) + "\n",
    )


def pose_file(stem: Path) -> Path:
    """The file that is written last."""
    return Path(f"{stem}.pose.txt")


def is_written(stem: Path) -> bool:
    """Whether a frame is there, from a build that was interrupted."""
    return pose_file(stem).exists()


def _is_jpeg(message: Any) -> bool:
    return hasattr(message, "format") and bytes(message.data[:3]) == JPEG


def _write_image(path: Path, image: Any) -> None:
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), image, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
            raise DataError(
                f"{path}: could not be written; check the space left and the folder's permissions"
            )
