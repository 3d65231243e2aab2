"""The documents say of the nodes what is so: parameters, topics, services, states, messages, commands."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rclpy
import typer
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from tf2_ros import Buffer, TransformBroadcaster, TransformListener

from ofvl_core.cli import app
from ofvl_ros.bag_player import PARAMETERS as PLAYER_PARAMETERS
from ofvl_ros.frames import MapBroadcaster
from ofvl_ros.health import Health
from ofvl_ros.initialpose import InitialPose
from ofvl_ros.inputs import IMAGE_TRANSPORTS, CameraInputs
from ofvl_ros.localizer_node import NAME, LocalizerNode
from ofvl_ros.localizer_parameters import PARAMETERS
from ofvl_ros.outputs import Outputs
from ofvl_ros.recorder_node import RecorderNode
from ofvl_ros.recorder_parameters import PARAMETERS as RECORDER_PARAMETERS
from ofvl_ros.recorder_parameters import TRANSPORTS, sources
from ofvl_ros.recorder_states import LEVELS as RECORDER_LEVELS
from ofvl_ros.states import LEVELS
from ofvl_ros.visual_odometry_outputs import VisualOdometryOutputs
from ofvl_ros.visual_odometry_parameters import PARAMETERS as ODOMETRY_PARAMETERS
from ofvl_ros.visual_odometry_states import LEVELS as ODOMETRY_LEVELS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

CORE = (
    *("camera", "checkpoint", "deployment", "device", "localizer", "pose", "resize", "tracking", "trust"),
    *("engines/__init__", "engines/int8", "recording/images"),
)
"""Modules of the core whose sentences the localizer passes on."""

NEVER_SAID = {"assemble", "require_empty", "require_finished", "save_deployment", "write_deployment"}
"""Functions in them that the node does not call, or whose errors become others."""

COUNTED = ("count", "took")
"""Methods of Health, whose names appear in /diagnostics."""


def text(page: str) -> str:
    """A page in one line, so that a message broken by the page's width is found."""
    return " ".join((DOCS / page).read_text().split())


