"""Joint training on several scenes: every step sees one batch of each."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ofvl_core.checkpoint import (
    Manifest,
    SceneRecord,
    TrainingRecord,
    load_manifest,
    load_model,
    read_tensors,
    save_checkpoint,
)
from ofvl_core.datasets import SceneData
from ofvl_core.device import has_fast_bfloat16, place
from ofvl_core.errors import CheckpointError
from ofvl_core.network import ARCHITECTURES, OFVLMS
from ofvl_core.resize import input_camera
from ofvl_core.training.augmentation import cell_targets, draw_batch, unwarped
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.gradients import GradientNormalisation, Gradients
from ofvl_core.training.losses import scene_coordinate_loss, sharing_penalty
from ofvl_core.training.memory import SceneMemory
from ofvl_core.training.optimisation import (
    distance_warmup,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)

SECONDS_BETWEEN_CHECKPOINTS = 60.0
HISTORY_LENGTH = 200
"""Points kept of the loss curves."""


class Trainer:
    """A model, its scenes' frames and its optimiser; `step` is one iteration of the joint training.

    Random numbers of an iteration depend on the seed, the scene and the iteration alone, so a resumed
    run draws what an uninterrupted one would have drawn.
    """

    def __init__(
        self,
        model: OFVLMS,
        memories: dict[str, SceneMemory],
        config: TrainConfig,
        combine: GradientNormalisation,
    ):
        self.model = model
        self.memories = memories
        self.config = config
        self.combine = combine
        self.optimizer = make_optimizer(model, config)
        self.layers = list(model.scored_layers.values())
        self.norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self.device = next(model.parameters()).device
        self.mixed_precision = has_fast_bfloat16(self.device)

    def step(self, iteration: int, progress: float) -> list[float]:
        """Train on one batch of every scene; returns the scene coordinate losses (Eq. 4)."""
        self.model.train()
        if progress >= self.config.statistics_rest:
            for module in self.norms:
                module.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, progress)
        self.optimizer.zero_grad(set_to_none=True)
        shared = [layer.shared for layer in self.layers if layer.is_shared]
        losses, gradients = [], []
        for number, scene in enumerate(self.memories):
            random = np.random.default_rng((self.config.seed, number, iteration))
            losses.append(self._backward(scene, progress, random))
            gradients.append(_take_gradients(shared))
        for parameter, gradient in zip(shared, self.combine(gradients) if shared else [], strict=True):
            parameter.grad = gradient
        scores = [layer.score for layer in self.layers]
        for score, gradient in zip(scores, _take_gradients(scores), strict=True):
            if progress < self.config.sharing_decided:
                score.grad = gradient / len(self.memories)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        return torch.stack(losses).tolist()

    def _backward(self, scene: str, progress: float, random: np.random.Generator) -> torch.Tensor:
        memory, config = self.memories[scene], self.config
        batch = draw_batch(
            memory, config.batch_size, self.model.architecture.stride, config.augmentation, random
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            prediction = self.model(batch.images.to(memory_format=torch.channels_last), scene)
        distance_share = distance_warmup(config, progress)
        loss = scene_coordinate_loss(prediction, batch.coordinates, batch.valid, distance_share)
        penalty = sharing_penalty(layer.score for layer in self.layers)
        (loss + config.penalty_weight * penalty).backward()  # Eq. 3
        return loss.detach()


def _take_gradients(parameters: Iterable[nn.Parameter]) -> Gradients:
    """The gradients of one scene's backward pass, removed so that the next scene's start at nothing."""
    taken = []
    for parameter in parameters:
        assert parameter.grad is not None
        taken.append(parameter.grad)
        parameter.grad = None
    return taken


def train(
    scenes: list[SceneData],
    config: TrainConfig,
    out: Path,
    *,
    device: torch.device,
    resume: bool = False,
    on_load: Callable[[], None] = lambda: None,
    on_step: Callable[[int, list[float]], None] = lambda iteration, losses: None,
) -> bool:
    """Train one model on `scenes` and leave it as a checkpoint in `out`; True when it ran to its end.

    SIGINT or SIGTERM ends it after the current step with a checkpoint that `resume` continues; a crash
    loses at most a minute. `on_load` is called for every frame loaded, `on_step` after every iteration.
    Raises CheckpointError when `out` holds a checkpoint and `resume` was not asked, or does not fit it.
    """
    manifest = _resumed(scenes, config, out) if resume else _fresh(scenes, config, out)
    record = manifest.training
    if record.finished:
        return True
    stride = manifest.architecture.stride
    memories = {
        data.name: SceneMemory(data, input_camera(data.camera, scene.input_focal, stride), device, on_load)
        for data, scene in zip(scenes, manifest.scenes, strict=True)
    }
    model = load_model(out, manifest, device) if manifest.weights else _new_model(manifest, memories, device)
    combine = GradientNormalisation(record.gradient_norms)
    trainer = Trainer(model, memories, config, combine)
    if manifest.optimizer:
        restore_optimizer(model, trainer.optimizer, read_tensors(out / manifest.optimizer))

    clock = _Clock(record.seconds)
    saved_at = clock.seconds()
    every = max(1, config.iterations // HISTORY_LENGTH)

    def save() -> None:
        record.seconds = clock.seconds()
        record.gradient_norms = combine.previous_norms
        optimizer = None if record.finished else optimizer_tensors(model, trainer.optimizer)
        save_checkpoint(out, manifest, model, optimizer)

    with _stop_signals() as stopped:
        while not record.finished and not stopped.is_set():
            progress = record.iteration / config.iterations
            if config.max_minutes is not None:
                progress = max(progress, clock.seconds() / 60 / config.max_minutes)
            if progress >= 1:
                record.finished = True
                break
            losses = trainer.step(record.iteration, progress)
            if not np.isfinite(losses).all():
                raise CheckpointError(
                    f"the loss is NaN at iteration {record.iteration}; train again with a lower learning rate"
                )
            record.iteration += 1
            record.finished = record.iteration == config.iterations
            if record.iteration % every == 0 or record.finished:
                record.history.append([record.iteration, *losses])
            on_step(record.iteration, losses)
            if clock.seconds() - saved_at > SECONDS_BETWEEN_CHECKPOINTS and not record.finished:
                save()
                saved_at = clock.seconds()
    save()
    return record.finished


def _fresh(scenes: list[SceneData], config: TrainConfig, out: Path) -> Manifest:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(
            f"{out} exists and is not empty; add --resume to continue it, or choose another --out"
        )
    architecture = ARCHITECTURES[config.model]
    records = [
        SceneRecord(
            name=scene.name,
            camera=scene.camera,
            input_focal=scene.camera.fy * architecture.input_height / scene.camera.height,
            frames=len(scene.frames("train")),
        )
        for scene in scenes
    ]
    return Manifest(
        model=config.model, architecture=architecture, scenes=records, training=TrainingRecord(config=config)
    )


def _resumed(scenes: list[SceneData], config: TrainConfig, out: Path) -> Manifest:
    manifest = load_manifest(out)
    known = [(scene.name, scene.frames, scene.camera) for scene in manifest.scenes]
    given = [(scene.name, len(scene.frames("train")), scene.camera) for scene in scenes]
    if known != given:
        names = ", ".join(name for name, _, _ in known)
        raise CheckpointError(f"{out} was trained on other data ({names}); give the same scenes to resume")
    if manifest.training.config != config:
        raise CheckpointError(
            f"{out} was trained with other settings; leave the options out to resume with its own"
        )
    return manifest


def _new_model(manifest: Manifest, memories: dict[str, SceneMemory], device: torch.device) -> OFVLMS:
    torch.manual_seed(manifest.training.config.seed)
    model = OFVLMS(manifest.architecture, [scene.name for scene in manifest.scenes])
    place(model, device)
    for scene, memory in memories.items():
        model.set_scene_frame(scene, *_mean_and_deviation(memory, manifest.architecture.stride))
    return model


def _mean_and_deviation(memory: SceneMemory, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (3,) and root-mean-square distance from it (), in metres, of the frames' scene coordinates."""
    warp = torch.tensor(unwarped(memory.input_camera, memory.camera)).float().to(memory.device)
    warps = warp.expand(len(memory), 2, 3)
    coordinates, valid = cell_targets(
        memory.depths, memory.world_from_camera, memory.camera, memory.input_camera, warps, stride
    )
    points = coordinates.movedim(1, -1)[valid[:, 0]]
    mean = points.mean(dim=0)
    return mean, (points - mean).norm(dim=1).square().mean().sqrt()


class _Clock:
    """Seconds of training, those before a resume included."""

    def __init__(self, already: float):
        self._start = time.monotonic() - already

    def seconds(self) -> float:
        return time.monotonic() - self._start


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal acts as usual."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        stopped.set()
        restore()

    for number in previous:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()
