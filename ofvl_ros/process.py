"""One node, one process: from start to a clean end."""

import signal
from collections.abc import Callable
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node

from ofvl_core.errors import OfvlError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(name: str, create: Callable[[], Node], args: list[str] | None = None) -> int:
    """Spin the node that `create` makes until its context shuts down; return the process's exit code.

    The code is the node's `exit_code` where it has one, and 1 when `create` raises an OfvlError, which
    becomes one fatal line under the logger `name`. SIGINT and SIGTERM end the spin, however often they
    come. The process must end after this: it no longer listens to them.
    """
    # rclpy's handlers, which init installs over these, shut the context down; Python's own would besides
    # raise KeyboardInterrupt, wherever the clean-up happens to be.
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    rclpy.init(args=args)
    try:
        return _spin(create)
    except OfvlError as error:
        get_logger(name).fatal(str(error))
        return 1
    except Exception:
        if rclpy.ok():
            raise
        return 0  # stopped while starting
    finally:
        rclpy.try_shutdown()
        for number in SIGNALS:  # or a second Ctrl-C would kill the interpreter while it cleans up
            signal.signal(number, signal.SIG_IGN)


def _spin(create: Callable[[], Node]) -> int:
    node = create()
    try:
        with suppress(ExternalShutdownException):
            rclpy.spin(node)
    finally:
        node.destroy_node()
    return getattr(node, "exit_code", 0)
