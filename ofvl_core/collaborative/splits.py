"""What training never sees of a video: the way ahead for odometry, gaps on the way for relocalization."""

import logging
from dataclasses import replace
from itertools import groupby

from ofvl_core.datasets import Frame, SceneData

logger = logging.getLogger(__name__)

ODOMETRY, RELOCALIZATION = "odometry", "relocalization"
"""Names of the splits that `held_out` adds. The first also serves depth: both need new places, in a row."""

ODOMETRY_SHARE = 0.25
"""The end of each sequence: a car that never returns shows places there that training has not seen."""

PERIOD, GAP = 100, range(40, 60)
"""Of so many frames these are held out for relocalization. Nobody can be localized where training never was,
so what is asked for lies between frames seen; and 20 frames (2 s and some 15 m of KITTI) are too far for each
to be like a neighbour that training saw."""


def held_out(scene: SceneData) -> SceneData:
    """The scene with the splits `ODOMETRY` and `RELOCALIZATION`, and without their frames in `train`.

    Where the data set has test frames, both splits are these, and training keeps all of its own. Otherwise
    parts of the training sequences are held out. A sequence shorter than `PERIOD` frames holds out nothing;
    if that leaves nothing at all it is logged, and `SceneData.frames` raises for the splits. Raises DataError
    when the scene has no training frames.
    """
    test = scene.splits.get("test", [])
    if test:
        return replace(scene, splits={**scene.splits, ODOMETRY: test, RELOCALIZATION: test})
    splits: dict[str, list[Frame]] = {"train": [], ODOMETRY: [], RELOCALIZATION: []}
    for _, group in groupby(scene.frames("train"), key=lambda frame: frame.sequence):
        sequence = list(group)
        for position, frame in enumerate(sequence):
            splits[_split(position, len(sequence))].append(frame)
    if not splits[ODOMETRY]:
        logger.warning(
            "%s: no sequence has %d frames, so that none is held out and nothing can be measured",
            scene.root,
            PERIOD,
        )
    return replace(scene, splits={**scene.splits, **splits})


def _split(position: int, length: int) -> str:
    """The split of the frame at a position of a sequence. A gap that the way ends in is no gap."""
    kept = length - round(ODOMETRY_SHARE * length)
    if length < PERIOD:
        return "train"
    if position >= kept:
        return ODOMETRY
    ends_before = position - position % PERIOD + GAP.stop < kept
    return RELOCALIZATION if position % PERIOD in GAP and ends_before else "train"
