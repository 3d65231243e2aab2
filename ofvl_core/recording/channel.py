"""What the messages of a topic are, as a bag says."""

import re
from typing import NamedTuple

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")


class Channel(NamedTuple):
    """A topic, its type as in 'sensor_msgs/msg/Image', the type's definition, and the QoS that was offered.

    `encoding` is 'cdr' of ROS 2 or 'ros1'.
    """

    topic: str
    type: str
    definition: MessageDefinition = NO_DEFINITION
    encoding: str = "cdr"
    offered: tuple[Qos, ...] = ()


Record = tuple[Channel, int, bytes]
"""Of one message: what it is, when it was received in nanoseconds, and its bytes."""


def typestore(channel: Channel) -> Typestore | None:
    """Types as the bag defines them, else as ROS does; None where neither knows the channel's."""
    try:
        if types := _defined(channel):
            store = get_typestore(Stores.EMPTY)
            store.register(types)
            return store
    except TypesysError:
        pass
    store = get_typestore(Stores.ROS1_NOETIC if channel.encoding == "ros1" else Stores.ROS2_JAZZY)
    return store if channel.type in store.types else None


def _defined(channel: Channel) -> Typesdict:
    form, text = channel.definition
    if form == MessageDefinitionFormat.MSG and text:
        return get_types_from_msg(text, channel.type)
    types: Typesdict = {}
    for part in re.split(f"{'=' * 80}\nIDL: .*\n", text):  # as rosbag2 joins them
        types |= get_types_from_idl(part) if part.strip() else {}
    return types
