"""The localizer node on a camera's topics, with rviz if asked for."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ofvl_core import realsense

SHARE = Path(get_package_share_directory("ofvl_ros"))

ENVIRONMENT = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": str(SHARE / "config" / "fastdds.xml"),  # lets camera images through
    "OMP_WAIT_POLICY": "PASSIVE",  # idle network threads leave the cores to the robot's other processes
}
"""Set for the node where the user has not set them."""

UNSET = "(params_file)"
"""Default of an argument that, left out, leaves the value to params_file; empty is a value of its own."""

OVERRIDES = {
    "checkpoint": (str, "a trained model: folder or deployed file"),
    "scene": (str, "scene to localize in"),
    "base_frame": (str, "frame whose pose is published; empty: the camera's optical frame"),
    "use_sim_time": (bool, "follow /clock, as when a bag plays"),
}
"""Arguments that stand in for a parameter of params_file."""


def localizer(context: LaunchContext) -> list[Node]:
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in OVERRIDES.items()
        if context.launch_configurations[name] != UNSET
    }
    return [
        Node(
            package="ofvl_ros",
            executable="localizer",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), *([given] if given else [])],
            remappings=[
                ("image", LaunchConfiguration("image_topic")),
                ("camera_info", LaunchConfiguration("camera_info_topic")),
                ("/tf", "tf"),
                ("/tf_static", "tf_static"),
            ],
            additional_env={name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()},
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, node, rviz."""
    arguments = {
        "namespace": ("", "namespace of the node and its topics"),
        "params_file": (str(SHARE / "config" / "localize.yaml"), "parameters of the node"),
        "image_topic": (realsense.COLOR_IMAGE, "colour images"),
        "camera_info_topic": (realsense.COLOR_INFO, "their intrinsics"),
        "log_level": ("info", "debug, info, warn, error or fatal"),
        "rviz": ("false", "show camera, poses and tf in rviz"),
        **{name: (UNSET, description) for name, (_, description) in OVERRIDES.items()},
    }
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in arguments.items()
            ),
            OpaqueFunction(function=localizer),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration("namespace"),
                arguments=["-d", str(SHARE / "rviz" / "localize.rviz")],
                remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
