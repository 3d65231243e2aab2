"""A first look at all images of a drive: their stamps, whether they have depth, how sharp they are, how the
camera turned."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.geometry import Array
from ofvl_core.livl.visual_rotation import Turns, VisualRotation
from ofvl_core.recording.images import UnsupportedImageError
from ofvl_core.sharpness import sharpness

PAIR_TOLERANCE = 0.017
"""Seconds between an image and its depth: half a frame at 30 Hz."""

PATIENCE = 15
"""Images that wait for their depth, which drivers may deliver late."""


class Pair(NamedTuple):
    """A colour image's stamp and message, and the depth message of that moment, if there is one."""

    stamp: int
    color: Any
    depth: Any | None


def pairs(stamped: Iterator[tuple[bool, int, Any]]) -> Iterator[Pair]:
    """Colour images in order, each with the depth nearest in time; every depth serves once.

    `stamped` yields (is it depth?, stamp, message) in the order of the bag.
    """
    colors: deque[tuple[int, Any]] = deque()
    depths: deque[tuple[int, Any]] = deque()
    tolerance = round(PAIR_TOLERANCE * 1e9)

    def paired() -> Pair:
        stamp, color = colors.popleft()
        while depths and depths[0][0] < stamp - tolerance:
            depths.popleft()
        near = [at for at, (of, _) in enumerate(depths) if abs(of - stamp) <= tolerance]
        if not near:
            return Pair(stamp, color, None)
        best = min(near, key=lambda at: abs(depths[at][0] - stamp))
        depth = depths[best][1]
        for _ in range(best + 1):
            depths.popleft()
        return Pair(stamp, color, depth)

    for is_depth, stamp, message in stamped:
        (depths if is_depth else colors).append((stamp, message))
        if not colors and len(depths) > PATIENCE:
            depths.popleft()  # its image will not come any more
        while colors and (len(colors) > PATIENCE or (depths and depths[-1][0] >= colors[0][0])):
            yield paired()
    while colors:
        yield paired()


@dataclass(frozen=True, eq=False)
class Survey:
    """Of N colour images: `stamps`, ns; share of pixels with depth; sharpness; and the camera's turns.

    An image that cannot be decoded has sharpness 0; depth that cannot, counts as none.
    """

    stamps: NDArray[np.int64]
    depth_share: Array
    sharpness: Array
    turns: Turns

    def arrays(self) -> dict[str, NDArray]:
        """All of it, as `from_arrays` takes it."""
        return {
            "stamps": self.stamps,
            "depth_share": self.depth_share,
            "sharpness": self.sharpness,
            "starts": self.turns.starts,
            "ends": self.turns.ends,
            "vectors": self.turns.vectors,
        }

    @classmethod
    def from_arrays(cls, held: dict[str, NDArray]) -> "Survey":
        """The survey of which these are the `arrays`."""
        turns = Turns(held["starts"], held["ends"], held["vectors"])
        return cls(held["stamps"], held["depth_share"], held["sharpness"], turns)


def _decoded(read: Callable[[Any], NDArray], message: Any | None) -> NDArray | None:
    """The image of a message; None without a message, or where it is damaged."""
    try:
        return None if message is None else read(message)
    except UnsupportedImageError:
        return None


def survey(
    images: Iterator[Pair],
    camera: Camera,
    read_color: Callable[[Any], NDArray[np.uint8]],
    read_depth: Callable[[Any], NDArray[np.float32]],
    progress: Callable[[int], None] = lambda done: None,
    *,
    turns: bool = True,
) -> Survey:
    """Look at every image.

    `read_color` makes RGB (H, W, 3) of a message, `read_depth` metres (h, w) that the colour camera sees.
    Most of the time goes to the `turns`; who does not need them may leave them out.
    """
    stamps, shares, sharp = [], [], []
    rotation = VisualRotation(camera)
    for number, pair in enumerate(images, 1):
        rgb = _decoded(read_color, pair.color)
        depth = _decoded(read_depth, pair.depth)
        stamps.append(pair.stamp)
        shares.append(0.0 if depth is None else float(np.isfinite(depth).mean()))
        sharp.append(0.0 if rgb is None else sharpness(rgb))
        if turns and rgb is not None and depth is not None:
            rotation.add(pair.stamp, rgb, depth)
        progress(number)
    return Survey(np.array(stamps, np.int64), np.array(shares, float), np.array(sharp, float), rotation.turns)
