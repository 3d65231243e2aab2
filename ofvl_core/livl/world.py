"""One world frame for all drives of a scene: their maps laid over one another."""

import logging
from collections.abc import Sequence

import numpy as np

from ofvl_core.errors import DataError
from ofvl_core.geometry import apply, invert, pose_error
from ofvl_core.lidar.map_alignment import align_maps
from ofvl_core.livl import sources
from ofvl_core.livl.options import Options
from ofvl_core.livl.part import Part

logger = logging.getLogger(__name__)

SAME_FRAME = (0.1, 1.0)
"""Metres and degrees up to which recorded trajectories count as given in one frame: they stay as they are."""


def share_world(parts: Sequence[Part], options: Options) -> None:
    """Bring all drives into one world frame: that of the first, in which the robot starts upright.

    Each drive's map is laid over those before it. A recorded trajectory that is in their frame already stays
    as it is. Raises DataError for a drive whose place cannot be told.
    """
    computed = sources.is_computed(options.poses)
    for part in parts:
        if computed:  # the frame in which it started: that of the robot's base
            tree, frame = part.drive.tree, part.drive.lidar_frame
            part.world_from_frame = tree.static(tree.root(frame), frame) @ invert(part.source.path.poses[0])
    first, *others = parts
    world = apply(first.world_from_frame, first.points)
    for part in others:
        if not len(part.points) or not len(world):
            logger.warning(
                "%s: without a LiDAR its poses are taken to be in the frame of %s's",
                part.drive.name,
                first.drive.name,
            )
            continue
        points = apply(part.world_from_frame, part.points)
        alignment = align_maps(world, points)
        if not alignment.sure:
            raise DataError(
                f"{part.drive.bag}: where this drive lies in the map of those before it is not certain "
                f"({alignment.overlap:.0%} fit here, {alignment.runner_up:.0%} elsewhere); leave it out, or "
                "record it again along more of their way"
            )
        part.overlap = alignment.overlap
        metres, degrees = pose_error(alignment.reference_from_other, np.eye(4))
        if computed or metres > SAME_FRAME[0] or degrees > SAME_FRAME[1]:
            part.world_from_frame = alignment.reference_from_other @ part.world_from_frame
        world = np.concatenate([world, apply(part.world_from_frame, part.points)])
