"""Launch files, rviz layout and DDS profile fit the node that they are for.

What the launch files do is tested where ROS 2's launch is installed, what they say everywhere.
"""

import ast
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from geometry_msgs.msg import TransformStamped
from ros_helpers import ros_node
from test_recording_writer import contents
from tf2_msgs.msg import TFMessage

from ofvl_core import realsense
from ofvl_ros.bag_player import PARAMETERS as PLAYER_PARAMETERS
from ofvl_ros.localizer_parameters import PARAMETERS
from ofvl_ros.recorder_node import LATCHED

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
TOPICS = {"pose_with_covariance", "path", "scene_coordinates", "markers", "overlay", "image", "initialpose"}
"""What rviz shows or sends, by the localizer's own names."""


DRIVER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

def generate_launch_description():
    aligned = {"align_depth.enable": LaunchConfiguration("align_depth.enable")}
    return LaunchDescription([
        DeclareLaunchArgument("align_depth.enable", default_value="false"),
        Node(package="realsense2_camera", executable="realsense2_camera_node", name="camera",
             namespace="camera", parameters=[aligned]),
    ])
"""
"""What matters here of the driver's own launch file."""


class Started(NamedTuple):
    """A process that a launch file started: its command line, its parameters and its environment."""

    command: str
    parameters: dict[str, Any]
    environment: dict[str, str]


@pytest.fixture
def installed() -> None:
    """Skips the test where launch is not installed, or this package is not."""
    pytest.importorskip("launch_ros", reason="ROS 2's launch is not installed here")
    packages = pytest.importorskip("ament_index_python.packages")
    try:
        packages.get_package_share_directory("ofvl_ros")
    except packages.PackageNotFoundError:
        pytest.skip("ofvl_ros is not built with colcon here")


@pytest.fixture
def launched(installed: None) -> Callable[..., list[Started]]:
    """Runs a launch file, with `true` in place of each of its processes."""
    return run_launch_file


def run(file: str, arguments: dict[str, str], *before: Any) -> int:
    """Run a launch file after some actions; launch's exit code."""
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription

    included = IncludeLaunchDescription(str(LAUNCH / f"{file}.launch.py"), launch_arguments=arguments.items())
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([*before, included]))
    return int(service.run())


def run_launch_file(file: str, succeeds: bool = True, **arguments: str) -> list[Started]:
    """What a launch file starts."""
    from launch.actions import RegisterEventHandler, SetLaunchConfiguration
    from launch.event_handlers import OnProcessStart

    started: list[Started] = []

    def on_start(event: Any, _: Any) -> None:
        files = [event.cmd[i + 1] for i, word in enumerate(event.cmd) if word == "--params-file"]
        parameters: dict[str, Any] = {}
        for file in files:
            for tree in yaml.safe_load(Path(file).read_text()).values():
                parameters |= tree["ros__parameters"]
        started.append(Started(" ".join(event.cmd), parameters, event.env))

    code = run(
        file,
        arguments,
        SetLaunchConfiguration("launch-prefix", "true"),
        RegisterEventHandler(OnProcessStart(on_start=on_start)),
    )
    assert (code == 0) is succeeds
    return started


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Installs a package of which only the executable's name matters; returns its share folder."""

    def install(package: str, executable: str) -> Path:
        index = tmp_path / "share/ament_index/resource_index/packages"
        index.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
        program = tmp_path / "lib" / package / executable
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=os.pathsep)
        return tmp_path / "share" / package

    return install


