"""Training runs from data set to checkpoint: joint training, adding a scene, resuming either."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ofvl_core.calibration import FEWEST, calibrated
from ofvl_core.checkpoint import (
    Manifest,
    SceneRecord,
    TrainingRecord,
    load_manifest,
    load_model,
    require_folder,
    save_checkpoint,
    save_keyframes,
)
from ofvl_core.checkpoint_folder import MANIFEST, read_tensors, require_empty, save_manifest
from ofvl_core.datasets import SceneData
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.device import place
from ofvl_core.errors import CheckpointError, ConfigError, DataError, OfvlError, WorkerError
from ofvl_core.keyframes import focal_words, remember
from ofvl_core.localizer import Localizer
from ofvl_core.network import OFVLMS
from ofvl_core.resize import input_camera
from ofvl_core.training.augmentation import BatchSource, scene_frame
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.gradients import make_combination
from ofvl_core.training.loop import HISTORY_LENGTH, Step, Surroundings, TrainingLoop
from ofvl_core.training.monitor import Monitor
from ofvl_core.training.optimisation import optimizer_tensors, restore_optimizer
from ofvl_core.training.packed import PackedFrames, pack_frames
from ofvl_core.training.trainer import Trainer
from ofvl_core.training.workers import Team, WorkerLostError, team_size, worker_device, worker_rank

log = logging.getLogger(__name__)

PREVIEWS = 20
"""Pictures of predictions that a monitored run leaves of every scene, under torchrun of worker 0's."""


def train(
    scenes: Sequence[SceneData],
    config: TrainConfig,
    out: Path,
    surroundings: Surroundings,
    *,
    resume: bool = False,
    kind: type[Trainer] = Trainer,
) -> bool:
    """Train one model on `scenes` and leave it as a checkpoint in `out`; True when it ran to its end.

    SIGINT or SIGTERM ends it after the current step with a checkpoint that `resume` continues; a crash
    loses at most a minute. Started by torchrun, its processes share the work. `kind` is the trainer whose
    steps these are. Raises CheckpointError when `out` holds a checkpoint and `resume` was not asked, or does
    not fit it, and when a worker is lost.
    """
    scenes = [scene.holding_out(config.holdout) for scene in scenes]
    if resume:
        manifest = resumed(scenes, config, out)
        if len(manifest.trainings) > 1:
            raise CheckpointError(f"{out} was adding a scene; continue it with ofvl add-scene --resume")
    else:
        require_empty(out)
        records = [scene_record(scene, config) for scene in scenes]
        record = TrainingRecord(scenes=[scene.name for scene in scenes], config=config)
        manifest = Manifest(architecture=config.network, scenes=records, trainings=[record])

    def make_model(device: torch.device) -> OFVLMS:
        if manifest.weights:
            return load_model(out, manifest, device)
        torch.manual_seed(config.seed)
        model = OFVLMS(manifest.architecture, [scene.name for scene in manifest.scenes])
        place(model, device)
        return model

    return run(manifest, make_model, scenes, out, surroundings, kind)


def scene_record(scene: SceneData, config: TrainConfig) -> SceneRecord:
    """What a checkpoint notes of a scene that is trained with `config`."""
    return SceneRecord(
        name=scene.name,
        camera=scene.camera,
        input_focal=scene.camera.fy * config.network.input_height / scene.camera.height,
        frames=len(scene.frames("train")),
        register_depth=config.register_depth,
    )


def run(
    manifest: Manifest,
    make_model: Callable[[torch.device], OFVLMS],
    scenes: Sequence[SceneData],
    out: Path,
    surroundings: Surroundings,
    kind: type[Trainer] = Trainer,
) -> bool:
    """Train the parameters that require gradients as the manifest's latest training says; see `train`.

    When that is done its scenes get keyframes, and its covariance is calibrated on what they hold out.
    `kind` is the trainer whose steps these are.
    """
    training = manifest.training
    if not training.finished:
        with _team(len(scenes), worker_device(surroundings.device), out) as team:
            watched = surroundings.monitor if team.rank == 0 else None
            monitor = Monitor(watched, training.iteration) if watched else None  # may not be writable
            frames = _load(manifest, scenes, team, surroundings)
            on_step = surroundings.on_step
            try:
                _Run(manifest, make_model(team.device), frames, out, team, monitor, on_step, kind).run()
            finally:
                if monitor is not None:
                    monitor.close()
    if training.finished and worker_rank() == 0:
        _remember(scenes, training.config.keyframes, out)
        _calibrate(scenes, out, surroundings.device)
    return training.finished


