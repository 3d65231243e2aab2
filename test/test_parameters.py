"""Parameters declared and checked from a table."""

from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from ofvl_core.errors import ConfigError
from ofvl_ros.parameters import POSITIVE, SHARE, Spec, check, declare, one_of, values

SPECS = {
    "rate": Spec(2.0, "Hz", POSITIVE),
    "share": Spec(0.5, "of all", SHARE, changeable=True),
    "mode": Spec("slow", "how", one_of("slow", "fast"), changeable=True),
}


@pytest.fixture
def context() -> Iterator[rclpy.Context]:
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    context.try_shutdown()


def declared(context: rclpy.Context, **overrides: Any) -> Node:
    parameters = [Parameter(name, value=value) for name, value in overrides.items()]
    node = Node("test", context=context, parameter_overrides=parameters)
    declare(node, SPECS)
    return node


def test_values_are_those_given_and_else_the_defaults(context: rclpy.Context) -> None:
    assert values(declared(context, rate=5.0), SPECS) == {"rate": 5.0, "share": 0.5, "mode": "slow"}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"rate": 0.0}, "rate is 0.0: it must be above 0, at most 1e6"),
        ({"rate": float("nan")}, "rate is nan: it must be above 0, at most 1e6"),
        ({"rate": 5}, "parameter rate must be a float: write it like the default, 2.0"),
        ({"mode": "quick"}, "mode is 'quick': it must be one of slow, fast"),
    ],
)
def test_nonsense_at_start_is_one_sentence(
    context: rclpy.Context, overrides: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        declared(context, **overrides)


@pytest.mark.parametrize(
    ("name", "value", "in_use", "reason"),
    [
        ("share", 0.7, True, ""),
        ("share", 1.5, True, "share is 1.5: it must be from 0 to 1"),
        ("share", 1.5, False, "share is 1.5: it must be from 0 to 1"),
        ("rate", 3.0, False, ""),
        ("rate", 3.0, True, "rate is read when the node is configured: clean it up first"),
        ("use_sim_time", True, True, ""),
    ],
)
def test_changes_are_checked_with_reasons(name: str, value: Any, in_use: bool, reason: str) -> None:
    result = check(SPECS, [Parameter(name, value=value)], in_use)
    assert (result.successful, result.reason) == (not reason, reason)
