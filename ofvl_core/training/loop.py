"""The loop of every training: schedule, history, checkpoints, stopping."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ofvl_core.checkpoint_folder import RunRecord
from ofvl_core.training.config import Optimisation
from ofvl_core.training.interruption import stop_signals

SECONDS_BETWEEN_CHECKPOINTS = 60.0
HISTORY_LENGTH = 200
"""Points kept of the loss curves, evenly spread over the schedule."""

TINY = 1e-9
"""What a share of whole steps may be off by rounding."""


class Step(NamedTuple):
    """What a step tells: its losses, whether somebody asked to stop, and the seconds trained so far."""

    losses: list[float]
    stop: bool
    seconds: float


@dataclass(frozen=True)
class Surroundings:
    """What a run is given beside data and settings, none of which changes the model it trains.

    `cache` keeps decoded frames for later runs; `monitor` is a folder for TensorBoard. `on_load` is called
    with the frames loaded and all there are, `on_step` with the iteration and its losses.
    """

    device: torch.device
    cache: Path | None = None
    monitor: Path | None = None
    on_load: Callable[[int, int], None] = lambda done, total: None
    on_step: Callable[[int, list[float]], None] = lambda iteration, losses: None


class TrainingLoop(ABC):
    """Trains from where `record` is to the end of `schedule`, or until SIGINT or SIGTERM.

    Processes that train together are not `alone`: they must all stop after the same step, which `step` says.
    """

    record: RunRecord
    schedule: Optimisation
    on_step: Callable[[int, list[float]], None]
    alone = True

    @abstractmethod
    def step(self, iteration: int, progress: float, stop: bool, seconds: float) -> Step:
        """Train on one batch; `progress` runs from 0 to 1. `stop` and `seconds` are this process's word."""

    @abstractmethod
    def save(self) -> None:
        """Write the checkpoint."""

    def note(self, losses: list[float]) -> None:
        """Keep what is to be remembered of a step: called for `HISTORY_LENGTH` of them."""
        self.record.history.append([self.record.iteration, *losses])

    def run(self) -> None:
        """Train; the record is `finished` when that came to its end. A run that was stopped is saved, too."""
        record, schedule = self.record, self.schedule
        stop, seconds = False, record.seconds
        saved_at, pause, just_saved = seconds, SECONDS_BETWEEN_CHECKPOINTS, False
        start = time.monotonic() - seconds

        def reached() -> int:
            return int(HISTORY_LENGTH * schedule.progress(record.iteration, seconds) + TINY)

        noted = reached()
        with stop_signals() as asked_to_stop:
            if record.iteration == 0:
                self.save()  # whatever happens, there is something to resume
            while not record.finished and not stop:
                progress = schedule.progress(record.iteration, seconds)
                if progress >= 1:
                    record.finished = True
                    break
                losses, stop, seconds = self.step(
                    record.iteration, progress, asked_to_stop.is_set(), time.monotonic() - start
                )
                record.iteration += 1
                record.finished = record.iteration == schedule.iterations
                if reached() > noted or record.finished:
                    noted = reached()
                    self.note(losses)
                self.on_step(record.iteration, losses)
                stop = stop or (self.alone and asked_to_stop.is_set())
                if just_saved:  # a large model takes long to save: not more than a twentieth of the time
                    pause = max(SECONDS_BETWEEN_CHECKPOINTS, 20 * (seconds - saved_at))
                just_saved = seconds - saved_at > pause and not record.finished
                if just_saved:
                    record.seconds = saved_at = seconds
                    self.save()
            record.seconds = seconds
            self.save()
