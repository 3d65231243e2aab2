"""A pose made better by the keyframes that show what it sees."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.correspondences import Correspondences
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.keyframes.album import Album
from ofvl_core.keyframes.flow import find
from ofvl_core.keyframes.keyframe import Grey, grey
from ofvl_core.looks import depths_at
from ofvl_core.pose import PoseOptions, estimate_pose
from ofvl_core.resize import input_camera

KEYFRAMES = (2, 6)
"""Keyframes that are looked for at once: few, and more where these give no pose. With 4 at first, which take
twice as long, one pose in fifty more is right to 5 cm."""

TOLERANCES = (8.0, 3.0)
"""Pixels by which a landmark may miss, in each round. Seen from a pose that is decimetres wrong a keyframe is
bent by what is near and far; seen from the pose that this gives it is as it was."""

FEWEST, SHARE = 20, 0.4
"""Landmarks that must agree with the pose at the end, and their share of those found. Of 270 images of other
recordings none had even a dozen."""


class Refinement(NamedTuple):
    """`world_from_camera` (4, 4) by landmarks of keyframes, whose `inliers` (N,) agree with it.

    They were found at the image's `pixels` (N, 2); `seen` is what they are.
    """

    world_from_camera: Array
    inliers: NDArray[np.bool_]
    pixels: Array
    seen: Correspondences


def refine(
    world_from_camera: Array,
    image_rgb: NDArray[np.uint8],
    camera: Camera,
    album: Album,
    depth: NDArray[np.floating] | None = None,
    options: PoseOptions = PoseOptions(),
) -> Refinement | None:
    """The pose by keyframes of an image (H, W, 3), from one that is about right.

    None where no keyframe shows what is seen from there, or the image does not show what they do. `depth`,
    metres, is the image's, of any resolution, where it is known. Raises CheckpointError for a damaged
    keyframe.
    """
    small = input_camera(camera, album.camera.fy, 1)
    image = grey(image_rgb, small)
    query = _Query(image, small, album, depth)
    for count in KEYFRAMES:
        refined = _attempt(world_from_camera, query, count, options)
        if refined is not None and refined.inliers.sum() >= max(FEWEST, SHARE * len(refined.inliers)):
            scale = np.array([camera.width / small.width, camera.height / small.height])
            return refined._replace(pixels=(refined.pixels + 0.5) * scale - 0.5)
    return None


class _Query(NamedTuple):
    """An image of `camera`, as large as keyframes are, which are in the `album`."""

    image: Grey
    camera: Camera
    album: Album
    depth: NDArray[np.floating] | None


def _attempt(world_from_camera: Array, query: _Query, count: int, options: PoseOptions) -> Refinement | None:
    """A pose by at most `count` keyframes."""
    refined = None
    for tolerance in TOLERANCES:
        refined = _round(world_from_camera, query, count, replace(options, inlier_pixels=tolerance))
        if refined is None:
            return None
        world_from_camera = refined.world_from_camera
    return refined


def _round(world_from_camera: Array, query: _Query, count: int, options: PoseOptions) -> Refinement | None:
    image, camera, album, depth = query
    keyframes = album.best(world_from_camera, camera, count)
    if not keyframes:
        return None
    found = [find(keyframe, image, camera, world_from_camera) for keyframe in keyframes]
    pixels, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    one_pixel = np.abs(apply(invert(world_from_camera), points)[:, 2]) / camera.focal
    depths = None if depth is None else depths_at(depth, pixels, camera)
    seen = Correspondences(camera.rays(pixels)[:, :2], points, one_pixel, depths)
    estimate = estimate_pose(seen, camera.focal, options)
    if estimate.world_from_camera is None:
        return None
    if not estimate.used_depths:
        seen = seen._replace(depths=None)
    return Refinement(estimate.world_from_camera, estimate.inliers, pixels, seen)
