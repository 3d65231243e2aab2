"""How a new scene is trained beside frozen ones: all that is its own, and in the end its head alone.

Where the head looks at single cells, the backbone rests for the last `SHARE` of the schedule, and the head
goes on with the cells of a `FeatureBuffer`. Losses and learning rate run through both parts as through a
training of its own.
"""

import math
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofvl_core.network import Prediction
from ofvl_core.network.sharing import scene_key
from ofvl_core.training.feature_buffer import FeatureBuffer, fill_buffer
from ofvl_core.training.loop import Step
from ofvl_core.training.optimisation import learning_rate
from ofvl_core.training.trainer import Trainer

SHARE = 0.5
"""Of the schedule, in which the head is trained alone."""

FILLING = 0.25
"""Of that share, at most, in which the buffer is filled when time is limited."""

STEPS = 4
"""Updates of the head in one iteration, which together take about as long as one of the whole network."""

CELLS_A_STEP = 2048


class NewSceneTrainer(Trainer):
    """A `Trainer` whose scenes' heads go on alone after the first part of the schedule."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self._cells: dict[int, FeatureBuffer] = {}
        """Of this worker's scenes, from when the backbone has come to rest."""

    def step(self, iteration: int, progress: float, stop: bool = False, seconds: float = 0.0) -> Step:
        """Train on a batch of every scene, or later on cells of all its views; see `Trainer.step`."""
        together = 1 - SHARE if self.model.architecture.head_kernel == 1 else 1.0
        if progress < together:
            return super().step(iteration, progress / together, stop, seconds)
        return self._train_heads(iteration, (progress - together) / SHARE, stop, seconds)

    def _train_heads(self, iteration: int, progress: float, stop: bool, seconds: float) -> Step:
        """Update the heads; `progress` runs from 0 to 1 over their part of the schedule."""
        self.model.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, progress)
        if not self._cells:
            self._cells = self._filled(seconds)
        rows = {scene: self._rows(scene, iteration) for scene in self.sources}
        for update in range(STEPS):
            self.optimizer.zero_grad(set_to_none=True)
            losses = {
                scene: self._backward_head(scene, chosen[update], progress) for scene, chosen in rows.items()
            }
            step = self._agree(losses, stop, seconds, [])
            self.optimizer.step()
        return step

    def _rows(self, scene: int, iteration: int) -> Tensor:
        """Random cells (STEPS, CELLS_A_STEP) of a scene's buffer."""
        random = np.random.default_rng((*self.sources[scene].seed, iteration))
        rows = random.integers(len(self._cells[scene].features), size=(STEPS, CELLS_A_STEP))
        return torch.from_numpy(rows).to(self.device)

    def _filled(self, seconds: float) -> dict[int, FeatureBuffer]:
        """The cells of this worker's scenes, after so many seconds of training."""
        limit = math.inf
        if self.config.max_minutes is not None:
            whole = 60 * self.config.max_minutes
            limit = time.monotonic() + min(whole * SHARE * FILLING, whole - seconds)
        drawn = self.config.iterations * SHARE * STEPS * CELLS_A_STEP

        def enough(cells: int) -> bool:
            return time.monotonic() > limit or cells >= drawn

        return {
            scene: fill_buffer(source, partial(self._features, self.scenes[scene]), enough)
            for scene, source in self.sources.items()
        }

    def _features(self, scene: str, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            return self.model.backbone(images.to(memory_format=torch.channels_last), scene)

    def _backward_head(self, scene: int, rows: Tensor, progress: float) -> Tensor:
        features, batch = self._cells[scene].gather(rows)
        self.model.head.modules_by_scene[scene_key(self.scenes[scene])].train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            output = self.model.regress(
                features if self.mixed_precision else features.float(), self.scenes[scene]
            )
        prediction = Prediction(*(part[0].permute(2, 0, 1)[..., None] for part in output))
        loss = self._loss(prediction, batch, self.sources[scene], progress)
        loss.backward()
        self.team.mean_of_scene(scene, [own.grad for own in self.own[scene] if own.grad is not None])
        self.team.mean_of_scene(scene, self.own_statistics[scene])
        return loss.detach()
