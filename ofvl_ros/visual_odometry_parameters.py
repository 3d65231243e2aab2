"""Every parameter of the visual odometry node: its default, what it does, and which values make sense."""

from ofvl_core.collaborative.odometry import OdometryOptions
from ofvl_ros import localizer_parameters
from ofvl_ros.localizer_parameters import AUTO
from ofvl_ros.parameters import POSITIVE, Rule, Spec, one_of

SCALE_SOURCES = ("fixes", "relocalization", "none")

_AS_LOCALIZER = {
    name: localizer_parameters.PARAMETERS[name]
    for name in ("device", "image_transport", "image_qos", "base_frame", "odom_frame", "transform_timeout")
}

PARAMETERS = {
    "checkpoint": Spec("", "a trained model: the folder of 'ofvl collab train'"),
    "scene": Spec(
        AUTO,
        "scene of the checkpoint whose scale and accuracy hold and in which poses are relocalized; auto: the "
        "only one",
        Rule("auto or a scene of the checkpoint", bool),
    ),
    **_AS_LOCALIZER,
    "map_frame": Spec(
        localizer_parameters.PARAMETERS["map_frame"].default,
        "tf frame in which relocalized poses are given; {scene} in it stands for the scene's name",
        Rule("a frame's name", bool),
    ),
    "publish_tf": Spec(True, "broadcast odom_frame to base_frame; false where other odometry does"),
    "scale_from": Spec(
        "fixes",
        "what corrects the scale of training: poses on the topic fix, the network's own relocalized poses, "
        "or nothing",
        one_of(*SCALE_SOURCES),
    ),
    "scale_window": Spec(20.0, "metres driven after which a pose no longer tells of the scale", POSITIVE),
    "max_gap": Spec(
        4.0,
        "longest time between two images of which the network measures the motion, in units of the time "
        "between the images that it was trained with",
        POSITIVE,
    ),
    "rest_distance": Spec(
        OdometryOptions.rest_distance,
        "metres that the camera of a robot at rest may seem to have moved",
        POSITIVE,
    ),
    "rest_angle": Spec(
        OdometryOptions.rest_angle,
        "radians that it may seem to have turned",
        POSITIVE,
    ),
}
