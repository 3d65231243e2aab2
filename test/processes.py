"""Commands and nodes as processes of their own, forked from one that has done their imports.

To import torch takes seconds, the same for each of the suite's hundred processes. A server that has imported
what they need, and done nothing else, is forked for each of them instead.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "pytest",
        "ofvl_core.cli",
        "ofvl_ros.bag_player",
        "ofvl_ros.localizer_node",
        "ofvl_ros.recorder_node",
        "ofvl_ros.visual_odometry_node",
    ]
)


class Forked:
    """`main()` with these words as its arguments, in this process's environment and what is added to it."""

    def __init__(self, main: Callable[[], int | None], *arguments: object, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forked-")
        self._said: list[str] = []
        self._written = [Path(self._folder.name) / name for name in ("output", "errors")]
        for path in self._written:
            path.touch()
        words = list(map(str, arguments))
        given = (main, words, os.environ | environment, Path.cwd(), self._written)
        self._process = _server.Process(target=_begin, args=given)
        self._process.start()

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._said = [self.output, self.errors]
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written to stdout so far."""
        return self._said[0] if self._said else self._written[0].read_text()

    @property
    def errors(self) -> str:
        """What it has written to stderr so far."""
        return self._said[1] if self._said else self._written[1].read_text()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60.0) -> int:
        """The exit code, the negative number of a signal that ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still runs after {seconds} s: {self.errors}"
        return self._process.exitcode


def _begin(
    main: Callable[[], int | None],
    arguments: list[str],
    environment: dict[str, str],
    folder: Path,
    written: list[Path],
) -> None:
    """What the fork does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(written, 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.argv[1:] = arguments
    sys.exit(main())


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal (Linux), as trainings do once they can be stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether the condition holds within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
