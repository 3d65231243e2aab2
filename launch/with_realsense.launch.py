"""A RealSense camera, its depth aligned to its colour images, and the localizer on both.

Arguments of localize.launch.py and of the driver's rs_launch.py are passed on.
"""

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch_ros.actions import PushRosNamespace, SetRemap

from ofvl_core import realsense

HERE = Path(__file__).parent

ARGUMENTS = {
    "namespace": ("", "namespace of camera, node and tf"),
    "base_frame": (
        realsense.CAMERA_FRAME,
        "frame whose pose is published: camera_link, or the robot's",
    ),
    "depth_topic": (realsense.DEPTH_IMAGE.lstrip("/"), "aligned depth; '': colour alone"),
}
"""Default and description, where localize.launch.py has others. Topics are relative to the namespace."""


def driver_launch_file() -> str:
    """Path of the driver's launch file. Raises RuntimeError when the driver is not installed."""
    try:
        return f"{get_package_share_directory('realsense2_camera')}/launch/rs_launch.py"
    except PackageNotFoundError:
        distro = os.environ.get("ROS_DISTRO", "jazzy")
        raise RuntimeError(
            f"realsense2_camera is not installed: sudo apt install ros-{distro}-realsense2-camera"
        ) from None


def driver(context: LaunchContext) -> list[GroupAction]:
    """The camera's driver in the namespace, with the tf topics of the localizer."""
    return [
        GroupAction(
            [
                PushRosNamespace(context.launch_configurations["namespace"]),
                SetRemap("/tf", "tf"),
                SetRemap("/tf_static", "tf_static"),
                IncludeLaunchDescription(
                    driver_launch_file(),
                    launch_arguments={"align_depth.enable": "true", "enable_sync": "true"}.items(),
                ),
            ]
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, localizer, driver; in this order, since the first sets the second's environment."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            IncludeLaunchDescription(
                str(HERE / "localize.launch.py"),
                launch_arguments={
                    "image_topic": realsense.COLOR_IMAGE.lstrip("/"),
                    "camera_info_topic": realsense.COLOR_INFO.lstrip("/"),
                }.items(),
            ),
            OpaqueFunction(function=driver),
        ]
    )
