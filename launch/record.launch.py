"""The recorder node on a robot's topics."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ofvl_core import realsense

SHARE = Path(get_package_share_directory("ofvl_ros"))

PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
"""Set where the user has not set it, for everything that is launched after this file as well: whoever sends
images needs the profile, so a launch file that includes this one starts the camera's driver afterwards."""

UNSET = "(params_file)"
"""Default of an argument that, left out, leaves the value to params_file; empty is a value of its own."""

EMPTY = "''"
"""How empty is written on the command line, where ros2 launch wants something: required:="''"."""

OVERRIDES = {
    "output": (str, "folder of the bags"),
    "name": (str, "bags are called NAME_001, NAME_002 and so on"),
    "storage": (str, "mcap or sqlite3"),
    "image_transport": (str, "raw, or compressed for IMAGE_TOPIC/compressed"),
    "depth_transport": (str, "raw, or compressed for DEPTH_TOPIC/compressedDepth"),
    "required": (str, "topics without which the recording is no use, separated by blanks; '': none"),
    "autostart": (bool, "record at once; false: when ~/start says so"),
}
"""Arguments that stand in for a parameter of params_file."""

ARGUMENTS = {
    "namespace": ("", "namespace of the node, its topics and tf"),
    "params_file": (str(SHARE / "config" / "record.yaml"), "parameters of the node"),
    "image_topic": (realsense.COLOR_IMAGE, "colour images"),
    "camera_info_topic": (realsense.COLOR_INFO, "their intrinsics"),
    "depth_topic": (realsense.DEPTH_IMAGE, "depth, best aligned to them"),
    "depth_camera_info_topic": (realsense.DEPTH_INFO, "its intrinsics"),
    "points_topic": ("velodyne_points", "the LiDAR's clouds"),
    "imu_topic": ("imu/data", "an IMU, where there is one"),
    "odom_topic": ("odom", "odometry, where there is some"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    **{name: (UNSET, description) for name, (_, description) in OVERRIDES.items()},
}
"""Default and description."""


def recorder(context: LaunchContext) -> list[Node]:
    """The recorder."""
    texts = {name: context.launch_configurations[name] for name in ARGUMENTS}
    value = {name: "" if text == EMPTY else text for name, text in texts.items()}
    given = {
        name: ParameterValue(TextSubstitution(text=value[name]), value_type=kind)
        for name, (kind, _) in OVERRIDES.items()
        if value[name] != UNSET
    }
    topics = {
        "image": value["image_topic"],
        "image/compressed": f"{value['image_topic']}/compressed",
        "camera_info": value["camera_info_topic"],
        "depth": value["depth_topic"],
        "depth/compressedDepth": f"{value['depth_topic']}/compressedDepth",
        "depth_camera_info": value["depth_camera_info_topic"],
        "velodyne_points": value["points_topic"],
        "imu": value["imu_topic"],
        "odom": value["odom_topic"],
        "/tf": "tf",
        "/tf_static": "tf_static",
    }
    return [
        Node(
            package="ofvl_ros",
            executable="recorder",
            namespace=value["namespace"],
            parameters=[value["params_file"], *([given] if given else [])],
            remappings=topics.items(),
            arguments=["--ros-args", "--log-level", value["log_level"]],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, environment, node."""
    profile = EnvironmentVariable(PROFILE, default_value=str(SHARE / "config" / "fastdds.xml"))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            SetEnvironmentVariable(PROFILE, profile),
            OpaqueFunction(function=recorder),
        ]
    )
