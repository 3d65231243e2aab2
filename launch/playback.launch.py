"""A recorded bag and the localizer on it, on the bag's clock; ends with the bag.

Arguments of localize.launch.py are passed on.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

HERE = Path(__file__).parent

ARGUMENTS = {
    "bag": (str, None, "folder, .mcap or .db3 file of a ROS 2 bag"),
    "rate": (float, "1.0", "speed; 2.0 plays twice as fast as recorded"),
    "loop": (bool, "false", "start again at the end, for ever"),
}
"""Type, default and description of the player's parameters."""


def player(context: LaunchContext) -> list[Node]:
    """The player; it waits until the localizer, which takes a while to load, listens."""
    value = context.launch_configurations
    images = value["image_topic"] + ("/compressed" if value["image_transport"] == "compressed" else "")
    parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in ARGUMENTS.items()
    }
    return [
        Node(
            package="ofvl_ros",
            executable="bag_player",
            namespace=value["namespace"],
            parameters=[parameters | {"wait_for_subscriber": images}],
            remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
            output="screen",
            on_exit=Shutdown(reason="the bag is over"),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, localizer, player; in this order, since the first sets the second's environment."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (_, default, description) in ARGUMENTS.items()
            ),
            IncludeLaunchDescription(
                str(HERE / "localize.launch.py"), launch_arguments={"use_sim_time": "true"}.items()
            ),
            OpaqueFunction(function=player),
        ]
    )
