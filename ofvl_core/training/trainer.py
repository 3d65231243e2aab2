"""One step of joint training (paper Sec. 3.3): a batch of every scene, then one update of all parameters."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofvl_core.device import trains_in_bfloat16
from ofvl_core.errors import ConfigError
from ofvl_core.network import OFVLMS, Prediction
from ofvl_core.training.augmentation import Batch, BatchSource
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.gradients import Combination, Gradients
from ofvl_core.training.loop import Step
from ofvl_core.training.losses import reprojection_loss, scene_coordinate_loss, sharing_penalty
from ofvl_core.training.optimisation import (
    NOT_FINITE,
    distance_warmup,
    learning_rate,
    make_optimizer,
    reprojection_clamp,
)
from ofvl_core.training.workers import Team


class Trainer:
    """A model, where its scenes' batches come from, and its optimiser.

    `scenes` are the trained ones; parameters that do not require gradients stay as they are. `sources` are
    those of this worker's scenes, by their number in `scenes`.
    """

    def __init__(
        self,
        model: OFVLMS,
        scenes: Sequence[str],
        sources: dict[int, BatchSource],
        config: TrainConfig,
        combination: Combination,
        team: Team,
    ):
        self.model, self.scenes, self.sources = model, scenes, sources
        self.config, self.combination, self.team = config, combination, team
        self.optimizer = make_optimizer(model, config)
        self.device = next(model.parameters()).device
        self.mixed_precision = trains_in_bfloat16(config.precision, self.device)
        self.shared = [parameter for parameter in model.shared_parameters() if parameter.requires_grad]
        self.scores = [score for score in model.scores() if score.requires_grad]
        self.own = {scene: model.scene_parameters(scenes[scene]) for scene in sources}
        self.norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self.own_statistics = {scene: _statistics(self.norms, own) for scene, own in self.own.items()}
        self.shared_statistics = _statistics(self.norms, self.shared)
        for layer in model.scored_layers.values():
            layer.score_slope = float(config.score_slope)

    def step(self, iteration: int, progress: float, stop: bool = False, seconds: float = 0.0) -> Step:
        """Train on one batch of every scene; `progress` runs from 0 to 1 over the training.

        `stop` and `seconds` are this worker's word on what the returned `Step` tells all of them. Raises
        ConfigError, before the parameters learn of it, when a loss or gradient is not finite.
        """
        statistics_move = progress < self.config.statistics_rest
        scores_move = bool(self.scores) and progress < self.config.sharing_decided
        self._set_modes(statistics_move, scores_move)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, progress)
        self.optimizer.zero_grad(set_to_none=True)

        losses: dict[int, Tensor] = {}
        gradients: dict[int, Gradients] = {}
        score_gradients: dict[int, Tensor] = {}
        statistics: dict[int, Tensor] = {}
        before = [buffer.clone() for buffer in self.shared_statistics]
        selected: list[nn.Parameter] = []
        for scene, source in self.sources.items():
            if statistics_move and before:
                torch._foreach_copy_(self.shared_statistics, before)
            losses[scene] = self._backward(self.scenes[scene], source, iteration, progress, scores_move)
            selected = [parameter for parameter in self.shared if parameter.grad is not None]
            gradients[scene] = _take_gradients(selected)
            if scores_move:
                score_gradients[scene] = torch.stack(_take_gradients(self.scores))
            if statistics_move and before:
                moves = torch._foreach_sub(self.shared_statistics, before)
                statistics[scene] = torch.cat([move.flatten() for move in moves])
            own_gradients = [own.grad for own in self.own[scene] if own.grad is not None]
            self.team.mean_of_scene(scene, own_gradients)
            if statistics_move:
                self.team.mean_of_scene(scene, self.own_statistics[scene])

        if selected:
            combined = self.team.combine(gradients, self.combination)
            for parameter, gradient in zip(selected, combined, strict=True):
                parameter.grad = gradient
        if scores_move:
            for score, gradient in zip(self.scores, self.team.by_scene(score_gradients).mean(0), strict=True):
                score.grad = gradient
        if statistics:
            torch._foreach_copy_(self.shared_statistics, before)
            self._move_shared_statistics(self.team.by_scene(statistics).mean(0))
        step = self._agree(losses, stop, seconds, [*selected, *(self.scores if scores_move else [])])
        self.optimizer.step()
        return step

    def scores_by_layer(self) -> dict[str, float]:
        """The scores that are learned, by the name of their layer; none where they are frozen."""
        return (
            {name: layer.score.item() for name, layer in self.model.scored_layers.items()}
            if self.scores
            else {}
        )

    @torch.no_grad()
    def preview(self, scene: int, iteration: int) -> tuple[Batch, Prediction]:
        """A batch of one of this worker's scenes and what the model predicts for it now."""
        batch = self.sources[scene].batch(iteration)
        self.model.eval()
        return batch, self._predict(self.scenes[scene], batch)

    def _set_modes(self, statistics_move: bool, scores_move: bool) -> None:
        self.model.train()
        if not statistics_move:
            for norm in self.norms:
                norm.eval()
        for score in self.scores:
            score.requires_grad_(scores_move)

    def _predict(self, scene: str, batch: Batch) -> Prediction:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            return self.model(batch.images.to(memory_format=torch.channels_last), scene)

    def _backward(
        self, scene: str, source: BatchSource, iteration: int, progress: float, scores_move: bool
    ) -> Tensor:
        batch = source.batch(iteration)
        prediction = self._predict(scene, batch)
        loss = self._loss(prediction, batch, source, progress)
        penalty = self.config.penalty_weight * sharing_penalty(self.scores) if scores_move else 0.0
        (loss + penalty).backward()  # Eq. 3
        return loss.detach()

    def _loss(self, prediction: Prediction, batch: Batch, source: BatchSource, progress: float) -> Tensor:
        """What the cells of a batch of `source`, or some of them, are to learn from at `progress`."""
        distance_share = distance_warmup(self.config, progress)
        loss = scene_coordinate_loss(prediction, batch.coordinates, batch.valid, distance_share)
        clamp = reprojection_clamp(self.config, progress)
        if clamp is None:
            return loss
        return loss + reprojection_loss(prediction, batch, source.frames.input_camera.focal, clamp)

    def _move_shared_statistics(self, mean: Tensor) -> None:
        """Statistics that all scenes share move by the mean of what each scene alone would move them.

        In turn they would depend on the order of the scenes, and on who trains which.
        """
        parts = mean.split([buffer.numel() for buffer in self.shared_statistics])
        for buffer, part in zip(self.shared_statistics, parts, strict=True):
            buffer.add_(part.view_as(buffer))

    def _agree(
        self, losses: dict[int, Tensor], stop: bool, seconds: float, common: list[nn.Parameter]
    ) -> Step:
        """Exchange losses and control in one message, and clip the norm of the gradient of all parameters."""
        own = [own.grad for scene in self.sources for own in self.own[scene] if own.grad is not None]
        speaks = self.team.replica == 0
        count = len(self.scenes)
        message = torch.zeros(count + 3, dtype=torch.float64, device=self.device)
        for scene, loss in losses.items():
            message[scene] = loss / len(self.team.workers_of[scene])
        message[count] = _squared_norm(own) if speaks else 0.0
        message[count + 1] = float(stop)
        message[count + 2] = seconds if self.team.rank == 0 else 0.0
        message = self.team.sum(message)
        shared = [parameter.grad for parameter in common if parameter.grad is not None]
        norm = (message[count] + _squared_norm(shared)).sqrt()
        if self.config.gradient_clip is not None:
            scale = (self.config.gradient_clip / (norm + 1e-6)).clamp(max=1.0).float()
            torch._foreach_mul_([*own, *shared], scale)
        message[count] = norm
        *values, size, asked_to_stop, clock = message.tolist()
        if not math.isfinite(sum(values) + size):
            raise ConfigError(NOT_FINITE)
        return Step(values, asked_to_stop > 0, clock)


def _take_gradients(parameters: Sequence[nn.Parameter]) -> Gradients:
    """The gradients of one scene's backward pass, removed so that the next scene's start at nothing."""
    taken = []
    for parameter in parameters:
        assert parameter.grad is not None
        taken.append(parameter.grad)
        parameter.grad = None
    return taken


def _statistics(norms: Sequence[nn.BatchNorm2d], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Running statistics of the norms whose weight is among `parameters`."""
    known = {id(parameter) for parameter in parameters}
    chosen = [norm for norm in norms if id(norm.weight) in known]
    return [
        buffer for norm in chosen for buffer in (norm.running_mean, norm.running_var) if buffer is not None
    ]


def _squared_norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack(torch._foreach_norm(tensors)).double().square().sum()
