"""Keyframes described before they are needed."""

import threading

from ofvl_core.keyframes.album import Album

PAUSE = 0.002
"""Seconds between two, in which an image has its turn: up to Python 3.11 two threads cannot describe at once,
and one that went on without a pause would not let the other begin."""


class Ahead:
    """A thread that gets an album's keyframes ready: an image that waits for them comes too late."""

    def __init__(self, album: Album) -> None:
        self.album = album
        self._has_begun, self._is_stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=album.describe, args=(self._pause,), name="keyframes", daemon=True
        )
        self._thread.start()
        self._has_begun.wait()  # or the next image would not know that it need not wait for all

    def stop(self) -> None:
        """Return when it has ended: at most a keyframe later."""
        self._is_stopped.set()
        self._thread.join()

    def finish(self) -> None:
        """Return when all are ready."""
        self._thread.join()

    def _pause(self) -> bool:
        self._has_begun.set()
        return self._is_stopped.wait(PAUSE)
