"""The processes that render."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import cv2


@contextmanager
def worker_pool(workers: int | None) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, all cores without a number, started afresh: a fork would copy the locks of the
    caller's threads.

    On the way out, also by an error or Ctrl-C, what has not begun is dropped and what runs is waited for.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism
    # A terminal's Ctrl-C reaches all processes: the parent alone ends the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
