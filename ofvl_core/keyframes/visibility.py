"""How well frames show what a pose sees: the choice of keyframes, among many and for one image."""

import numpy as np

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array, apply, invert

SAMPLES = 32
"""Landmarks that stand for all of a frame."""

SIDEWAYS = 4
"""Power of the cosine between two views of a point by which a view from elsewhere counts less: half at 33
degrees."""


def visibility(samples: Array, places: Array, world_from_camera: Array, camera: Camera) -> Array:
    """Of N frames, 0 to 1: how much of each is in the image of `camera` at a pose, and how alike it looks.

    `samples` (N, S, 3) are points that each frame shows, in the scene's frame, NaN for those that it lacks;
    `places` (N, 3) its camera's. What is near the camera of one and far from that of the other, or is seen
    from another side, looks different.
    """
    seen = apply(invert(world_from_camera), samples.reshape(-1, 3))
    in_front = seen[:, 2] > 0  # not NaN
    pixels = camera.project(np.where(in_front[:, None], seen, (0.0, 0.0, 1.0)))
    inside = ((pixels >= 0) & (pixels <= (camera.width - 1, camera.height - 1))).all(axis=1) & in_front
    here, there = samples - world_from_camera[:3, 3], samples - places[:, None]
    distances = np.linalg.norm(here, axis=2), np.linalg.norm(there, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (here * there).sum(axis=2) / (distances[0] * distances[1])
        alike = cosine.clip(0, 1) ** SIDEWAYS * np.minimum(
            distances[0] / distances[1], distances[1] / distances[0]
        )
    return np.asarray(np.where(inside.reshape(alike.shape), alike, 0.0).mean(axis=1))


def sampled(points: Array) -> Array:
    """Of a frame's points (M, 3), evenly: (S, 3), NaN beyond the last where there are fewer."""
    chosen = np.full((SAMPLES, 3), np.nan)
    step = max(1, len(points) // SAMPLES)
    some = points[::step][:SAMPLES]
    chosen[: len(some)] = some
    return chosen
