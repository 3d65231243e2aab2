"""Where an image shows points of keyframes, whatever its pose: by what they look like."""

from collections.abc import Sequence

import numpy as np

from ofvl_core.geometry import Array
from ofvl_core.keyframes.descriptors import Described
from ofvl_core.keyframes.keyframe import Keyframe

NEIGHBOURS = 5
"""Points of keyframes that look most like one of the image. A rival beyond these is none."""

RATIO = 0.85
"""Largest ratio of how unlike the best is to how unlike the best elsewhere is (D. Lowe 2004)."""

ELSEWHERE = 0.1
"""Metres from the best at which another is elsewhere: several keyframes show the same point."""


def match(keyframes: Sequence[Keyframe], image: Described) -> tuple[Array, Array]:
    """Pixels (K, 2) of an image and the points (K, 3) of `keyframes` that they seem to show."""
    features = [keyframe.features for keyframe in keyframes]
    if sum(len(one.points) for one in features) < NEIGHBOURS or not len(image.pixels):
        return np.empty((0, 2)), np.empty((0, 3))
    points = np.concatenate([one.points for one in features])
    descriptors = np.concatenate([one.descriptors for one in features])
    unlike = 2 - 2 * (image.descriptors @ descriptors.T)  # squared distances
    nearest = np.argpartition(unlike, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
    unlike = np.take_along_axis(unlike, nearest, axis=1)
    rows = np.arange(len(nearest))
    best = unlike.argmin(axis=1)
    places = points[nearest]
    elsewhere = np.linalg.norm(places - places[rows, best][:, None], axis=2) > ELSEWHERE
    rival = np.where(elsewhere, unlike, np.inf).min(axis=1)
    distinct = unlike[rows, best] <= RATIO**2 * rival
    return image.pixels[distinct], places[rows, best][distinct]
