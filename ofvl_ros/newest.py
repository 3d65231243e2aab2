"""A worker that handles only the newest item."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestWorker(Generic[Item]):
    """One thread that calls `work` with the newest item put; items it had no time for are `dropped`.

    An exception in `work` goes to `failed`, and the worker goes on.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        failed: Callable[[Exception], None],
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._failed = failed
        self._dropped = dropped
        self._item: Item | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="newest-worker", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item; never blocks on the work."""
        with self._changed:
            if self._item is not None:
                self._dropped()
            self._item = item
            self._changed.notify()

    def close(self) -> None:
        """Drop what waits and return when the item in hand is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._item is not None)
                if self._closed:
                    return
                item, self._item = self._item, None
            try:
                self._work(item)  # type: ignore[arg-type]  # wait_for has seen that it is not None
            except Exception as error:
                self._failed(error)
