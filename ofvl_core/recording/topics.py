"""Which of a bag's topics are the robot's camera and LiDAR: by type, by name, by their first message."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from ofvl_core.errors import ConfigError, DataError, OfvlError
from ofvl_core.recording import images
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.clouds import field_names, scan_from_cloud
from ofvl_core.recording.messages import camera_from_info, frame_name

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPES = ("sensor_msgs/msg/CameraInfo",)
CLOUD_TYPES = ("sensor_msgs/msg/PointCloud2",)

ROLES = {
    "color": IMAGE_TYPES,
    "color_info": INFO_TYPES,
    "depth": IMAGE_TYPES,
    "depth_info": INFO_TYPES,
    "cloud": CLOUD_TYPES,
}
"""What a topic can be, and the types it may have then."""

_READ: dict[str, Callable[[Any], Any]] = {
    "color": images.rgb_array,
    "color_info": camera_from_info,
    "depth": images.depth_array,
    "depth_info": camera_from_info,
    "cloud": scan_from_cloud,
}
"""What makes of a message that which its role needs."""

TRIED = 10
"""Messages of which one must be readable: the first may have been cut short."""

TRANSPORTS = ("compressed", "compressedDepth")
"""What image_transport appends to an image's topic."""

GREY = ("mono8", "8UC1")
"""Encodings of cameras that see no colours, and of infrared ones."""

ALIGNED = ("aligned_depth", "registered")
"""In the names of depth images that are as the colour camera sees them: RealSense's and OpenNI's."""


@dataclass(frozen=True)
class Topics:
    """A robot's topics; `cloud` is '' where there is none. Aligned depth is as the colour camera sees it."""

    color: str
    color_info: str
    depth: str
    depth_info: str
    cloud: str
    depth_is_aligned: bool


def choose_topics(recording: Recording, names: Mapping[str, str], lidar: bool) -> Topics:
    """The topics of the camera and, with `lidar` necessarily, of the LiDAR.

    `names` are topics by role, one of ROLES, where they are not to be guessed. Raises DataError when there is
    none for a role or more than one, saying what the bag holds, and when the messages of one are not what its
    role needs; ConfigError for an unknown role.
    """
    return _Choice(recording, names).topics(lidar)


