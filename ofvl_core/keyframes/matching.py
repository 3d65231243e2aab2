"""Where an image shows points of keyframes, whatever its pose: by what they look like."""

from collections.abc import Sequence

import numpy as np

from ofvl_core.geometry import Array
from ofvl_core.keyframes.descriptors import Described, roots
from ofvl_core.keyframes.keyframe import Keyframe

ALIKE = 2
"""Points of each keyframe that look most like one of the image: one of them may be it, the others are rivals.
With one fewer images are found; looking for the five nearest of all together takes six times as long."""

RATIO = 0.85
"""Largest ratio of how unlike the best is to how unlike the best elsewhere is (D. Lowe 2004)."""

ELSEWHERE = 0.1
"""Metres from the best at which another is elsewhere: several keyframes show the same point."""


def match(keyframes: Sequence[Keyframe], image: Described) -> tuple[Array, Array]:
    """Pixels (K, 2) of an image and the points (K, 3) of `keyframes` that they seem to show."""
    rows = np.arange(len(image.pixels))
    looks, places = [], []
    sought = roots(image.descriptors)
    for keyframe in keyframes:
        points, descriptors = keyframe.features
        if len(points) < ALIKE:
            continue
        alike = sought @ roots(descriptors).T
        for _ in range(ALIKE):
            nearest = alike.argmax(axis=1)
            looks.append(alike[rows, nearest])
            places.append(points[nearest])
            alike[rows, nearest] = -1.0
    if not looks:
        return np.empty((0, 2)), np.empty((0, 3))
    unlike = 2 - 2 * np.stack(looks, axis=1)  # squared distances
    shown = np.stack(places, axis=1)
    best = unlike.argmin(axis=1)
    points = shown[rows, best]
    elsewhere = np.linalg.norm(shown - points[:, None], axis=2) > ELSEWHERE
    rival = np.where(elsewhere, unlike, np.inf).min(axis=1)
    distinct = unlike[rows, best] <= RATIO**2 * rival
    return image.pixels[distinct], points[distinct]
