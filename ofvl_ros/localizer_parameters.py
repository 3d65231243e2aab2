"""Every parameter of the localizer node: its default, what it does, and which values make sense."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from ofvl_core.device import DEVICES
from ofvl_core.engines import ENGINES
from ofvl_core.tracking import TrackingOptions
from ofvl_core.trust import TrustOptions
from ofvl_ros import initialpose
from ofvl_ros.frames import TF_MODES
from ofvl_ros.inputs import DEPTH_TRANSPORTS, IMAGE_TRANSPORTS, RELIABILITIES
from ofvl_ros.parameters import ABOVE_ZERO, AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Rule, Spec, one_of

AUTO = "auto"
"""The scene that means: find out."""


PARAMETERS = {
    "checkpoint": Spec(
        "",
        "a trained model: the folder of 'ofvl train' or the file of 'ofvl deploy'; changed while the node "
        "runs, ~/reload reads it",
        changeable=True,
    ),
    "scene": Spec(
        AUTO,
        "scene to localize in; auto finds out by itself, at start and whenever lost",
        Rule("auto or a scene of the checkpoint", bool),
        changeable=True,
    ),
    "device": Spec("auto", "auto takes CUDA where there is some", one_of(*DEVICES)),
    "engine": Spec(
        "auto",
        "what runs the network; auto is torch, but openvino-int8 on a CPU for scenes that 'ofvl quantise' "
        "prepared",
        one_of(*ENGINES),
    ),
    "keyframes": Spec(
        True,
        "refine poses by keyframes, from decimetres to centimetres; false answers sooner, for a CPU that "
        "does not keep up",
    ),
    "autostart": Spec(
        True, "configure and activate at start; false leaves that to a lifecycle manager or ros2 lifecycle"
    ),
    "continuous": Spec(
        True, "localize every image; false: only when ~/trigger_localization asks", changeable=True
    ),
    "image_transport": Spec(
        "raw", "raw subscribes image, compressed subscribes image/compressed", one_of(*IMAGE_TRANSPORTS)
    ),
    "depth_transport": Spec(
        "none",
        "aligned depth, which makes poses better: raw subscribes depth, compressed depth/compressedDepth",
        one_of(*DEPTH_TRANSPORTS),
    ),
    "image_qos": Spec(
        "best_effort",
        "reliability asked of the publishers of images; best_effort receives from all",
        one_of(*RELIABILITIES),
    ),
    "max_image_age": Spec(
        2.0,
        "seconds; an image whose stamp is further than this from the node's clock is not used",
        ABOVE_ZERO,
        changeable=True,
    ),
    "map_frame": Spec(
        "map",
        "tf frame in which poses are given; {scene} in it stands for the scene's name: a map frame a scene",
        Rule("a frame's name", bool),
    ),
    "odom_frame": Spec("odom", "tf frame of the robot's odometry", Rule("a frame's name", bool)),
    "base_frame": Spec("base_link", "frame whose pose is published; empty: the image's own optical frame"),
    "tf_mode": Spec(
        "auto",
        "where the map is attached; auto is map_to_odom where there is odometry, else map_to_camera, which "
        "is the root of the camera's tf tree",
        one_of(*TF_MODES),
    ),
    "tf_rate": Spec(
        20.0,
        "Hz at which map to odom is broadcast again",
        Rule("above 0, at most 1000", lambda value: 0 < value <= 1000),
    ),
    "transform_tolerance": Spec(0.1, "seconds by which map to odom is dated ahead", NOT_NEGATIVE),
    "transform_timeout": Spec(0.2, "seconds to wait for tf at an image's stamp", NOT_NEGATIVE),
    "initialpose": Spec(
        "accept",
        "the topic of that name: accept takes what comes as a prior, publish hands what was found to AMCL",
        one_of(*initialpose.USES),
    ),
    # Which image may be believed.
    "min_inlier_share": Spec(
        TrustOptions.min_inlier_share,
        "share of the network's cells that must agree with its pose, where keyframes do not",
        SHARE,
        True,
    ),
    "max_position_deviation": Spec(
        TrustOptions.max_position_deviation, "metres; a pose less certain is not believed", POSITIVE, True
    ),
    "max_rotation_deviation": Spec(
        TrustOptions.max_rotation_deviation, "radians; a pose less certain is not believed", POSITIVE, True
    ),
    # What images say together, and with odometry.
    "gate_probability": Spec(
        TrackingOptions.gate_probability,
        "share of right poses that the test against the track lets pass",
        Rule("between 0 and 1", lambda value: 0 < value < 1),
    ),
    "start_fixes": Spec(
        TrackingOptions.start_fixes, "poses that must agree before the first is published", AT_LEAST_ONE
    ),
    "kidnapped_fixes": Spec(
        TrackingOptions.kidnapped_fixes,
        "rejected poses in a row that must agree to be believed instead of the track",
        AT_LEAST_ONE,
    ),
    "kidnapped_seconds": Spec(
        TrackingOptions.kidnapped_seconds, "seconds that they must span at least", NOT_NEGATIVE
    ),
    "lost_deviation": Spec(
        TrackingOptions.lost_deviation,
        "metres; lost when odometry since the last accepted pose leaves more uncertainty than this",
        POSITIVE,
    ),
    "lost_seconds": Spec(
        TrackingOptions.lost_seconds, "lost after so long without an accepted pose, with odometry", POSITIVE
    ),
    "lost_seconds_alone": Spec(
        TrackingOptions.lost_seconds_alone,
        "lost after so long without an accepted pose, without odometry",
        POSITIVE,
    ),
    "max_speed": Spec(
        TrackingOptions.max_speed, "metres a second the robot may drive, where no odometry tells", POSITIVE
    ),
    "max_turn_rate": Spec(
        TrackingOptions.max_turn_rate, "radians a second it may turn, where no odometry tells", POSITIVE
    ),
    "drift_per_metre": Spec(
        TrackingOptions.drift_per_metre,
        "metres; standard deviation of odometry's position after a metre driven",
        NOT_NEGATIVE,
    ),
    "turn_drift_per_metre": Spec(
        TrackingOptions.turn_drift_per_metre,
        "radians; standard deviation of odometry's rotation after a metre driven",
        NOT_NEGATIVE,
    ),
    "turn_drift_per_radian": Spec(
        TrackingOptions.turn_drift_per_radian,
        "radians; standard deviation of odometry's rotation after a radian turned",
        NOT_NEGATIVE,
    ),
    "correlated_share": Spec(
        TrackingOptions.correlated_share,
        "share of a pose's variance that poses from the same view have in common",
        Rule("from 0 to below 1", lambda value: 0 <= value < 1),
    ),
    "correlation_distance": Spec(
        TrackingOptions.correlation_distance, "metres after which that share has faded to 1/e", POSITIVE
    ),
    "correlation_angle": Spec(
        TrackingOptions.correlation_angle, "radians after which that share has faded to 1/e", POSITIVE
    ),
}


Options = TypeVar("Options", TrackingOptions, TrustOptions)


def options(kind: type[Options], parameter: Callable[[str], Any]) -> Options:
    """The options of a core module, each field from the parameter of its name."""
    return kind(**{field.name: parameter(field.name) for field in fields(kind)})
