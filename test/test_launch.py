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

from ofvl_core import realsense
from ofvl_ros.bag_player import PARAMETERS as PLAYER_PARAMETERS
from ofvl_ros.localizer_parameters import PARAMETERS

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
def launched() -> Callable[..., list[Started]]:
    """Runs a launch file, with `true` in place of each of its processes; skips the test without launch."""
    pytest.importorskip("launch_ros", reason="ROS 2's launch is not installed here")
    packages = pytest.importorskip("ament_index_python.packages")
    try:
        packages.get_package_share_directory("ofvl_ros")
    except packages.PackageNotFoundError:
        pytest.skip("ofvl_ros is not built with colcon here")
    return run_launch_file


def run_launch_file(name: str, succeeds: bool = True, **arguments: str) -> list[Started]:
    """What a launch file starts."""
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription, RegisterEventHandler, SetLaunchConfiguration
    from launch.event_handlers import OnProcessStart

    started: list[Started] = []

    def on_start(event: Any, _: Any) -> None:
        files = [event.cmd[i + 1] for i, word in enumerate(event.cmd) if word == "--params-file"]
        parameters: dict[str, Any] = {}
        for file in files:
            for tree in yaml.safe_load(Path(file).read_text()).values():
                parameters |= tree["ros__parameters"]
        started.append(Started(" ".join(event.cmd), parameters, event.env))

    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription(
            [
                SetLaunchConfiguration("launch-prefix", "true"),
                RegisterEventHandler(OnProcessStart(on_start=on_start)),
                IncludeLaunchDescription(
                    str(LAUNCH / f"{name}.launch.py"), launch_arguments=arguments.items()
                ),
            ]
        )
    )
    assert (service.run() == 0) is succeeds
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


def parameter_file() -> dict[str, Any]:
    """What the parameter file sets."""
    text = (ROOT / "config" / "localize.yaml").read_text()
    parameters: dict[str, Any] = yaml.safe_load(text)["/**"]["ros__parameters"]
    return parameters


Launched = Callable[..., list[Started]]
Install = Callable[[str, str], Path]


def test_what_is_left_out_is_left_to_the_parameter_file(launched: Launched) -> None:
    (node,) = launched("localize")
    assert node.parameters == parameter_file()


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
    assert node.parameters == parameter_file() | typed
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


def test_empty_can_be_said_on_the_command_line(launched: Launched) -> None:
    (node,) = launched("localize", base_frame="''", depth_topic="''")
    assert node.parameters["base_frame"] == ""
    assert "depth:=" not in node.command


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
