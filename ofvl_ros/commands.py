"""What the executables call. Ctrl-C while a node's imports run, which takes a second, ends without a word."""

import os
import signal


def localizer() -> int:
    """The localizer node as a process; its exit code."""
    _end_quietly()
    from ofvl_ros.localizer_node import main

    return main()


def bag_player() -> int:
    """The bag player as a process; its exit code."""
    _end_quietly()
    from ofvl_ros.bag_player import main

    return main()


def recorder() -> int:
    """The recorder node as a process; its exit code."""
    _end_quietly()
    from ofvl_ros.recorder_node import main

    return main()


def visual_odometry() -> int:
    """The visual odometry node as a process; its exit code."""
    _end_quietly()
    from ofvl_ros.visual_odometry_node import main

    return main()


def _end_quietly() -> None:
    """Until the node is there to end itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
