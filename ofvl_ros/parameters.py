"""A node's parameters, declared from one table."""

from typing import Any, NamedTuple

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node

from ofvl_core.errors import ConfigError


class Spec(NamedTuple):
    """A parameter's default, what it does, and whether it may change while the node runs."""

    default: bool | float | str
    description: str
    changeable: bool = False


def declare(node: Node, specs: dict[str, Spec]) -> dict[str, Any]:
    """Declare all and return their values at start. Raises ConfigError for a value of the wrong type."""
    values = {}
    for name, spec in specs.items():
        descriptor = ParameterDescriptor(description=spec.description, read_only=not spec.changeable)
        try:
            values[name] = node.declare_parameter(name, spec.default, descriptor).value
        except InvalidParameterTypeException:
            kind = type(spec.default).__name__
            raise ConfigError(
                f"parameter {name} must be a {kind}: write it like the default, {spec.default!r}"
            ) from None
    return values
