"""A node's parameters, declared from one table and checked whenever they are set."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from ofvl_core.errors import ConfigError

Value = bool | int | float | str


class Rule(NamedTuple):
    """Which values make sense: said in words, and as a function."""

    words: str
    holds: Callable[[Any], bool]


ANY = Rule("", lambda value: True)
ABOVE_ZERO = Rule("above 0", lambda value: value > 0)
POSITIVE = Rule("above 0, at most 1e6", lambda value: 0 < value <= 1e6)
NOT_NEGATIVE = Rule("from 0 to 1e6", lambda value: 0 <= value <= 1e6)
AT_LEAST_ONE = Rule("1 or above", lambda value: value >= 1)
SHARE = Rule("from 0 to 1", lambda value: 0 <= value <= 1)


def one_of(*names: str) -> Rule:
    """One of some names."""
    return Rule(f"one of {', '.join(names)}", lambda value: value in names)


class Spec(NamedTuple):
    """A parameter's default, its meaning, which values make sense, and whether it may change while in use."""

    default: Value
    description: str
    rule: Rule = ANY
    changeable: bool = False


def declare(node: Node, specs: dict[str, Spec], fixed: bool = False) -> None:
    """Declare all, `fixed` if none may ever change.

    Raises ConfigError for a value at start that is of the wrong type or makes no sense.
    """
    for name, spec in specs.items():
        descriptor = ParameterDescriptor(
            description=spec.description, additional_constraints=spec.rule.words, read_only=fixed
        )
        try:
            value = node.declare_parameter(name, spec.default, descriptor).value
        except (InvalidParameterTypeException, InvalidParameterValueException):
            kind = type(spec.default).__name__
            raise ConfigError(
                f"parameter {name} must be a {kind}: write it like the default, {spec.default!r}"
            ) from None
        if not spec.rule.holds(value):
            raise ConfigError(_refusal(name, value, spec))


def values(node: Node, specs: dict[str, Spec]) -> dict[str, Any]:
    """What all are set to."""
    return {name: node.get_parameter(name).value for name in specs}


def check(specs: dict[str, Spec], parameters: list[Parameter], in_use: bool) -> SetParametersResult:
    """Whether the parameters may be set so, with the reason if not: the body of a node's callback.

    `in_use` says whether the node has read those that are not `changeable`.
    """
    for parameter in parameters:
        spec = specs.get(parameter.name)
        if spec is None:
            continue
        reason = ""
        if in_use and not spec.changeable:
            reason = f"{parameter.name} is read when the node is configured: clean it up first"
        elif not spec.rule.holds(parameter.value):
            reason = _refusal(parameter.name, parameter.value, spec)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def _refusal(name: str, value: Value, spec: Spec) -> str:
    return f"{name} is {value!r}: it must be {spec.rule.words}"
