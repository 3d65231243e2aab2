"""Which of a scene's training frames are remembered: few that show what all of them see."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.datasets import Frame, SceneData
from ofvl_core.geometry import Array
from ofvl_core.keyframes.album import Album
from ofvl_core.keyframes.focal import with_true_focal_length
from ofvl_core.keyframes.keyframe import (
    LANDMARKS,
    Written,
    find_landmarks,
    grey,
    keyframe_camera,
    known_points,
    write,
)
from ofvl_core.keyframes.visibility import sampled, visibility

CANDIDATES = 1000
"""Frames that are looked at, evenly spread over a scene's."""

FEWEST_LANDMARKS = 30
"""A frame with fewer is no keyframe: blurred, dark, or without depth."""


class _Candidate(NamedTuple):
    written: Written
    landmarks: NDArray[np.uint16]
    sharpness: float


def remember(scene: SceneData, most: int, on_frame: Callable[[], None] = lambda: None) -> Album | None:
    """At most `most` keyframes of the scene's training frames; None where no frame will do.

    Greedily the one that adds most to how well all frames are shown by the keyframe that shows them best:
    facility location, where the greedy choice reaches 63 % of the best (G. Nemhauser et al. 1978). Sharp ones
    count more. `on_frame` is called for every frame looked at. Raises DataError when one is
    unreadable.
    """
    frames = [frame for frame in scene.frames("train") if frame.depth is not None]
    step = -(-len(frames) // CANDIDATES) or 1
    candidates: list[_Candidate] = []
    poses: list[Array] = []
    for frame in frames[::step]:
        candidate = _candidate(scene, frame)
        on_frame()
        if np.count_nonzero(candidate.landmarks[:, 2]) >= FEWEST_LANDMARKS:
            candidates.append(candidate)
            poses.append(frame.world_from_camera)
    if not candidates or most == 0:
        return None
    chosen = _choose(scene, candidates, np.stack(poses), most)
    album = Album(
        scene.camera,
        [candidates[number].written for number in chosen],
        np.stack([candidates[number].landmarks for number in chosen]),
        np.stack([poses[number] for number in chosen]),
    )
    return with_true_focal_length(scene, frames, album, on_frame)


def _candidate(scene: SceneData, frame: Frame) -> _Candidate:
    camera = keyframe_camera(scene.camera)
    image, depth = grey(scene.read_color(frame), camera), scene.read_depth(frame)
    landmarks = np.zeros((LANDMARKS, 3), np.uint16)
    found = find_landmarks(image, depth)
    landmarks[: len(found)] = found
    sharpness = float(cv2.Laplacian(image, cv2.CV_32F).var())
    return _Candidate(write(image, depth), landmarks, sharpness)


def _choose(scene: SceneData, candidates: list[_Candidate], poses: Array, most: int) -> list[int]:
    camera = keyframe_camera(scene.camera)
    samples = np.stack(
        [
            sampled(known_points(one.landmarks, pose, camera))
            for one, pose in zip(candidates, poses, strict=True)
        ]
    )
    shown = np.stack([visibility(samples, poses[:, :3, 3], pose, camera) for pose in poses])
    sharpness = np.array([one.sharpness for one in candidates])
    shown *= np.sqrt(sharpness / np.median(sharpness)).clip(0, 1)
    best = np.zeros(len(poses))
    chosen: list[int] = []
    while len(chosen) < most:
        gains = np.maximum(shown - best[:, None], 0).sum(axis=0)
        leader = int(gains.argmax())
        if gains[leader] <= 0:
            break
        chosen.append(leader)
        best = np.maximum(best, shown[:, leader])
    return sorted(chosen)
