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

FINE, COARSE = 3.0, 8.0
"""Pixels by which a landmark may miss. Seen from a pose that is decimetres wrong a keyframe is bent by what
is near and far; seen from the pose that this gives it is as it was."""

SETTLED = 8.0
"""Pixels by which landmarks may move for a pose to be right at once. From farther away it is looked twice."""

FEWEST, SHARE = 20, 0.4
"""Landmarks that must agree with the pose at the end, and their share of those found. Of 296 images of other
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
    query = _Query(image, small, album, depth, options)
    for count in KEYFRAMES:
        refined = _attempt(world_from_camera, query, count)
        if refined is not None:
            scale = np.array([camera.width / small.width, camera.height / small.height])
            return refined._replace(pixels=(refined.pixels + 0.5) * scale - 0.5)
    return None


class _Query(NamedTuple):
    """An image of `camera`, as large as keyframes are, which are in the `album`; how poses are solved."""

    image: Grey
    camera: Camera
    album: Album
    depth: NDArray[np.floating] | None
    options: PoseOptions


class _Found(NamedTuple):
    """Landmarks at `pixels` (N, 2) of the small image."""

    pixels: Array
    seen: Correspondences


def _attempt(world_from_camera: Array, query: _Query, count: int) -> Refinement | None:
    """A pose by at most `count` keyframes that enough of their landmarks agree with."""
    found = _look(world_from_camera, query, count)
    if found is None:
        return None
    refined = _solve(found, query, FINE)
    if refined is not None and _shift(found, world_from_camera, refined, query.camera) < SETTLED:
        return refined
    coarse = _solve(found, query, COARSE)
    found = None if coarse is None else _look(coarse.world_from_camera, query, count)
    return None if found is None else _solve(found, query, FINE)


def _look(world_from_camera: Array, query: _Query, count: int) -> _Found | None:
    """Where landmarks are of the keyframes that show best what is seen from there."""
    image, camera, album, depth, _ = query
    keyframes = album.best(world_from_camera, camera, count)
    if not keyframes:
        return None
    found = [find(keyframe, image, camera, world_from_camera) for keyframe in keyframes]
    pixels, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    one_pixel = np.abs(apply(invert(world_from_camera), points)[:, 2]) / camera.focal
    depths = None if depth is None else depths_at(depth, pixels, camera)
    return _Found(pixels, Correspondences(camera.rays(pixels)[:, :2], points, one_pixel, depths))


def _solve(found: _Found, query: _Query, tolerance: float) -> Refinement | None:
    """The pose that enough landmarks agree with to so many pixels."""
    pixels, seen = found
    estimate = estimate_pose(seen, query.camera.focal, replace(query.options, inlier_pixels=tolerance))
    enough = max(FEWEST, SHARE * len(pixels))
    if estimate.world_from_camera is None or estimate.inliers.sum() < enough:
        return None
    if not estimate.used_depths:
        seen = seen._replace(depths=None)
    return Refinement(estimate.world_from_camera, estimate.inliers, pixels, seen)


def _shift(found: _Found, before: Array, after: Refinement, camera: Camera) -> float:
    """Pixels by which the landmarks move, as a rule, from one pose to the other."""
    one, other = (apply(invert(pose), found.seen.points) for pose in (before, after.world_from_camera))
    return float(np.median(np.linalg.norm(camera.project(one) - camera.project(other), axis=1)))
