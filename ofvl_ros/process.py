"""One node, one process: from start to a clean end."""

import signal
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.logging import get_logger

from ofvl_core.errors import OfvlError
from ofvl_ros import distro

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(name: str, create: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `create` makes until its context shuts down; return the process's exit code.

    The code is the node's `exit_code`, which spares it the spin where it is not 0 from the start, and 1 when
    `create` raises an OfvlError, which becomes one fatal line under the logger `name`. SIGINT and SIGTERM end
    the spin, however often they come. The process must end after this: it no longer listens to them.
    """
    # rclpy's handlers, which init installs over these, shut the context down; Python's own would besides
    # raise KeyboardInterrupt, wherever the clean-up happens to be.
    asked: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    rclpy.init(args=args)
    try:
        return 0 if asked else _spin(create)  # asked to end before rclpy listened
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


def _spin(create: Callable[[], Any]) -> int:
    node = create()
    try:
        if not node.exit_code:
            distro.spin(node)
    finally:
        node.destroy_node()
    return node.exit_code