@pytest.fixture(scope="module")
def node_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("node_docs", ROOT / "scripts" / "node_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parameters_are_documented_as_they_are_declared(node_docs: ModuleType) -> None:
    remedy = "run scripts/node_docs.py"
    for node, path in node_docs.FILES.items():
        assert path.read_text() == node_docs.parameter_file(node), remedy
    for path, nodes in node_docs.PAGES.items():
        page = path.read_text()
        assert page == node_docs.with_tables(page, nodes), remedy


def test_a_page_without_a_place_for_the_parameters_is_refused(node_docs: ModuleType) -> None:
    with pytest.raises(ValueError, match="no place for the parameters of localizer"):
        node_docs.with_tables("nothing", ["localizer"])


@pytest.mark.parametrize("state", RECORDER_LEVELS)
def test_states_of_the_recorder_are_documented(state: str) -> None:
    assert f"| `{state}` |" in text("record.md")


@pytest.mark.parametrize("state", ODOMETRY_LEVELS)
def test_states_of_visual_odometry_are_documented(state: str) -> None:
    assert f"| `{state}` |" in text("visual_odometry.md")


@pytest.mark.parametrize("state", LEVELS)
def test_states_are_documented(state: str) -> None:
    assert f"| `{state}` |" in text("node.md")
    assert f"`{state}`" in text("troubleshooting.md")


# ------------------------------------------------------------------------------------ topics and services


def interface(node: Any, kind: str) -> set[str]:
    """Names of a node's `publishers`, `subscriptions` or `services`; `~/` for what is below its own name."""
    name = "srv_name" if kind == "services" else "topic_name"
    names = {getattr(entity, name) for entity in getattr(node, kind)}
    return {re.sub(rf"^/?{node.get_name()}/", "~/", name) for name in names}


def test_topics_and_services_are_documented() -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        plain = LifecycleNode("plain", context=context)
        node = LocalizerNode(context=context, parameter_overrides=[Parameter("checkpoint", value="none")])
        Outputs(node)
        MapBroadcaster(node, TransformBroadcaster(node), 20.0, 0.1, 30.0)
        TransformListener(Buffer(), node)
        for use in ("accept", "publish"):
            InitialPose(node, use, print)
        for transport in ("raw", "compressed"):
            CameraInputs(node, transport, transport, "best_effort", Health(), print)
        page = text("node.md")
        for kind in ("publishers", "subscriptions", "services"):
            own = interface(node, kind) - interface(plain, kind)
            assert own
            for name in own:
                written = name if name in ("/tf", "/tf_static", "/diagnostics") else name.lstrip("/")
                assert f"`{written}`" in page, f"{kind}: {name} is not in docs/node.md"
        assert f"/{NAME}" in page
        node.destroy_node()
        plain.destroy_node()
    finally:
        context.try_shutdown()


def test_topics_and_services_of_the_recorder_are_documented(tmp_path: Path) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        plain = Node("plain", context=context)
        overrides = [Parameter("autostart", value=False), Parameter("output", value=str(tmp_path))]
        node = RecorderNode(context=context, parameter_overrides=overrides)
        page = text("record.md")
        for kind in ("publishers", "services"):
            own = interface(node, kind) - interface(plain, kind)
            assert own
            for name in own:
                assert f"`{name}`" in page, f"{kind}: {name} is not in docs/record.md"
        for transport in TRANSPORTS:
            for source in sources(transport, transport).values():
                assert f"`{source.name}`" in page
        node.destroy_node()
        plain.destroy_node()
    finally:
        context.try_shutdown()


def test_topics_of_visual_odometry_are_documented() -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        plain, node = Node("plain", context=context), Node("visual_odometry", context=context)
        VisualOdometryOutputs(node, "odom")
        for transport in IMAGE_TRANSPORTS:
            CameraInputs(node, transport, "none", "best_effort", Health(), print)
        page = text("visual_odometry.md")
        for kind in ("publishers", "subscriptions"):
            own = interface(node, kind) - interface(plain, kind)
            assert own
            for name in own:
                written = name if name == "/tf" else name.lstrip("/")
                assert f"`{written}`" in page, f"{kind}: {name} is not in docs/visual_odometry.md"
        node.destroy_node()
        plain.destroy_node()
    finally:
        context.try_shutdown()


# ------------------------------------------------------------------------------------------------ messages


def unsaid(node: ast.AST) -> list[ast.AST | None]:
    """Children of a node that no user is ever told."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in NEVER_SAID:
        return [node]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return [node]  # a docstring
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Spec", "Rule", *COUNTED):
        return [node]
    if isinstance(node, ast.Dict):
        return list(node.keys)
    if isinstance(node, ast.Subscript):
        return [node.slice]
    return [getattr(node, "annotation", None), getattr(node, "returns", None)]


def strings(node: ast.AST) -> Iterator[list[str]]:
    """The strings below a node that a user may be told, each as its constant parts."""
    skipped = unsaid(node)
    if node in skipped:
        return
    if isinstance(node, ast.JoinedStr):
        yield [part.value for part in node.values if isinstance(part, ast.Constant)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield [node.value]
    inner = [part.value for part in getattr(node, "values", []) if isinstance(part, ast.FormattedValue)]
    for child in inner if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node):
        if child not in skipped:
            yield from strings(child)


def words(part: str) -> int:
    """How many words there are, marks and signs not counted."""
    return sum(bool(re.search("[a-z]", word)) for word in part.split())


def fragments(path: Path) -> set[str]:
    """What is constant in a module's sentences: the parts of three words and more, else the longest."""
    found = set()
    for parts in strings(ast.parse(path.read_text())):
        cleaned = [" ".join(part.split()) for part in parts]
        if sum(map(words, cleaned)) >= 3:
            long = [part for part in cleaned if words(part) >= 3]
            found |= set(long or [max(cleaned, key=len)])
    return found


RECORDER = [
    *sorted((ROOT / "ofvl_ros").glob("recorder_*.py")),
    *(ROOT / "ofvl_core" / name for name in ("sharpness.py", "recording/writer.py")),
]
ODOMETRY = sorted((ROOT / "ofvl_ros").glob("visual_odometry_*.py"))
MODULES = [
    *RECORDER,
    *ODOMETRY,
    *sorted(path for path in (ROOT / "ofvl_ros").glob("*.py") if path not in [*RECORDER, *ODOMETRY]),
    *(ROOT / "ofvl_core" / f"{name}.py" for name in CORE),
]


def page_of(path: Path, otherwise: str) -> str:
    """The page that tells what a module says."""
    return "record.md" if path in RECORDER else "visual_odometry.md" if path in ODOMETRY else otherwise


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_are_documented(path: Path) -> None:
    name = page_of(path, "troubleshooting.md")
    missing = sorted(fragment for fragment in fragments(path) if fragment not in text(name))
    assert not missing, f"docs/{name} says nothing of {missing}"


def test_messages_are_found() -> None:
    told = set[str]().union(*map(fragments, MODULES))
    assert "nobody publishes it, start the camera or remap 'image'" in told  # returned
    assert "does not offer reliable delivery: set image_qos to best_effort" in told  # logged
    assert "the position is known to" in told
    assert "compressed image claims to be" in told  # raised
    assert not any("Subscribes" in fragment for fragment in told)


def test_diagnostics_are_documented() -> None:
    names = {
        (page_of(path, "node.md"), node.args[0].value)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in COUNTED
        and isinstance(node.args[0], ast.Constant)
    }
    assert {("node.md", "images received"), ("node.md", "decoding")} <= names
    for page, name in names:
        assert f"`{name}`" in text(page), f"docs/{page} says nothing of '{name}'"


# ------------------------------------------------------------------------------------------------ commands


def launch_arguments(name: str) -> set[str]:
    """The keys of all dictionaries in a launch file, and of the one it includes."""
    names = {name} if name == "record" else {"localize", name}
    trees = [ast.parse((ROOT / "launch" / f"{name}.launch.py").read_text()) for name in names]
    dictionaries = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    return {key.value for one in dictionaries for key in one.keys if isinstance(key, ast.Constant)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_launch_commands_exist(page: Path) -> None:
    whole = page.read_text().replace("\\\n", " ")
    for name, rest in re.findall(r"ros2 launch ofvl_ros (\w+)\.launch\.py(.*)", whole):
        given = set(re.findall(r"([\w.]+):=", rest.split("`")[0]))
        assert given <= launch_arguments(name), (page.name, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_other_commands_exist(page: Path) -> None:
    written = page.read_text().replace("\\\n", " ")
    parameters = {*PARAMETERS, *PLAYER_PARAMETERS, *RECORDER_PARAMETERS, *ODOMETRY_PARAMETERS}
    for line in written.splitlines():
        assert set(re.findall(r" -p (\w+):=", line)) <= parameters, line
        assert set(re.findall(r"param set /localizer (\w+)", line)) <= parameters, line
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    called = re.findall(r"(?m)^(?:ros2 run ofvl_ros |\.venv/bin/)?ofvl ([a-z][\w-]*)", written)
    assert set(called) <= known
