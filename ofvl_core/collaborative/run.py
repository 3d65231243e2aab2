"""A collaborative training from videos to checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ofvl_core.checkpoint_folder import read_tensors, require_empty, save_folder
from ofvl_core.collaborative.accuracy import with_accuracy
from ofvl_core.collaborative.architecture import STRIDE
from ofvl_core.collaborative.checkpoint import (
    Manifest,
    SceneRecord,
    TrainingRecord,
    load_manifest,
    load_model,
    make_model,
)
from ofvl_core.collaborative.config import CollaborativeConfig, Stage
from ofvl_core.collaborative.model import CollaborativeModel
from ofvl_core.collaborative.resnet import load_imagenet
from ofvl_core.collaborative.splits import held_out
from ofvl_core.collaborative.trainer import Trainer
from ofvl_core.collaborative.video import Video, pack_video
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.device import place
from ofvl_core.errors import CheckpointError
from ofvl_core.resize import input_camera
from ofvl_core.training.loop import Step, Surroundings, TrainingLoop
from ofvl_core.training.optimisation import optimizer_tensors, restore_optimizer

BALANCE = "balance."
"""What the balances of Eq. 7 are called beside the optimiser's state: they are of no use but to resume."""


def train(
    scenes: Sequence[SceneData],
    config: CollaborativeConfig,
    out: Path,
    surroundings: Surroundings,
    *,
    resume: bool = False,
    start: Callable[[CollaborativeModel], None] = lambda model: None,
) -> bool:
    """Train one model on the videos of `scenes` and leave it as a checkpoint in `out`; True when it ran to
    its end, False when SIGINT or SIGTERM stopped it. What `held_out` takes away is not trained on.

    `start` is given the new model before anything is learned. Raises CheckpointError when `out` holds a
    checkpoint and `resume` was not asked, or does not fit it; DataError for data that cannot be trained on.
    """
    scenes = [held_out(scene) for scene in scenes]
    records = [scene_record(scene, config) for scene in scenes]
    if resume:
        manifest = load_manifest(out)
        _require_same(manifest, records, config, out)
    else:
        require_empty(out)
        manifest = Manifest(
            architecture=config.network, scenes=records, training=TrainingRecord(config=config)
        )
    if not manifest.training.finished:
        videos = _load(scenes, manifest, surroundings)
        if manifest.weights:
            model = load_model(out, manifest, surroundings.device)
        else:
            torch.manual_seed(config.seed)
            model = make_model(manifest)
            start(model)
            if model.global_pose_net is not None:
                for scene, by_stage in zip(scenes, videos, strict=True):
                    positions = next(iter(by_stage.values())).frames.world_from_camera[:, :3, 3]
                    spread = float(np.sqrt(np.square(positions - positions.mean(axis=0)).sum(axis=1).mean()))
                    centre = torch.tensor(positions.mean(axis=0), dtype=torch.float32)
                    model.global_pose_net.set_scene_frame(scene.name, centre, torch.tensor(spread))
            place(model, surroundings.device)
        _Run(manifest, model, videos, out, surroundings).run()
    if manifest.training.finished and any(record.accuracy is None for record in manifest.scenes):
        with_accuracy(out, scenes, surroundings.device)
    return manifest.training.finished


def start_from_imagenet(resnet18: Path | None, resnet34: Path | None) -> Callable[[CollaborativeModel], None]:
    """What `train` is to begin with: ImageNet's weights in the encoders, of which a file is given."""

    def start(model: CollaborativeModel) -> None:
        if resnet18 is not None:
            load_imagenet(model.depth_net.encoder, resnet18)
            load_imagenet(model.local_pose_net.encoder, resnet18)
        if resnet34 is not None and model.global_pose_net is not None:
            load_imagenet(model.global_pose_net.encoder, resnet34)

    return start


