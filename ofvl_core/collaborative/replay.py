"""A trained model run over a video, posed or not, and what it says as files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.checkpoint_folder import require_empty
from ofvl_core.collaborative.checkpoint import SceneRecord
from ofvl_core.collaborative.estimator import Estimate, Estimator
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.datasets.images import millimetres, read_color
from ofvl_core.datasets.loading import recognise
from ofvl_core.errors import DataError
from ofvl_core.files import atomic_path
from ofvl_core.geometry import Array
from ofvl_core.trajectory import write_tum

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

ASPECT_TOLERANCE = 0.01
"""By how much, as a share, an image's shape may differ from that of the training's camera."""


@dataclass(frozen=True)
class Shot:
    """An image file, its camera, its time in seconds and the video that it belongs to."""

    path: Path
    camera: Camera
    seconds: float
    video: str


def shots(data: Path, record: SceneRecord) -> list[Shot]:
    """The images of a scene folder, all splits, or of a folder of images in the order of their names.

    Plain images must come from the camera of training, in any resolution, at the training's rate. Raises
    DataError when there are none, or when their shape is not that camera's.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; give a scene folder or a folder of images")
    if recognise(data):
        return list(_scene_shots(load_scene(data)))
    paths = sorted(path for path in data.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{data}: neither a scene nor a folder of PNG or JPEG images; give one of these")
    height, width = read_color(paths[0]).shape[:2]
    known = record.camera
    if abs(width * known.height / (height * known.width) - 1) > ASPECT_TOLERANCE:
        raise DataError(
            f"{paths[0]}: image is {width}x{height}, which is not the shape of the trained camera's "
            f"{known.width}x{known.height}; describe the images and their camera by a dataset.yaml"
        )
    camera = known.resized(width, height)
    return [Shot(path, camera, number * record.interval, "") for number, path in enumerate(paths)]


def _scene_shots(scene: SceneData) -> Iterator[Shot]:
    frames = {frame.color: frame for split in scene.splits.values() for frame in split}
    for frame in sorted(frames.values(), key=lambda frame: (frame.sequence, frame.timestamp)):
        yield Shot(frame.color, scene.camera, frame.timestamp, frame.sequence)


def replay(
    estimator: Estimator,
    scene: str,
    images: Sequence[Shot],
    out: Path,
    on_image: Callable[[Shot, NDArray[np.uint8], Estimate], None] = lambda shot, image, estimate: None,
) -> None:
    """Estimate depth, motion and pose of all `images` as of `scene`, and write them to the new folder `out`.

    `depth/NAME.png` are 16 bit millimetres, 0 beyond 65 m; `odometry.VIDEO.txt` and `relocalized.VIDEO.txt`
    TUM trajectories, the first from the identity on, world_from_camera of the scene the second. Raises
    CheckpointError when `out` holds something, DataError for an unreadable image.
    """
    require_empty(out, "choose another --out")
    paths: dict[str, list[tuple[float, Array]]] = {}
    poses: dict[str, list[tuple[float, Array]]] = {}
    for before, shot in pairwise([None, *images]):
        assert shot is not None
        if before is None or before.video != shot.video:
            estimator.reset()
        image = read_color(shot.path, shot.camera)
        estimate = estimator.estimate(image, shot.camera, scene)
        path = paths.setdefault(shot.video, [])
        motion = estimate.previous_from_current
        path.append((shot.seconds, np.eye(4) if motion is None else path[-1][1] @ motion))
        if estimate.world_from_camera is not None:
            poses.setdefault(shot.video, []).append((shot.seconds, estimate.world_from_camera))
        with atomic_path(out / "depth" / shot.video / f"{shot.path.stem}.png") as temporary:
            cv2.imwrite(str(temporary), millimetres(estimate.depth))
        on_image(shot, image, estimate)
    for kind, trajectories in (("odometry", paths), ("relocalized", poses)):
        for video, rows in trajectories.items():
            write_tum(out / ".".join(filter(None, (kind, video.replace("/", "-"), "txt"))), rows)
