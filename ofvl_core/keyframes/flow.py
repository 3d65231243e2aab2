"""Where a keyframe's landmarks are in an image whose pose is nearly known: by optical flow between two
pictures that this makes look alike."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.keyframes.descriptors import Grey
from ofvl_core.keyframes.keyframe import GRID, Keyframe

NEAREST = 0.1
"""What is closer than this to the camera, metres, is not looked at."""

NOWHERE = -1e4
"""Pixel of what the image does not show."""

WINDOW = (15, 15)
"""Pixels around a landmark that are found again (B. Lucas, T. Kanade 1981)."""

STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
"""Steps and pixels at which a search ends. OpenCV's 30 and 0.01 take a fifth longer, for poses no better."""

LEVELS = 3
"""Times that images are halved: a landmark may lie eight windows away."""

Plane = NDArray[np.float32]

RETURN = 1.0
"""Pixels from where it set out at which a landmark must arrive when it is followed back."""


def find(keyframe: Keyframe, image: Grey, camera: Camera, world_from_camera: Array) -> tuple[Array, Array]:
    """Pixels (K, 2) of `image`, taken with `camera` at about this pose, and the points (K, 3) that they show.

    The image is warped to how it would look from the keyframe if the pose and the keyframe's depth were
    right: then both look alike from wherever they were taken, and a landmark's flow is what is left of the
    pose's error.
    """
    height, width = keyframe.image.shape
    seen = apply(invert(world_from_camera), keyframe.surface)
    hidden = ~(seen[:, 2] > NEAREST) | (np.hypot(seen[:, 0], seen[:, 1]) > camera.field_radius * seen[:, 2])
    seen[hidden] = 0.0, 0.0, 1.0
    pixels = camera.project(seen).astype(np.float32)
    pixels[hidden] = NOWHERE
    u, v = (cv2.resize(side.reshape(height // GRID, width // GRID), (width, height)) for side in pixels.T)
    warped = np.asarray(cv2.remap(image, u, v, cv2.INTER_LINEAR), np.uint8)
    moved, found = _flow(keyframe.image, warped, keyframe.pixels)
    back, found_back = _flow(warped, keyframe.image, moved)
    returned = np.abs(back - keyframe.pixels).max(axis=1) < RETURN
    there = np.column_stack([_sampled(side, moved) for side in (u, v)])
    inside = (there >= 0).all(axis=1) & (there <= (camera.width - 1, camera.height - 1)).all(axis=1)
    kept = found & found_back & returned & inside
    return there[kept].astype(float), keyframe.points[kept]


def _flow(before: Grey, after: Grey, pixels: Plane) -> tuple[Plane, NDArray[np.bool_]]:
    """Where `pixels` (M, 2) of one image are in the other, and which of them were found."""
    unknown = np.empty_like(pixels)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, pixels, unknown, winSize=WINDOW, maxLevel=LEVELS, criteria=STOP
    )
    return np.asarray(moved, np.float32), np.asarray(found)[:, 0] > 0


def _sampled(values: Plane, pixels: Plane) -> Plane:
    """Values (M,) of a picture (h, w) at `pixels` (M, 2)."""
    u, v = pixels[:, :1], pixels[:, 1:]
    sampled = cv2.remap(values, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=NOWHERE)
    return np.asarray(sampled[:, 0], np.float32)