def _remember(scenes: Sequence[SceneData], most: int, out: Path) -> None:
    """Give the scenes of the checkpoint's latest training keyframes, where they have none yet."""
    manifest = load_manifest(out)
    albums = {}
    for scene in scenes:
        if most > 0 and manifest.scene(scene.name).keyframes is None:
            log.info("%s: choosing keyframes", scene.name)
            album = remember(scene, most)
            if album is None:
                log.info("%s: no frame has enough corners of known depth to be a keyframe", scene.name)
            else:
                albums[scene.name] = album
                log.info("%s: %d keyframes%s", scene.name, len(album), focal_words(album.focal_scale))
    if albums:
        save_keyframes(out, manifest, albums)


def _calibrate(scenes: Sequence[SceneData], out: Path, device: torch.device) -> None:
    """Calibrate the checkpoint's latest training, where that was not done and enough frames are held out."""
    training = load_manifest(out).training
    if training.calibration is not None or training.config.holdout == 0:
        return
    holding = [scene for scene in scenes if scene.splits[HOLDOUT]]
    count = sum(len(scene.splits[HOLDOUT]) for scene in holding)
    if count < FEWEST:
        log.info(
            "covariances are not calibrated: %d frames are held out, %d are needed; see ofvl calibrate",
            count,
            FEWEST,
        )
        return
    try:
        save_manifest(out, calibrated(Localizer(out, device.type), holding, HOLDOUT))
    except DataError as error:
        log.warning("covariances are not calibrated: %s", error)


@contextmanager
def _team(scene_count: int, device: torch.device, out: Path) -> Iterator[Team]:
    """The workers' team, which says who of several it was that failed."""
    try:
        team = Team(scene_count, device)
        try:
            yield team
        except WorkerLostError as lost:
            remedy = "start again"
            if (out / MANIFEST).exists():
                iteration = load_manifest(out).training.iteration
                remedy = f"{out} holds iteration {iteration}: {remedy} with --resume"
            raise CheckpointError(f"{lost}; {remedy}") from None
        except torch.OutOfMemoryError:
            raise ConfigError("the GPU's memory is full; lower batch_size or network.input_height") from None
        team.close()
    except OfvlError as error:
        if team_size() == 1:
            raise
        raise WorkerError(f"worker {worker_rank()}: {error}") from None


def _load(
    manifest: Manifest, scenes: Sequence[SceneData], team: Team, surroundings: Surroundings
) -> dict[int, PackedFrames]:
    """The frames of this worker's scenes, by their number."""
    total = sum(len(scenes[number].frames("train")) for number in team.scenes)
    done = 0

    def on_frame() -> None:
        nonlocal done
        done += 1
        surroundings.on_load(done, total)

    frames = {}
    for number in team.scenes:
        focal = manifest.scene(scenes[number].name).input_focal
        camera = input_camera(scenes[number].camera, focal, manifest.architecture.stride)
        frames[number] = pack_frames(scenes[number], camera, surroundings.cache, on_frame)
    return frames


