"""Keyframes described before they are needed."""

import threading

from ofvl_core.keyframes.album import Album


class Ahead:
    """A thread that gets an album's keyframes ready: an image that waits for them comes too late."""

    def __init__(self, album: Album) -> None:
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(
            target=album.describe, args=(self._is_stopped.is_set,), name="keyframes", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Return when it has ended: at most a keyframe later."""
        self._is_stopped.set()
        self._thread.join()
