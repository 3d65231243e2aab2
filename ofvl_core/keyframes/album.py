"""The keyframes of one scene: as tensors of a checkpoint, and as those that show what a pose sees."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera
from ofvl_core.errors import CheckpointError
from ofvl_core.geometry import Array
from ofvl_core.keyframes.keyframe import Keyframe, Written, keyframe_camera, known_points, read
from ofvl_core.keyframes.visibility import sampled, visibility

KEPT = 512
"""Keyframes of all scenes together that are kept as they are used, 0.3 MB each; the others as they are
written, a twentieth of that. A scene may have no more: whoever looks through them all would keep none."""

SAME = 1e-3
"""Part of the focal length by which intrinsics of one and the same camera may differ, as they are rounded."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, less their whole part, are spread evenly, however many."""

BLIND = 0.05
"""Keyframes that show less than this of what a pose sees are of no use to it."""


class Album:
    """N keyframes of a scene, for one thread at a time; `describe` may run in another."""

    def __init__(
        self,
        camera: Camera,
        written: Sequence[Written],
        landmarks: NDArray[np.uint16],
        world_from_camera: Array,
        focal_scale: float = 1.0,
    ):
        """Keyframes of a scene that was recorded with `camera`, whose true focal length `focal_scale` gives.

        Their `landmarks` (N, M, 3) are u, v in a keyframe's pixels and the depth there, millimetres, 0 for
        none; `world_from_camera` (N, 4, 4) their poses. Raises ValueError when these do not fit one another.
        """
        count = len(written)
        shapes = landmarks.shape[:1], landmarks.shape[2:], world_from_camera.shape
        if shapes != ((count,), (3,), (count, 4, 4)) or not np.isfinite(world_from_camera).all():
            raise ValueError("keyframes, landmarks and poses differ in number")
        if not (landmarks[:, :, 2] > 0).any(axis=1).all():
            raise ValueError("a keyframe has no landmarks")
        self.focal_scale, self._given = focal_scale, keyframe_camera(camera)
        self.camera = self._given.zoomed(focal_scale)
        self._written, self._landmarks, self._poses = written, landmarks, world_from_camera
        self._spread = sorted(range(count), key=lambda number: number * GOLDEN % 1)
        self._ready = count
        self._samples = np.stack(
            [
                sampled(known_points(one, pose, self.camera))
                for one, pose in zip(landmarks, world_from_camera, strict=True)
            ]
        )

    def __len__(self) -> int:
        return len(self._written)

    @property
    def size(self) -> int:
        """Bytes that it takes on disk."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def corrected(self, camera: Camera) -> Camera:
        """`camera` with its true focal length where it is the recording's, of any size; another as it is."""
        given = self._given.resized(camera.width, camera.height)
        numbers = ([one.fx, one.fy, one.cx, one.cy, *one.distortion] for one in (given, camera))
        mine, asked = (np.array(one) for one in numbers)
        is_same = len(mine) == len(asked) and np.abs(mine - asked).max() <= SAME * camera.fx
        return camera.zoomed(self.focal_scale) if is_same else camera

    def rescaled(self, focal_scale: float) -> "Album":
        """The same keyframes, with this `focal_scale`."""
        return Album(self._given, self._written, self._landmarks, self._poses, focal_scale)

    def best(self, world_from_camera: Array, camera: Camera, count: int) -> list[Keyframe]:
        """The keyframes that show best what a `camera` sees from there, at most `count`, the best first.

        Raises CheckpointError when one is damaged.
        """
        scores = visibility(self._samples, self._poses[:, :3, 3], world_from_camera, camera)
        order = np.argsort(-scores, kind="stable")[:count]
        return [self._decoded(int(number)) for number in order if scores[number] > BLIND]

    def all(self) -> list[Keyframe]:
        """All of them; while `describe` runs, those that it is done with, which are from all over the scene.

        Raises CheckpointError when one is damaged.
        """
        return [self._decoded(number) for number in self._spread[: self._ready]]

    def describe(self, is_stopped: Callable[[], bool]) -> None:
        """Get one after another ready to be matched, 15 ms each, until all are or it `is_stopped`."""
        try:
            for done, number in enumerate(self._spread):
                self._ready = done
                if is_stopped():
                    return
                with suppress(CheckpointError):  # whoever looks through it is told
                    self._decoded(number).features  # noqa: B018 - to have it
        finally:
            self._ready = len(self)

    def forget(self) -> None:
        """Give back the memory of keyframes as they are used; other albums read theirs again too."""
        Album._decoded.cache_clear()

    @lru_cache(maxsize=KEPT)  # noqa: B019 - kept of all albums together is what is meant
    def _decoded(self, number: int) -> Keyframe:
        try:
            return read(self._written[number], self._landmarks[number], self._poses[number], self.camera)
        except ValueError as error:
            raise CheckpointError(f"keyframe {number} of a scene: {error}; train again") from None

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` makes the album of."""
        contents = [content for written in self._written for content in written]
        return {
            "contents": torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8),
            "ends": torch.tensor(np.cumsum([len(content) for content in contents])),
            "landmarks": torch.from_numpy(self._landmarks),
            "world_from_camera": torch.from_numpy(self._poses),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], camera: Camera, focal_scale: float = 1.0) -> "Album":
        """The album of a scene that was recorded with `camera`. Raises KeyError or ValueError for others."""
        contents = tensors["contents"].numpy().tobytes()
        ends = [0, *tensors["ends"].tolist()]
        parts = [contents[start:end] for start, end in pairwise(ends)]
        written = [Written(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
        landmarks, poses = tensors["landmarks"].numpy(), tensors["world_from_camera"].numpy()
        return cls(camera, written, landmarks, poses, focal_scale)
