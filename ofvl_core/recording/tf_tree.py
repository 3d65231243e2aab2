"""Where a robot's frames are to one another, from what was recorded of tf."""

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ofvl_core import geometry
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import Array
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.messages import frame_name, rigid, stamp_ns, transform_numbers
from ofvl_core.stamped_path import StampedPath, Stamps

MESSAGE_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")

STILL = 1e-6
"""Metres and units of a quaternion by which a transform that is published again may differ and not move."""

Edge = tuple[str, str]
"""Parent and child."""

Way = list[tuple[Edge, bool]]
"""Edges one after another, each with whether it leads from parent to child."""


class _Published:
    """The transforms of one edge over time, as numbers: as messages an hour of them would fill the memory."""

    def __init__(self) -> None:
        self._stamps = array("q")
        self._numbers = array("d")

    def add(self, stamped: Any) -> None:
        """Take a TransformStamped."""
        self._stamps.append(stamp_ns(stamped))
        self._numbers.extend(transform_numbers(stamped.transform))

    def in_order(self) -> tuple[Stamps, Array]:
        """Rising stamps (N,) and numbers (N, 7); of those with one stamp, the last that was published."""
        stamps, latest = np.unique(np.array(self._stamps)[::-1], return_index=True)
        return stamps, np.array(self._numbers).reshape(-1, 7)[::-1][latest]


class TfTree:
    """Transforms between frames: fixed ones, and those that were published over time.

    Frames are names without a leading slash. A frame may have several parents, as where A-LOAM and the wheels
    both say where the robot is.
    """

    def __init__(self) -> None:
        self._static: dict[Edge, Array] = {}
        self._published: dict[Edge, _Published] = {}

    @classmethod
    def from_recording(cls, recording: Recording) -> "TfTree":
        """What a bag's /tf_static and /tf say, in whatever namespace; an empty tree where there are none."""
        tree = cls()
        topics = [topic.name for topic in recording.topics.values() if topic.type in MESSAGE_TYPES]
        for received in recording.messages(topics):
            tree.add(received.message, is_static=received.topic.endswith("tf_static"))
        return tree

    def add(self, message: Any, *, is_static: bool) -> None:
        """Take the transforms of a TFMessage. Raises DataError for a fixed one that is none."""
        for stamped in message.transforms:
            edge = (frame_name(stamped.header.frame_id), frame_name(stamped.child_frame_id))
            if is_static:
                self._static[edge] = _matrix(edge, transform_numbers(stamped.transform))
            else:
                self._published.setdefault(edge, _Published()).add(stamped)

    def set_static(self, parent: str, child: str, parent_from_child: Array) -> None:
        """State a fixed transform, in place of what was recorded of the child or between the two frames."""
        edge = (frame_name(parent), frame_name(child))
        for known in [*self._static, *self._published]:
            if known[1] == edge[1] or known == edge[::-1]:
                self._static.pop(known, None)
                self._published.pop(known, None)
        self._static[edge] = parent_from_child

    def root(self, frame: str) -> str:
        """The frame that carries another, and is fixed to nothing itself: the robot's base."""
        return ([parent for parent, _, _ in self.chain(frame)] or [frame_name(frame)])[0]

    def chain(self, frame: str) -> list[tuple[str, str, Array]]:
        """The fixed transforms (parent, child, parent_from_child) from a frame's root down to it."""
        links: list[tuple[str, str, Array]] = []
        here = frame_name(frame)
        while edge := next((edge for edge in self._static if edge[1] == here), None):
            links.insert(0, (*edge, self._static[edge]))
            here = edge[0]
            if here in [child for _, child, _ in links]:
                raise DataError(f"tf carries '{here}' by itself; record one parent for each frame")
        return links

    def static(self, target: str, source: str) -> Array:
        """The 4x4 target_from_source of two frames that do not move to one another.

        A transform of /tf that never changes counts as fixed. Raises DataError when they are not connected.
        """
        way = _way(target, source, list(self._static))
        if way is None:
            still = [edge for edge, published in self._published.items() if _is_still(published)]
            way = self._connected(target, source, [*self._static, *still], "fixed transform")
        result = np.eye(4)
        for edge, forward in way:
            parent_from_child = self._static[edge] if edge in self._static else self._path(edge).poses[0]
            result = result @ (parent_from_child if forward else geometry.invert(parent_from_child))
        return result

    def path(self, parent: str, child: str) -> StampedPath:
        """The poses parent_from_child over time, at the stamps of the most often published transform between.

        Other moving transforms are interpolated at these, and none is carried beyond its ends.
        Raises DataError when the frames are not connected, or only by what is fixed or not of one time.
        """
        way = self._connected(parent, child, [*self._static, *self._published], "transform")
        moving = {edge: self._path(edge) for edge, _ in way if edge not in self._static}
        if not moving:
            raise DataError(f"tf has nothing that moves between '{parent}' and '{child}'; name other frames")
        stamps = max(moving.values(), key=len).stamps
        begin, end = (
            max(path.stamps[0] for path in moving.values()),
            min(path.stamps[-1] for path in moving.values()),
        )
        stamps = stamps[(stamps >= begin) & (stamps <= end)]
        if not len(stamps):
            raise DataError(
                f"the transforms between '{parent}' and '{child}' were published one after another, never at "
                "one time; name other frames"
            )
        result = np.tile(np.eye(4), (len(stamps), 1, 1))
        for edge, forward in way:
            poses = moving[edge].at(stamps) if edge in moving else self._static[edge]
            result = result @ (poses if forward else geometry.invert(poses))
        return StampedPath(stamps, result)

    def _path(self, edge: Edge) -> StampedPath:
        stamps, numbers = self._published[edge].in_order()
        return StampedPath(stamps, np.stack([_matrix(edge, row) for row in numbers.tolist()]))

    def _connected(self, target: str, source: str, edges: list[Edge], what: str) -> Way:
        way = _way(target, source, edges)
        if way is None:
            known = "; ".join(f"'{frame}' with {_around(frame, edges)}" for frame in (target, source))
            raise DataError(
                f"tf has no {what} between '{target}' and '{source}': it connects {known}; record what is "
                "missing or name other frames"
            )
        return way