def literal(name: str, variable: str) -> dict[str, ast.expr]:
    """The entries of a dict that a launch file assigns to a global variable."""
    for statement in ast.parse((LAUNCH / f"{name}.launch.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == variable:
            assert isinstance(statement.value, ast.Dict)
            pairs = zip(statement.value.keys, statement.value.values, strict=True)
            return {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
    raise AssertionError(f"{name} has no {variable}")


@pytest.mark.parametrize(
    ("name", "variable", "table"),
    [("localize", "OVERRIDES", PARAMETERS), ("playback", "ARGUMENTS", PLAYER_PARAMETERS)],
)
def test_arguments_that_become_parameters_are_some(name: str, variable: str, table: Any) -> None:
    for argument, value in literal(name, variable).items():
        if argument == "use_sim_time":
            continue  # every node has it
        assert isinstance(value, ast.Tuple)
        assert argument in table
        assert ast.unparse(value.elts[0]) == type(table[argument].default).__name__


def test_rviz_shows_what_the_localizer_publishes() -> None:
    layout = yaml.safe_load((ROOT / "rviz" / "localize.rviz").read_text())["Visualization Manager"]
    shown = {item["Topic"]["Value"] for item in layout["Displays"] + layout["Tools"] if "Topic" in item}
    assert shown == TOPICS
    sources = " ".join(path.read_text() for path in (ROOT / "ofvl_ros").glob("*.py"))
    for topic in TOPICS:
        assert f'"{topic}"' in sources, f"{topic} is no topic of the localizer"
    assert layout["Global Options"]["Fixed Frame"] == PARAMETERS["map_frame"].default


def test_the_profile_lets_the_largest_camera_image_through_shared_memory() -> None:
    names = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    profile = ElementTree.parse(ROOT / "config" / "fastdds.xml")
    described = {
        transport.findtext("dds:transport_id", namespaces=names): transport
        for transport in profile.iterfind(".//dds:transport_descriptor", names)
    }
    used = [element.text for element in profile.iterfind(".//dds:userTransports/dds:transport_id", names)]
    assert set(used) == set(described)
    segment = described["large_shared_memory"].findtext("dds:segment_size", namespaces=names)
    assert segment is not None
    assert int(segment) >= 2 * 1920 * 1080 * 3  # a RealSense's largest, one being sent and one being read


def parameter_file(name: str) -> dict[str, Any]:
    """What the parameter file of a launch file sets."""
    text = (ROOT / "config" / f"{name}.yaml").read_text()
    parameters: dict[str, Any] = yaml.safe_load(text)["/**"]["ros__parameters"]
    return parameters


Launched = Callable[..., list[Started]]
Install = Callable[[str, str], Path]


@pytest.mark.parametrize("name", ["localize", "record"])
def test_what_is_left_out_is_left_to_the_parameter_file(launched: Launched, name: str) -> None:
    (node,) = launched(name)
    assert node.parameters == parameter_file(name)


def test_arguments_reach_the_node_with_their_types(launched: Launched) -> None:
    given = {
        "checkpoint": "7",
        "scene": "auto",
        "base_frame": "",
        "autostart": "false",
        "use_sim_time": "true",
    }
    (node,) = launched("localize", namespace="robot", image_topic="/eye/image", log_level="debug", **given)
    typed = given | {"autostart": False, "use_sim_time": True}
    assert node.parameters == parameter_file("localize") | typed
    for words in (
        "__ns:=/robot",
        "-r image:=/eye/image",
        "-r image/compressed:=/eye/image/compressed",
        "-r /tf:=tf",
        "-r /tf_static:=tf_static",
        "--log-level debug",
    ):
        assert words in node.command
    assert "depth:=" not in node.command


def test_visual_odometry_is_corrected_by_the_localizer_that_it_moves(launched: Launched) -> None:
    given = {"base_frame": "base", "scene": "hall", "use_sim_time": "true", "tf_mode": "auto"}
    localizer, odometry = launched(
        "localize", visual_odometry="8", checkpoint="7", namespace="robot", image_topic="/eye/image", **given
    )
    changed = parameter_file("with_visual_odometry")
    said = {"checkpoint": "7", "base_frame": "base", "scene": "hall", "use_sim_time": True, "tf_mode": "auto"}
    assert localizer.parameters == parameter_file("localize") | changed | said
    shared = {"base_frame": "base", "scene": "hall", "use_sim_time": True}
    assert odometry.parameters == parameter_file("visual_odometry") | {"checkpoint": "8"} | shared
    for words in (
        "__ns:=/robot",
        "-r image:=/eye/image",
        "-r image/compressed:=/eye/image/compressed",
        "-r fix:=pose_with_covariance",
        "-r /tf:=tf",
    ):
        assert words in odometry.command


def test_a_parameter_file_is_for_both_and_has_the_last_word(launched: Launched, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("/**: {ros__parameters: {checkpoint: 7, drift_per_metre: 0.4, odom_frame: here}}")
    localizer, odometry = launched("localize", visual_odometry="8", params_file=str(file))
    assert localizer.parameters["drift_per_metre"] == 0.4
    assert localizer.parameters["tf_mode"] == "map_to_odom"
    assert odometry.parameters["odom_frame"] == localizer.parameters["odom_frame"] == "here"
    assert odometry.parameters["checkpoint"] == "8"


def test_what_visual_odometry_changes_of_the_localizer_are_parameters() -> None:
    changed = parameter_file("with_visual_odometry")
    assert changed.keys() <= PARAMETERS.keys()
    for name, value in changed.items():
        assert PARAMETERS[name].rule.holds(value)
        assert value != PARAMETERS[name].default
        assert f"`{name}`" in (ROOT / "docs" / "visual_odometry.md").read_text()


def test_empty_can_be_said_on_the_command_line(launched: Launched) -> None:
    (node,) = launched("localize", base_frame="''", depth_topic="''")
    assert node.parameters["base_frame"] == ""
    assert "depth:=" not in node.command
    (node,) = launched("record", required="''")
    assert node.parameters["required"] == ""


@pytest.mark.parametrize(
    ("given", "transport"), [({}, "raw"), ({"depth_transport": "compressed"}, "compressed")]
)
def test_a_depth_topic_turns_depth_on(launched: Launched, given: dict[str, str], transport: str) -> None:
    (node,) = launched("localize", depth_topic="/d", **given)
    assert node.parameters["depth_transport"] == transport
    assert "-r depth:=/d" in node.command
    assert "-r depth/compressedDepth:=/d/compressedDepth" in node.command


def test_the_environment_is_set_where_the_user_has_not(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    (node,) = launched("localize")
    assert node.environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert Path(node.environment["FASTRTPS_DEFAULT_PROFILES_FILE"]).name == "fastdds.xml"


def test_images_reach_the_recorder_through_the_profile_of_the_user_or_ours(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "mine.xml")
    (node,) = launched("record")
    assert node.environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "mine.xml"
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE")
    (node,) = launched("record")
    assert Path(node.environment["FASTRTPS_DEFAULT_PROFILES_FILE"]).name == "fastdds.xml"


def test_the_recorder_hears_the_topics_that_it_is_given(launched: Launched) -> None:
    given = {
        "output": "some bags",
        "name": "7",
        "image_transport": "compressed",
        "required": "image camera_info",
        "autostart": "false",
    }
    topics = {"image_topic": "eye/image", "depth_topic": "/d", "points_topic": "/lidar", "imu_topic": "imu"}
    (node,) = launched("record", namespace="robot", log_level="debug", **given, **topics)
    assert node.parameters == parameter_file("record") | given | {"autostart": False}
    for words in (
        "__ns:=/robot",
        "-r image:=eye/image",
        "-r image/compressed:=eye/image/compressed",
        f"-r camera_info:={realsense.COLOR_INFO}",
        "-r depth:=/d",
        "-r depth/compressedDepth:=/d/compressedDepth",
        f"-r depth_camera_info:={realsense.DEPTH_INFO}",
        "-r velodyne_points:=/lidar",
        "-r imu:=imu",
        "-r odom:=odom",
        "-r /tf:=tf",
        "-r /tf_static:=tf_static",
        "--log-level debug",
    ):
        assert f" {words} " in f"{node.command} "


@pytest.mark.usefixtures("installed")
def test_a_launched_recorder_closes_its_bag_when_the_launch_ends(tmp_path: Path) -> None:
    from launch.actions import RegisterEventHandler, Shutdown, TimerAction
    from launch.event_handlers import OnProcessExit, OnProcessIO

    said, codes = "", []

    def on_said(event: Any) -> Any:
        nonlocal said
        said += event.text.decode()
        return Shutdown() if " 1 messages" in said else None

    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**: {ros__parameters: {output: elsewhere, min_free_space: 0.0}}")
    arguments = {
        "namespace": "robot",
        "params_file": str(parameters),
        "output": str(tmp_path / "some bags"),
        "name": "hall",
        "required": "''",
    }
    with ros_node("driver") as node:
        transforms = TFMessage(transforms=[TransformStamped(child_frame_id="velodyne")])
        node.create_publisher(TFMessage, "/robot/tf_static", LATCHED).publish(transforms)
        code = run(
            "record",
            arguments,
            RegisterEventHandler(OnProcessIO(on_stdout=on_said, on_stderr=on_said)),
            RegisterEventHandler(OnProcessExit(on_exit=lambda event, _: codes.append(event.returncode))),
            TimerAction(period=30.0, actions=[Shutdown()]),  # should the message never come
        )
    assert (code, codes) == (0, [0]), said
    assert "hall_001 is closed" in said
    assert [topic for topic, _, _ in contents(tmp_path / "some bags" / "hall_001")] == ["/robot/tf_static"]


def test_rviz_is_where_the_localizer_is(launched: Launched, install: Install) -> None:
    install("rviz2", "rviz2")
    node, rviz = launched("localize", rviz="true", namespace="robot", use_sim_time="true")
    assert rviz.parameters == {"use_sim_time": True}
    for words in ("__ns:=/robot", "-r /tf:=tf", f"-r image:={realsense.COLOR_IMAGE}"):
        assert words in rviz.command
        assert words in node.command


def test_a_played_bag_is_heard_on_its_own_clock(launched: Launched) -> None:
    node, player = launched("playback", bag="/some bag", rate="2", namespace="robot")
    assert node.parameters["use_sim_time"] is True
    assert player.parameters == {
        "bag": "/some bag",
        "rate": 2.0,
        "loop": False,
        "wait_for_subscriber": realsense.COLOR_IMAGE,
    }
    assert "fastdds.xml" in player.environment["FASTRTPS_DEFAULT_PROFILES_FILE"]
    for words in ("__ns:=/robot", "-r /tf:=tf", "-r /tf_static:=tf_static"):
        assert words in player.command


def test_a_bag_of_compressed_images_waits_for_their_subscriber(launched: Launched) -> None:
    _, player = launched("playback", bag="b", image_transport="compressed")
    assert player.parameters["wait_for_subscriber"] == f"{realsense.COLOR_IMAGE}/compressed"


@pytest.mark.parametrize("namespace", ["", "robot"])
def test_the_driver_sends_where_the_localizer_listens(
    launched: Launched, install: Install, namespace: str
) -> None:
    share = install("realsense2_camera", "realsense2_camera_node")
    (share / "launch").mkdir(parents=True)
    (share / "launch" / "rs_launch.py").write_text(DRIVER)
    node, driver = launched("with_realsense", namespace=namespace)
    assert driver.parameters == {"align_depth.enable": True}
    assert "fastdds.xml" in driver.environment["FASTRTPS_DEFAULT_PROFILES_FILE"]
    assert f"__ns:={'/' + namespace if namespace else ''}/camera" in driver.command
    assert "-r /tf:=tf" in driver.command
    assert node.parameters["depth_transport"] == "raw"
    assert node.parameters["base_frame"] == realsense.CAMERA_FRAME
    for topic in (realsense.COLOR_IMAGE, realsense.COLOR_INFO, realsense.DEPTH_IMAGE):
        assert f":={topic.lstrip('/')}" in node.command  # relative to the namespace


def test_a_missing_driver_is_named_with_its_package(launched: Launched, caplog: Any) -> None:
    launched("with_realsense", succeeds=False)
    assert "realsense2_camera is not installed: sudo apt install" in caplog.text