class _Choice:
    """Looks at the names, types and first messages of a recording's topics."""

    def __init__(self, recording: Recording, names: Mapping[str, str]) -> None:
        self._recording, self._names = recording, names
        self._first = lru_cache(maxsize=None)(recording.first)
        for role, name in names.items():
            if role not in ROLES:
                raise ConfigError(f"unknown role '{role}' of topic {name}; choose one of {', '.join(ROLES)}")
            topic = recording.topics.get(name)
            if topic is None:
                raise DataError(f"{recording.path}: no topic {name}; it holds {recording.contents()}")
            if topic.type not in ROLES[role]:
                raise DataError(
                    f"{recording.path}: {name} is of type {topic.type} and cannot be the {role} topic; name "
                    f"one of type {' or '.join(ROLES[role])}"
                )

    def topics(self, lidar: bool) -> Topics:
        color = self._only("color", self._colors())
        depth = self._only("depth", self._depths(color))
        aligned = bool(color and depth) and self._is_aligned(depth, color)
        color_info = self._only("color_info", self._infos(color))
        depth_info = self._only("depth_info", self._infos(depth)) or (color_info if aligned else "")
        clouds = self._clouds(lidar)
        cloud = self._only("cloud", clouds) if lidar or "cloud" in self._names or len(clouds) == 1 else ""
        chosen = Topics(color, color_info, depth, depth_info, cloud, aligned)
        missing = [role for role in ROLES if not getattr(chosen, role) and (lidar or role != "cloud")]
        if missing:
            raise DataError(
                f"{self._recording.path}: no topic found for {', '.join(missing)}; it holds "
                f"{self._recording.contents()}: record what is missing, or name it as in "
                f"--topic {missing[0]}=/name"
            )
        return chosen

    def _only(self, role: str, candidates: list[str]) -> str:
        """The topic that was named, or the only candidate; '' without one."""
        if role in self._names:
            candidates = [self._names[role]]
        if len(candidates) > 1:
            raise DataError(
                f"{self._recording.path}: {' and '.join(candidates)} could each be the {role} topic; name "
                f"one, as in --topic {role}={candidates[0]}"
            )
        if not candidates:
            return ""
        self._check(role, candidates[0])
        return candidates[0]

    def _check(self, role: str, topic: str) -> None:
        """Raise DataError unless one of a topic's first messages is what its role needs."""
        reason = "none of its messages can be read; record it again"
        for received in islice(self._recording.messages([topic]), TRIED):
            try:
                _READ[role](received.message)
                return
            except OfvlError as error:
                reason = str(error)
        raise DataError(f"{self._recording.path}: {topic} cannot be the {role} topic: {reason}")

    def _colors(self) -> list[str]:
        """Those that see colours, or else grey."""
        named = [t for t in self._typed(IMAGE_TYPES) if not (_is_infrared(t) or _is_depth(t))]
        encodings = {topic: images.encoding(first) for topic in named if (first := self._first(topic))}
        seen = [topic for topic, encoding in encodings.items() if encoding not in images.DEPTH_ENCODINGS]
        return _one_a_stream([topic for topic in seen if encodings[topic] not in GREY] or seen)

    def _depths(self, color: str) -> list[str]:
        """Those nearest to the colour camera by name, the aligned ones if there are any."""
        found = [topic for topic in self._typed(IMAGE_TYPES) if self._holds_depth(topic)]
        shared = {topic: _shared_folders(topic, color or "/") for topic in found}
        nearest = [topic for topic in found if shared[topic] == max(shared.values())]
        aligned = [topic for topic in nearest if color and self._is_aligned(topic, color)]
        return _one_a_stream(aligned or nearest)

    def _infos(self, image: str) -> list[str]:
        """The camera_info beside an image, or else those of its frame."""
        infos = self._typed(INFO_TYPES)
        beside = str(PurePosixPath(_base(image)).parent / "camera_info")
        if beside in infos:
            return [beside]
        return [topic for topic in infos if image and self._frame(topic) == self._frame(image) != ""]

    def _clouds(self, lidar: bool) -> list[str]:
        """A LiDAR driver's own, whose points have rings; where `lidar` says that there is one, else others.

        Those are what was made of its points; a camera's are not.
        """
        firsts = {topic: self._first(topic) for topic in self._typed(CLOUD_TYPES)}
        fields = {topic: field_names(first) for topic, first in firsts.items() if first}
        ringed = [topic for topic, names in fields.items() if "ring" in names]
        if ringed or not lidar:
            return ringed
        return [topic for topic, names in fields.items() if not {"rgb", "rgba"} & {*names}]

    def _typed(self, types: Iterable[str]) -> list[str]:
        return [topic.name for topic in self._recording.topics.values() if topic.type in types]

    def _holds_depth(self, topic: str) -> bool:
        message = self._first(topic)
        if message is None or _is_infrared(topic) or images.encoding(message) not in images.DEPTH_ENCODINGS:
            return False
        if images.encoding(message) == "mono16" and not _is_depth(topic):
            return False
        return not (images.is_compressed(message) and "jpeg" in message.format)

    def _is_aligned(self, depth: str, color: str) -> bool:
        """Whether depth is as the colour camera sees it, by their frames, or else by name."""
        frames = (self._frame(depth), self._frame(color))
        return frames[0] == frames[1] if all(frames) else any(mark in depth for mark in ALIGNED)

    def _frame(self, topic: str) -> str:
        message = self._first(topic)
        return "" if message is None else frame_name(message.header.frame_id)


def _base(topic: str) -> str:
    """An image's topic without its transport."""
    path = PurePosixPath(topic)
    return str(path.parent) if path.name in TRANSPORTS else topic


def _stream(topic: str) -> str:
    """The folder that holds a camera's image, raw, rectified and compressed, and its camera_info."""
    return str(PurePosixPath(_base(topic)).parent)


def _is_depth(topic: str) -> bool:
    """Whether a topic says that it is depth; a camera's name further left says nothing of the image."""
    return "depth" in "/".join(PurePosixPath(_base(topic)).parts[-2:])


def _is_infrared(topic: str) -> bool:
    words = PurePosixPath(_base(topic)).parts[-2:]
    return any("infra" in word or word in ("ir", "ir1", "ir2") for word in words)


def _one_a_stream(topics: list[str]) -> list[str]:
    """Of each stream's images the unrectified, whose K and distortion camera_info says, and uncompressed."""

    def rank(topic: str) -> tuple[bool, bool, str]:
        return "rect" in PurePosixPath(_base(topic)).name, topic != _base(topic), topic

    best: dict[str, str] = {}
    for topic in sorted(topics, key=rank):
        best.setdefault(_stream(topic), topic)
    return sorted(best.values())


def _shared_folders(a: str, b: str) -> int:
    """How many folders two topics have in common from the left."""
    return len(PurePosixPath(os.path.commonpath([a, b])).parts)