def _way(target: str, source: str, edges: list[Edge]) -> Way | None:
    """The fewest edges from `target` to `source`, in that order; None where they do not connect."""
    target, source = frame_name(target), frame_name(source)
    steps = _steps(target, edges)
    if source not in steps:
        return None
    way: Way = []
    while source != target:
        source, edge = steps[source]
        way.insert(0, (edge, edge[0] == source))
    return way


def _around(frame: str, edges: list[Edge]) -> str:
    """The other frames that are connected with one, to be read by people."""
    return ", ".join(sorted(_steps(frame_name(frame), edges).keys() - {frame_name(frame)})) or "nothing"


def _steps(start: str, edges: list[Edge]) -> dict[str, tuple[str, Edge]]:
    """Of each frame connected with `start`: the frame before it and the edge between them, breadth first."""
    neighbours: dict[str, list[tuple[str, Edge]]] = {}
    for edge in edges:
        neighbours.setdefault(edge[0], []).append((edge[1], edge))
        neighbours.setdefault(edge[1], []).append((edge[0], edge))
    steps = {start: (start, ("", ""))}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for there, edge in neighbours.get(here, []):
            if there not in steps:
                steps[there] = (here, edge)
                waiting.append(there)
    return steps


def _is_still(published: _Published) -> bool:
    _, numbers = published.in_order()
    return bool((np.abs(numbers - numbers[0]) <= STILL).all())


def _matrix(edge: Edge, numbers: Sequence[float]) -> Array:
    try:
        return rigid("transform", numbers)
    except ConfigError as error:
        raise DataError(f"tf from '{edge[0]}' to '{edge[1]}': {error}") from None
