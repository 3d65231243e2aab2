"""The localizer node on a camera's topics, with visual odometry and rviz if asked for."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ofvl_core import realsense

SHARE = Path(get_package_share_directory("ofvl_ros"))

ENVIRONMENT = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": str(SHARE / "config" / "fastdds.xml"),  # lets camera images through
    "OMP_WAIT_POLICY": "PASSIVE",  # idle network threads leave the cores to the robot's other processes
}
"""Set where the user has not set it, for everything that is launched after this file as well: whoever sends
images needs the profile, so a launch file that includes this one starts the camera's driver afterwards."""

DEFAULTS = str(SHARE / "config" / "localize.yaml")
"""The params_file of who gives none."""

UNSET = "(params_file)"
"""Default of an argument that, left out, leaves the value to params_file; empty is a value of its own."""

EMPTY = "''"
"""How empty is written on the command line, where ros2 launch wants something: base_frame:="''"."""

OVERRIDES = {
    "checkpoint": (str, "a trained model: folder or deployed file"),
    "scene": (str, "scene to localize in; auto: find out which"),
    "base_frame": (str, "frame whose pose is published; '': the camera's optical frame"),
    "tf_mode": (str, "the map's place in tf: auto, map_to_odom, map_to_base, map_to_camera or none"),
    "image_transport": (str, "raw, or compressed for IMAGE_TOPIC/compressed"),
    "depth_transport": (
        str,
        "none, raw, or compressed for DEPTH_TOPIC/compressedDepth; raw with a depth_topic",
    ),
    "autostart": (bool, "activate the node at once; false leaves that to a lifecycle manager"),
    "use_sim_time": (bool, "follow /clock, as when a bag plays"),
}
"""Arguments that stand in for a parameter of params_file."""

WITH_VISUAL_ODOMETRY = str(SHARE / "config" / "with_visual_odometry.yaml")
"""What it changes for the localizer; a params_file of the user's, and arguments, have the last word."""

SHARED = ("scene", "base_frame", "image_transport", "use_sim_time")
"""Those of OVERRIDES that visual odometry takes as well."""

ARGUMENTS = {
    "namespace": ("", "namespace of the node, its topics and tf"),
    "params_file": (DEFAULTS, "parameters of the nodes"),
    "visual_odometry": ("", "a model of 'ofvl collab train', whose node then tells odometry; '': none"),
    "image_topic": (realsense.COLOR_IMAGE, "colour images"),
    "camera_info_topic": (realsense.COLOR_INFO, "their intrinsics"),
    "depth_topic": ("", f"depth aligned to them, such as {realsense.DEPTH_IMAGE}; '': colour alone"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "rviz": ("false", "show camera, poses and tf in rviz"),
    **{name: (UNSET, description) for name, (_, description) in OVERRIDES.items()},
}
"""Default and description."""


def localizer_parameters(params_file: str, visual_odometry: str) -> list[str]:
    """The localizer's parameter files, the last of which counts."""
    if not visual_odometry:
        return [params_file]
    if params_file == DEFAULTS:
        return [params_file, WITH_VISUAL_ODOMETRY]
    return [WITH_VISUAL_ODOMETRY, params_file]


def nodes(context: LaunchContext) -> list[Node]:
    """The localizer and, if asked for, visual odometry and rviz."""
    texts = {name: context.launch_configurations[name] for name in ARGUMENTS}
    value = {name: "" if text == EMPTY else text for name, text in texts.items()}
    given: dict[str, ParameterValue | str] = {
        name: ParameterValue(TextSubstitution(text=value[name]), value_type=kind)
        for name, (kind, _) in OVERRIDES.items()
        if value[name] != UNSET
    }
    time = [{"use_sim_time": given["use_sim_time"]}] if "use_sim_time" in given else []
    topics = {
        "image": value["image_topic"],
        "image/compressed": f"{value['image_topic']}/compressed",
        "camera_info": value["camera_info_topic"],
        "/tf": "tf",
        "/tf_static": "tf_static",
    }
    if depth := value["depth_topic"]:
        given.setdefault("depth_transport", "raw")
        topics |= {"depth": depth, "depth/compressedDepth": f"{depth}/compressedDepth"}
    localizer = Node(
        package="ofvl_ros",
        executable="localizer",
        namespace=value["namespace"],
        parameters=[
            *localizer_parameters(value["params_file"], value["visual_odometry"]),
            *([given] if given else []),
        ],
        remappings=topics.items(),
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
    )
    own_file = [value["params_file"]] if value["params_file"] != DEFAULTS else []
    shared = {name: given[name] for name in SHARED if name in given}
    odometry = Node(
        package="ofvl_ros",
        executable="visual_odometry",
        namespace=value["namespace"],
        parameters=[
            str(SHARE / "config" / "visual_odometry.yaml"),
            *own_file,
            {"checkpoint": ParameterValue(TextSubstitution(text=value["visual_odometry"]), value_type=str)},
            *([shared] if shared else []),
        ],
        remappings=[*topics.items(), ("fix", "pose_with_covariance")],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=value["namespace"],  # its displays have relative topics
        parameters=time,
        remappings=topics.items(),
        arguments=["-d", str(SHARE / "rviz" / "localize.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [localizer, *([odometry] if value["visual_odometry"] else []), rviz]


def generate_launch_description() -> LaunchDescription:
    """Arguments, environment, nodes."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            *(
                SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
                for name, value in ENVIRONMENT.items()
            ),
            OpaqueFunction(function=nodes),
        ]
    )
