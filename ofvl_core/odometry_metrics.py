"""How good odometry is over snippets of five frames.

Estimates are motions previous_from_current (4, 4): a camera's pose in the camera of the frame before.
"""

import numpy as np

from ofvl_core.geometry import Array, invert

SNIPPET = 5
"""Frames of a snippet, as in Zhou et al., CVPR 2017."""


def chained(motions: Array) -> Array:
    """Poses first_from_current (..., N, 4, 4) along motions previous_from_current (..., N - 1, 4, 4)."""
    poses = np.empty((*motions.shape[:-3], motions.shape[-3] + 1, 4, 4))
    poses[..., 0, :, :] = np.eye(4)
    for step in range(motions.shape[-3]):
        poses[..., step + 1, :, :] = poses[..., step, :, :] @ motions[..., step, :, :]
    return poses


def motions_between(poses: Array) -> Array:
    """Motions previous_from_current (..., N - 1, 4, 4) between poses world_from_camera (..., N, 4, 4)."""
    return invert(poses[..., :-1, :, :]) @ poses[..., 1:, :, :]


def snippet_errors(true: Array, estimated: Array) -> Array:
    """Absolute trajectory errors (M,), metres, of snippets: poses (M, N, 4, 4), each in a frame of its own.

    The protocol of Zhou et al., CVPR 2017 (SfMLearner): both are brought to the snippet's first frame, the
    estimate is multiplied by the scale that fits best, and the error is the root of the SUM of squared
    distances, divided by N: smaller by the square root of N than the root of their mean. The scale may be
    negative, so straight motion fits whether the camera moves forwards or backwards.
    """
    truth, estimate = _in_first_frame(true), _in_first_frame(estimated)
    squared = np.square(estimate).sum(axis=(1, 2))
    squared[squared == 0] = 1.0  # an estimate that stands stays so
    scale = (truth * estimate).sum(axis=(1, 2)) / squared
    apart = truth - scale[:, None, None] * estimate
    return np.sqrt(np.square(apart).sum(axis=(1, 2))) / truth.shape[1]


def _in_first_frame(poses: Array) -> Array:
    """Positions (M, N, 3) of poses (M, N, 4, 4) in the frame of each snippet's first."""
    return (invert(poses[:, :1]) @ poses)[..., :3, 3]
