"""Humble and Jazzy: what differs is in one module, and what only Jazzy has is used nowhere."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

from ofvl_ros import distro

ROOT = Path(__file__).resolve().parent.parent

ONLY_JAZZY = {
    "add_post_set_parameters_callback",
    "add_pre_set_parameters_callback",
    "autostart",
    "configure_introspection",
    "count_clients",
    "count_services",
    "enable_logger_service",
    "get_fully_qualified_node_names",
    "get_logger_level",
    "get_publisher_count",
    "list_parameters",
    "logger_name",
    "parameter_dict_from_yaml_file",
    "qos_profile_best_available",
    "remove_done_callback",
    "service_name",
    "wait_for_node",
    "BEST_AVAILABLE",
}
"""Methods, arguments and constants of rclpy 7 that rclpy 3.3 lacks."""

ONLY_JAZZY_MODULES = {
    "rclpy.clock_type",
    "rclpy.event_handler",
    "rclpy.logging_service",
    "rclpy.parameter_client",
    "rclpy.parameter_event_handler",
    "rclpy.service_introspection",
    "rclpy.type_hash",
}


def jazzy_names(source: str) -> set[str]:
    """What of the above a module's source uses."""
    used = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Call):
            used |= {keyword.arg for keyword in node.keywords if keyword.arg}
        elif isinstance(node, ast.ImportFrom):
            used |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
    return used & (ONLY_JAZZY | ONLY_JAZZY_MODULES)


def test_what_only_jazzy_has_is_seen() -> None:
    source = (
        "import rclpy.type_hash\nfrom rclpy.clock_type import ClockType\nnode.wait_for_node(autostart=True)"
    )
    assert jazzy_names(source) == {"rclpy.type_hash", "rclpy.clock_type", "wait_for_node", "autostart"}


@pytest.mark.parametrize("path", sorted((ROOT / "ofvl_ros").glob("*.py")), ids=lambda path: path.stem)
def test_what_only_jazzy_has_is_not_used(path: Path) -> None:
    if path.stem != "distro":
        assert not jazzy_names(path.read_text())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_humble_has_its_events_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = distro.SubscriptionEventCallbacks
    pytest.importorskip("rclpy.qos_event")  # Jazzy still has Humble's module, as another name of its own
    monkeypatch.setitem(sys.modules, "rclpy.event_handler", None)
    try:
        assert importlib.reload(distro).SubscriptionEventCallbacks is expected
    finally:
        monkeypatch.undo()
        importlib.reload(distro)
