"""What can be set of the recorder, and which topics it records."""

from typing import NamedTuple

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, PointCloud2
from tf2_msgs.msg import TFMessage

from ofvl_core.bag_messages import STORAGES
from ofvl_ros.parameters import NOT_NEGATIVE, Rule, Spec, one_of

TRANSPORTS = ("raw", "compressed")


class Source(NamedTuple):
    """A topic to record: its relative name, its type, how many messages wait for this node, how it flows."""

    name: str
    type: type
    depth: int
    is_stamped: bool = True
    """Whether it begins with a header."""
    is_latched: bool = False
    """Whether it comes once and holds: nobody waits for the next."""


IMAGE = {
    "raw": Source("image", Image, 60),
    "compressed": Source("image/compressed", CompressedImage, 60),
}
DEPTH = {
    "raw": Source("depth", Image, 60),
    "compressed": Source("depth/compressedDepth", CompressedImage, 60),
}
CAMERA_INFO, DEPTH_CAMERA_INFO = (
    Source("camera_info", CameraInfo, 60),
    Source("depth_camera_info", CameraInfo, 60),
)
STATIC = Source("/tf_static", TFMessage, 1000, is_stamped=False, is_latched=True)
OTHERS = (
    Source("velodyne_points", PointCloud2, 30),
    Source("imu", Imu, 1000),
    Source("odom", Odometry, 1000),
    Source("/tf", TFMessage, 1000, is_stamped=False),
)

REQUIRABLE = (
    *("image", "camera_info", "depth", "depth_camera_info"),
    *(source.name for source in (*OTHERS, STATIC)),
)
"""Topics without which a recording may be worth nothing, by the names of the raw ones."""

PARAMETERS = {
    "output": Spec("recordings", "folder of the bags; made where it is not there", Rule("a folder", bool)),
    "name": Spec(
        "recording",
        "bags are called NAME_001, NAME_002 and so on; none is ever overwritten",
        Rule("a name without /", lambda value: bool(value) and "/" not in value),
    ),
    "storage": Spec("mcap", "how messages are stored", one_of(*STORAGES)),
    "autostart": Spec(True, "record at once; false: when ~/start says so"),
    "image_transport": Spec(
        "raw", "raw records image, compressed records image/compressed", one_of(*TRANSPORTS)
    ),
    "depth_transport": Spec(
        "raw", "raw records depth, compressed records depth/compressedDepth", one_of(*TRANSPORTS)
    ),
    "required": Spec(
        "image camera_info depth velodyne_points",
        "topics, separated by blanks, without which the recording is no use: the status names those that "
        "never come; the others are recorded where there are any",
        Rule(f"some of {', '.join(REQUIRABLE)}", lambda value: set(value.split()) <= set(REQUIRABLE)),
    ),
    "queue_size": Spec(
        256.0,
        "MB that may wait for the disc; what comes while it is full is dropped and counted",
        NOT_NEGATIVE,
    ),
    "min_free_space": Spec(
        1000.0, "MB left on the disc at which the bag is closed and recording ends", NOT_NEGATIVE
    ),
}


def sources(image_transport: str, depth_transport: str) -> dict[str, Source]:
    """All that is recorded, by the names of the raw topics."""
    return {
        "image": IMAGE[image_transport],
        "camera_info": CAMERA_INFO,
        "depth": DEPTH[depth_transport],
        "depth_camera_info": DEPTH_CAMERA_INFO,
        **{source.name: source for source in (*OTHERS, STATIC)},
    }
