"""A pose made better by the keyframes that show what it sees."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera, resized_pixels
from ofvl_core.correspondences import Correspondences
from ofvl_core.covariance import pose_covariance
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.keyframes.album import Album
from ofvl_core.keyframes.descriptors import Described, Grey, describe
from ofvl_core.keyframes.flow import find
from ofvl_core.keyframes.keyframe import grey
from ofvl_core.keyframes.matching import match
from ofvl_core.looks import depths_at
from ofvl_core.pose import PoseOptions, estimate_pose
from ofvl_core.resize import input_camera

FOLLOWED, MATCHED = 2, 12
"""Keyframes whose landmarks are followed into the image, and, where these give no pose, whose features are
looked for all over it. From poses 0.3 m and 6 degrees wrong on each axis one image in four is found by the
first, and four in five by the second."""

AROUND = 2
"""Times an image's width and height within which keyframes must show something to be matched: a pose that is
decimetres and degrees wrong looks beside what the image shows."""


class _Agreement(NamedTuple):
    """Pixels by which a landmark may miss the pose, and how many, at least, must not miss it by more."""

    pixels: float
    fewest: int


COARSE, FINE = _Agreement(8.0, 8), _Agreement(3.0, 20)
"""To begin with, and at the end. Seen from a pose that is decimetres wrong a keyframe is bent by what is near
and far; seen from the pose that this gives it is as it was. Of 73 images of other recordings one had eight
landmarks that agreed, and none had twelve."""

SETTLED = 8.0
"""Pixels by which landmarks may move for a pose to be right at once. From farther away it is looked twice."""

SURE = 0.01
"""Standard deviation of the place, metres, as the landmarks alone say, above which features are looked for as
well. Of poses by few landmarks, or by landmarks on one side of the image, some are decimetres wrong."""

SHARE = 0.4
"""Of the landmarks found, that must agree with the pose."""


Search = Literal["never", "lost", "always"]
"""When keyframes are looked through wherever they are, of which a scene has hundreds: where those that show
what the pose sees give none; or always, since another place may look alike."""


class Refinement(NamedTuple):
    """`world_from_camera` (4, 4) by landmarks of keyframes, whose `inliers` (N,) agree with it.

    They were found at the image's `pixels` (N, 2); `seen` is what they are. `covariance` (6, 6) is of the
    pose, not calibrated. It is not `is_confirmed` where all keyframes were looked through and most of what
    the image shows, or all, is elsewhere too.
    """

    world_from_camera: Array
    inliers: NDArray[np.bool_]
    pixels: Array
    seen: Correspondences
    covariance: Array
    is_confirmed: bool = True


def refine(
    world_from_camera: Array | None,
    image_rgb: NDArray[np.uint8],
    camera: Camera,
    album: Album,
    depth: NDArray[np.floating] | None = None,
    options: PoseOptions = PoseOptions(),
    search: Search = "lost",
) -> Refinement | None:
    """The pose by keyframes of an image (H, W, 3), from one that is about right.

    Where it is not, or there is none, keyframes are looked through wherever they are, if `search` says so.
    None where the image does not show what they do. `depth`, metres, is the image's, of any resolution, where
    it is known. Raises CheckpointError for a damaged keyframe.
    """
    camera = album.corrected(camera)
    small = input_camera(camera, album.camera.fy, 1)
    query = _Query(grey(image_rgb, small), small, album, depth, options)
    refined = None if world_from_camera is None else _nearby(world_from_camera, query)
    if search == "always" or (search == "lost" and refined is None):
        refined = _anywhere(refined, query)
    if refined is None:
        return None
    scale = np.array([camera.width / small.width, camera.height / small.height])
    return refined._replace(pixels=resized_pixels(refined.pixels, scale))


@dataclass(frozen=True)
class _Query:
    """An image of `camera`, as large as keyframes are, which are in the `album`; how poses are solved."""

    image: Grey
    camera: Camera
    album: Album
    depth: NDArray[np.floating] | None
    options: PoseOptions

    @cached_property
    def features(self) -> Described:
        return describe(self.image, self.album.camera.height)

    @property
    def is_blank(self) -> bool:
        """No keyframe need be described for it."""
        return not len(self.features.pixels)


_NOTHING = np.empty((0, 2)), np.empty((0, 3))


class _Found(NamedTuple):
    """`points` (N, 3) of keyframes at `pixels` (N, 2) of the small image."""

    pixels: Array
    points: Array


def _nearby(world_from_camera: Array, query: _Query) -> Refinement | None:
    """By the keyframes that show what is seen from there."""
    refined = _followed(world_from_camera, query)
    if refined is not None and _vagueness(refined) <= SURE:
        return refined
    other = _matched(world_from_camera if refined is None else refined.world_from_camera, query)
    return min((pose for pose in (refined, other) if pose is not None), key=_vagueness, default=None)


def _followed(world_from_camera: Array, query: _Query) -> Refinement | None:
    """By landmarks that have moved little from where the pose has them."""
    found = _follow(world_from_camera, query)
    refined = _agreed(_solve(found, world_from_camera, query, FINE))
    if refined is not None and _shift(found, world_from_camera, refined, query.camera) < SETTLED:
        return refined
    coarse = _agreed(_solve(found, world_from_camera, query, COARSE))
    if coarse is None:
        return None
    better = coarse.world_from_camera
    return _agreed(_solve(_follow(better, query), better, query, FINE))


def _matched(world_from_camera: Array, query: _Query) -> Refinement | None:
    """By features, of which the pose only says which keyframes show them; then by landmarks as well."""
    if query.is_blank:
        return None
    matched = _match(world_from_camera, query)
    coarse = _solve(matched, world_from_camera, query, COARSE)
    if coarse is None:
        return None
    better = coarse.world_from_camera
    both = zip(matched, _follow(better, query), strict=True)
    return _agreed(_solve(_Found(*map(np.concatenate, both)), better, query, FINE))


def _anywhere(refined: Refinement | None, query: _Query) -> Refinement | None:
    """By features of keyframes that are anywhere; what was `refined`, if these do not speak for elsewhere."""
    if query.is_blank:
        return refined
    found = _Found(*match(query.album.all(), query.features))
    coarse = _solve(found, None, query, COARSE)
    most = 0 if coarse is None else int(coarse.inliers.sum())
    if refined is not None:
        if _agreeing(found, refined.world_from_camera, query.camera) >= max(COARSE.fewest, most / 2):
            return refined
        refined = refined._replace(is_confirmed=False)
    better = None if coarse is None else _matched(coarse.world_from_camera, query)
    return refined if better is None else better


def _follow(world_from_camera: Array, query: _Query) -> _Found:
    """Where landmarks are of the keyframes that show best what is seen from there."""
    camera = query.camera
    keyframes = query.album.best(world_from_camera, camera, FOLLOWED)
    found = [find(keyframe, query.image, camera, world_from_camera) for keyframe in keyframes]
    return _Found(*map(np.concatenate, zip(_NOTHING, *found, strict=True)))


def _match(world_from_camera: Array, query: _Query) -> _Found:
    """What the image shows of the keyframes that show best what is seen from there, and beside it."""
    camera = query.camera
    wider = replace(
        camera,
        width=AROUND * camera.width,
        height=AROUND * camera.height,
        cx=camera.cx + (AROUND - 1) / 2 * camera.width,
        cy=camera.cy + (AROUND - 1) / 2 * camera.height,
    )
    keyframes = query.album.best(world_from_camera, wider, MATCHED)
    return _Found(*match(keyframes, query.features))


def _solve(found: _Found, about: Array | None, query: _Query, wanted: _Agreement) -> Refinement | None:
    """The pose that what was found agrees with. How far that is says a pose `about` there; else a metre."""
    pixels, points = found
    camera, depth = query.camera, query.depth
    far = np.ones(len(points)) if about is None else np.abs(apply(invert(about), points)[:, 2])
    one_pixel = far / camera.focal
    depths = None if depth is None else depths_at(depth, pixels, camera)
    seen = Correspondences(camera.rays(pixels)[:, :2], points, one_pixel, depths)
    options = replace(query.options, inlier_pixels=wanted.pixels, min_inliers=wanted.fewest)
    estimate = estimate_pose(seen, camera.focal, options)
    if estimate.world_from_camera is None:
        return None
    if not estimate.used_depths:
        seen = seen._replace(depths=None)
    covariance = pose_covariance(estimate.world_from_camera, seen, estimate.inliers)
    return Refinement(estimate.world_from_camera, estimate.inliers, pixels, seen, covariance)


def _agreeing(found: _Found, world_from_camera: Array, camera: Camera) -> int:
    """How many points are, coarsely, where a pose sees them."""
    points = apply(invert(world_from_camera), found.points)
    ahead = points[:, 2] > 0
    misses = np.linalg.norm(camera.project(points[ahead]) - found.pixels[ahead], axis=1)
    return int((misses <= COARSE.pixels).sum())


def _agreed(refined: Refinement | None) -> Refinement | None:
    """The pose, if enough of what was found agrees with it."""
    return None if refined is None or refined.inliers.mean() < SHARE else refined


def _vagueness(refined: Refinement) -> float:
    """Standard deviation of the camera's place in the direction in which it is least known, metres."""
    return float(np.sqrt(np.linalg.norm(refined.covariance[:3, :3], ord=2)))


def _shift(found: _Found, before: Array, after: Refinement, camera: Camera) -> float:
    """Pixels by which the landmarks move, as a rule, from one pose to the other."""
    one, other = (apply(invert(pose), found.points) for pose in (before, after.world_from_camera))
    return float(np.median(np.linalg.norm(camera.project(one) - camera.project(other), axis=1)))
