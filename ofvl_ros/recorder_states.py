"""The states a recorder can be in, how bad each is, and which one the topics speak for."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from ofvl_ros.recorder_inputs import Input, Prologue
from ofvl_ros.states import ERROR, OK, STALE, WARN

LEVELS = {
    "recording": OK,
    "no transform": WARN,
    "poor images": WARN,
    "sensor silent": ERROR,
    "topic missing": ERROR,
    "losing messages": ERROR,
    "no data": ERROR,
    "disc full": ERROR,
    "failed": ERROR,
    "idle": STALE,
}
"""Each state with its DiagnosticStatus level; of those that hold while recording the last is told."""

MISSING = 5.0
"""Seconds without the first message after which a topic is missed."""

SILENCE = 2.0
"""Seconds without the next message after which a sensor is taken for dead."""


class Complaint(NamedTuple):
    """Something that is wrong: the state it speaks for, and a sentence."""

    state: str
    sentence: str


def silent(inputs: Collection[Input], now: float) -> dict[str, float]:
    """Topics that have come and come no longer, with the seconds since, while others still do."""
    silences = {
        one.topic.name: silence
        for one in inputs
        if not one.source.is_latched and (silence := one.stream.silence(now)) is not None
    }
    if all(silence > SILENCE for silence in silences.values()):
        return {}
    return {name: silence for name, silence in silences.items() if silence > SILENCE}


def missing(inputs: dict[str, Input], required: Collection[str], now: float) -> Iterator[Complaint]:
    """Complaints of what never came, the node being up for MISSING at least."""
    streams = [one.stream for one in inputs.values() if not one.source.is_latched]
    if all((silence := stream.silence(now)) is None or silence > SILENCE for stream in streams):
        yield Complaint("no data", "no topic brings anything: start the sensors, or check the DDS profile")
    for name, one in inputs.items():
        if one.stream.silence(now) is not None or not (name in required or one.other_type):
            continue
        if one.other_type:
            cause = f"it carries {one.other_type}, not {one.type}: set its transport or remap '{name}'"
        elif one.is_offered:
            cause = "its publisher sends nothing that gets here, check the driver and the DDS profile"
        else:
            cause = f"nobody publishes it, start the sensor or remap '{one.source.name}'"
        yield Complaint("topic missing", f"{one.topic.name} never came: {cause}")


def unmounted(camera: Input, lidar: Input, prologue: Prologue) -> Iterator[Complaint]:
    """A complaint when both come, and nothing says where they sit to one another."""
    if camera.frame is None or lidar.frame is None or prologue.connects(camera.frame, lidar.frame):
        return
    yield Complaint(
        "no transform",
        f"/tf_static does not lead from {camera.frame} to {lidar.frame}: publish where the LiDAR sits, "
        "or write it into a file for ofvl livl build --calibration",
    )


def worst(complaints: Collection[Complaint]) -> str:
    """The state that complaints about a recording make."""
    order = list(LEVELS)
    return max((complaint.state for complaint in complaints), key=order.index, default="recording")