class _Run(TrainingLoop):
    """The loop around `Trainer.step`."""

    record: TrainingRecord

    def __init__(
        self,
        manifest: Manifest,
        model: OFVLMS,
        frames: dict[int, PackedFrames],
        out: Path,
        team: Team,
        monitor: Monitor | None,
        on_step: Callable[[int, list[float]], None],
        kind: type[Trainer],
    ):
        self.manifest, self.record, self.schedule = manifest, manifest.training, manifest.training.config
        self.model, self.out, self.team = model, out, team
        self.monitor, self.on_step, self.alone = monitor, on_step, team.size == 1
        config, stride = self.record.config, manifest.architecture.stride
        done = torch.tensor([self.record.iteration], device=team.device)
        if team.sum(done).item() != team.size * self.record.iteration:
            raise CheckpointError(f"workers see different checkpoints in {out}; give all of them one folder")
        if self.record.iteration == 0:
            self._set_scene_frames(frames)
        team.start_equal(list(model.state_dict().values()))
        self.combination = make_combination(config.gradients, self.record.gradient_state)
        sources = {
            number: BatchSource(
                packed,
                config.batch_size,
                stride,
                config.augmentation,
                (config.seed, number, team.replica),
                team.device,
            )
            for number, packed in frames.items()
        }
        self.trainer = kind(model, self.record.scenes, sources, config, self.combination, team)
        if manifest.optimizer:
            restore_optimizer(model, self.trainer.optimizer, read_tensors(out / manifest.optimizer))

    def step(self, iteration: int, progress: float, stop: bool, seconds: float) -> Step:
        """Train on one batch of every scene."""
        return self.trainer.step(iteration, progress, stop, seconds)

    def note(self, losses: list[float]) -> None:
        """Keep the losses and scores for the checkpoint and the monitor."""
        super().note(losses)
        record = self.record
        scores = self.trainer.scores_by_layer()
        if scores:
            record.sharing.append([record.iteration, *(round(score, 8) for score in scores.values())])
        if self.monitor is None:
            return
        values = {f"loss/{name}": loss for name, loss in zip(record.scenes, losses, strict=True)}
        values["learning_rate"] = self.trainer.optimizer.param_groups[0]["lr"]
        self.monitor.scalars(record.iteration, values)
        self.monitor.scores(record.iteration, scores)
        if len(record.history) % max(1, HISTORY_LENGTH // PREVIEWS) == 0:
            for number in self.trainer.sources:
                batch, prediction = self.trainer.preview(number, record.iteration)
                self.monitor.prediction(record.iteration, record.scenes[number], batch, prediction)

    def _set_scene_frames(self, frames: dict[int, PackedFrames]) -> None:
        own = {}
        for number, packed in frames.items():
            centre, extent = scene_frame(packed, self.manifest.architecture.stride)
            own[number] = torch.tensor([*centre, extent], dtype=torch.float64, device=self.team.device)
        for name, values in zip(self.record.scenes, self.team.by_scene(own), strict=True):
            self.model.set_scene_frame(name, values[:3], values[3])

    def save(self) -> None:
        """Bring all workers' scenes together and write the checkpoint."""
        record, optimizer = self.record, self.trainer.optimizer
        record.gradient_state = self.combination.state
        state = {} if record.finished else optimizer_tensors(self.model, optimizer)
        if self.team.size > 1:
            self._gather(state)
        if self.team.rank == 0:
            save_checkpoint(self.out, self.manifest, self.model, state or None)

    def _gather(self, state: dict[str, torch.Tensor]) -> None:
        """Complete worker 0's model and optimiser `state` by the other workers' scenes."""
        own = {}
        for number in self.trainer.sources:
            tensors = self.model.scene_tensors(self.record.scenes[number])
            moments = {name: value for name, value in state.items() if name.partition(".")[2] in tensors}
            own[number] = {f"model.{name}": tensor.detach() for name, tensor in tensors.items()} | {
                f"optimizer.{name}": value for name, value in moments.items()
            }
        for number, tensors in self.team.gather(own).items():
            if number in own:
                continue
            weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
            unknown = self.model.load_state_dict(weights, strict=False).unexpected_keys
            assert not unknown, unknown
            state |= {
                n.removeprefix("optimizer."): t for n, t in tensors.items() if n.startswith("optimizer.")
            }


def resumed(scenes: Sequence[SceneData], config: TrainConfig, out: Path) -> Manifest:
    """The manifest in `out`, whose latest training is of these `scenes` and goes on with this `config`.

    That may be longer than it was; a finished run then learns again, at the rate that a run of the new
    length has there. Raises CheckpointError when the scenes or other settings differ.
    """
    require_folder(out, "resume")
    manifest = load_manifest(out)
    records = [manifest.scene(name) for name in manifest.training.scenes]
    known = [(record.name, record.frames, record.camera) for record in records]
    given = [(scene.name, len(scene.frames("train")), scene.camera) for scene in scenes]
    if known != given:
        names = ", ".join(manifest.training.scenes)
        raise CheckpointError(f"{out} was trained on other data ({names}); give the same scenes to resume")
    training = manifest.training
    if training.config == config:
        return manifest
    length = config.model_dump(include={"iterations", "max_minutes"})
    if training.config.model_copy(update=length) != config:
        raise CheckpointError(
            f"{out} was trained with other settings; to resume, give none but --iterations or --max-minutes"
        )
    done = training.iteration, training.seconds
    if any(done) and config.progress(*done) >= min(1.0, training.config.progress(*done)):
        raise CheckpointError(
            f"{out} has trained for {done[0]} iterations, {done[1] / 60:.1f} min, already, and this would "
            "make the run no longer; give more --iterations and --max-minutes"
        )
    training.config, training.finished, training.calibration = config, False, None
    for number, scene in enumerate(manifest.scenes):
        if scene.name in training.scenes:
            manifest.scenes[number] = scene.unprepared()
    return manifest
