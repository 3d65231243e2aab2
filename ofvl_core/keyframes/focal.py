"""The focal length that a recording itself shows, where it is another than the one it came with."""

from collections.abc import Callable, Sequence

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.keyframes.album import Album
from ofvl_core.keyframes.flow import find
from ofvl_core.keyframes.keyframe import Keyframe, grey

FRAMES = 100
"""That are looked at, evenly spread over a scene's."""

BESIDE = 5
"""Keyframes whose landmarks are looked for in each, or one less where it is one itself."""

BLOCKS = 10
"""Of frames that follow one another: how differently they speak tells how certain all are."""

CERTAIN, LEAST = 5.0, 0.005
"""Standard errors, and part of the focal length, by which another must be meant. Of ten recordings one said
-0.9 % at 10, and its poses became better; the others at most 1.0 % at 3.4, or 0.04 % at 6."""

CLEAR = 1.0
"""Pixels that landmarks may miss as a rule, even so: poses that leave more say nothing of the camera."""

STEPS = 10
"""In which landmarks that fit nothing lose their weight."""

ROUNDS = 4
"""In which even the intrinsics of an image of half the size become right."""


def with_true_focal_length(
    scene: SceneData, frames: Sequence[Frame], album: Album, on_frame: Callable[[], None] = lambda: None
) -> Album:
    """The album with the `focal_scale` that the scene's `frames` show; as it is where they are not certain.

    Landmarks of keyframes are followed into frames whose poses are known: what these miss grows with the
    distance from the middle of the image where the focal length is wrong. `on_frame` is called for every
    frame. Raises DataError when one is unreadable.
    """
    for _ in range(ROUNDS):
        scale = _shown_by(scene, frames, album, on_frame)
        if scale == 1:
            break
        album = album.rescaled(album.focal_scale * scale)
    return album


def _shown_by(scene: SceneData, frames: Sequence[Frame], album: Album, on_frame: Callable[[], None]) -> float:
    """How many times the album's focal length the frames show; 1 where that is not certain."""
    camera = album.camera
    seen = []
    for frame in frames[:: -(-len(frames) // FRAMES) or 1]:
        image, pose = grey(scene.read_color(frame), camera), frame.world_from_camera
        for keyframe in album.best(pose, camera, BESIDE):
            if not np.array_equal(keyframe.world_from_camera, pose):
                seen.append(_misses(keyframe, *find(keyframe, image, camera, pose), camera, pose))
        on_frame()
    if len(seen) < BLOCKS:
        return 1.0
    miss, slope = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    longer, error = _fitted(miss, slope)
    if abs(longer) <= max(LEAST, CERTAIN * error):
        return 1.0
    left = np.linalg.norm(miss - longer * slope, axis=1)
    return 1.0 + longer if np.median(left) < CLEAR else 1.0


def focal_words(scale: float) -> str:
    """What a user is told of it: nothing where it is 1."""
    if scale == 1:
        return ""
    than = "longer" if scale > 1 else "shorter"
    return f", which show a focal length {abs(scale - 1):.1%} {than} than given"


def _misses(
    keyframe: Keyframe, pixels: Array, points: Array, camera: Camera, world_from_camera: Array
) -> tuple[Array, Array]:
    """Pixels (N, 2) that landmarks miss, and by how much less (N, 2) for a focal length that is longer.

    A keyframe's `points` are at the `pixels` of an image taken from there. With another focal length they
    are elsewhere, too, as their depth stays. The image grows about its middle by where a landmark is, halfway
    between found and expected: either would take its own error for growth.
    """
    slight = 1e-3
    here, there = invert(world_from_camera), invert(keyframe.world_from_camera)
    seen = camera.project(apply(here, points))
    narrower = apply(there, points) / (1 + slight, 1 + slight, 1)
    moved = camera.project(apply(here @ keyframe.world_from_camera, narrower))
    return pixels - seen, (pixels + seen) / 2 - (camera.cx, camera.cy) + (moved - seen) / slight


def _fitted(miss: Array, slope: Array) -> tuple[float, float]:
    """The part by which the focal length is longer, and its standard error.

    By least squares with Cauchy's weights; the error bears that what is seen at one time is wrong together
    (K. Liang, S. Zeger 1986).
    """
    weights, longer, known = np.ones(len(miss)), 0.0, 0.0
    for _ in range(STEPS):
        known = float(weights @ (slope**2).sum(axis=1))
        if known == 0:
            return 0.0, np.inf
        longer = float(weights @ (miss * slope).sum(axis=1)) / known
        weights = 1 / (1 + ((miss - longer * slope) ** 2).sum(axis=1))
    pulls = weights * ((miss - longer * slope) * slope).sum(axis=1)
    together = [pull.sum() for pull in np.array_split(pulls, BLOCKS)]
    return longer, float(np.linalg.norm(together)) * (BLOCKS / (BLOCKS - 1)) ** 0.5 / known