def scene_record(scene: SceneData, config: CollaborativeConfig) -> SceneRecord:
    """What a checkpoint notes of a scene that is trained with `config`."""
    frames = scene.frames("train")
    return SceneRecord(
        name=scene.name,
        camera=scene.camera,
        input_focal=input_focal(scene, config.collaboration),
        frames=len(frames),
        interval=_interval(frames),
    )


def _interval(frames: Sequence[Frame]) -> float:
    """Median time in seconds between successive frames of a sequence."""
    gaps = [b.timestamp - a.timestamp for a, b in pairwise(frames) if a.sequence == b.sequence]
    return float(np.median(gaps)) if gaps else 0.0


def input_focal(scene: SceneData, stage: Stage) -> float:
    """Vertical focal length at which a stage sees a scene, pixels."""
    camera = scene.camera
    return float(camera.fy * np.sqrt(stage.input_pixels / (camera.width * camera.height)))


def _load(
    scenes: Sequence[SceneData], manifest: Manifest, surroundings: Surroundings
) -> list[dict[Stage, Video]]:
    """Of every scene its video at the input size of each stage; the frames are decoded once."""
    config = manifest.training.config
    stages = sorted({config.pretraining, config.collaboration}, key=lambda stage: stage.input_pixels)
    total, done = sum(len(scene.frames("train")) for scene in scenes), 0

    def on_frame() -> None:
        nonlocal done
        done += 1
        surroundings.on_load(done, total)

    videos = []
    for scene in scenes:
        cameras = {stage: input_camera(scene.camera, input_focal(scene, stage), STRIDE) for stage in stages}
        largest = pack_video(scene, cameras[stages[-1]], surroundings.cache, on_frame)
        videos.append(
            {
                stage: replace(largest, frames=replace(largest.frames, input_camera=camera))
                for stage, camera in cameras.items()
            }
        )
    return videos


class _Run(TrainingLoop):
    """The loop around `Trainer.step`."""

    record: TrainingRecord

    def __init__(
        self,
        manifest: Manifest,
        model: CollaborativeModel,
        videos: Sequence[dict[Stage, Video]],
        out: Path,
        surroundings: Surroundings,
    ):
        self.manifest, self.record, self.schedule = manifest, manifest.training, manifest.training.config
        self.model, self.out, self.on_step = model, out, surroundings.on_step
        self.trainer = Trainer(model, videos, self.schedule, surroundings.device)
        if manifest.optimizer:
            tensors = read_tensors(out / manifest.optimizer)
            balance = {name: tensors.pop(BALANCE + name) for name in self._balance()}
            self.trainer.learner.load_state_dict(balance, strict=False)
            restore_optimizer(self.trainer.learner, self.trainer.optimizer, tensors)

    def step(self, iteration: int, progress: float, stop: bool, seconds: float) -> Step:
        """Train on one batch."""
        losses = self.trainer.step(iteration, progress)
        return Step([loss.item() for loss in losses], stop, seconds)

    def save(self) -> None:
        """Write the checkpoint."""
        optimizer = None
        if not self.record.finished:
            balance = {BALANCE + name: value for name, value in self._balance().items()}
            optimizer = optimizer_tensors(self.trainer.learner, self.trainer.optimizer) | balance
        save_folder(self.out, self.manifest, self.model.state_dict(), optimizer)

    def _balance(self) -> dict[str, torch.Tensor]:
        state = self.trainer.learner.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("model.")}


def _require_same(
    manifest: Manifest, records: Sequence[SceneRecord], config: CollaborativeConfig, out: Path
) -> None:
    known = [record.model_copy(update={"accuracy": None}) for record in manifest.scenes]
    if known != list(records):
        names = ", ".join(record.name for record in known)
        raise CheckpointError(f"{out} was trained on other data ({names}); give the same scenes to resume")
    if manifest.training.config != config:
        raise CheckpointError(
            f"{out} was trained with other settings; leave the options out to resume with its own"
        )
