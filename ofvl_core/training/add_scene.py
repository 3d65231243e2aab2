"""A scene that joins a trained model (paper Sec. 4.6).

Everything in the model stays as it is, bit by bit: what the scenes share, and what is theirs alone. The new
scene's own parameters start, in the backbone, from those of the scene that it resembles most. Its head starts
anew: that scene's coordinates are none of its own, and to unlearn them takes longer than to learn.
"""

import logging
from pathlib import Path

import torch

from ofvl_core.checkpoint import (
    TrainingRecord,
    load_keyframes,
    load_manifest,
    load_model,
    require_finished,
    save_keyframes,
)
from ofvl_core.checkpoint_folder import require_empty
from ofvl_core.datasets import SceneData
from ofvl_core.device import place
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.network import OFVLMS
from ofvl_core.training.config import TrainConfig
from ofvl_core.training.head_training import NewSceneTrainer
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.nearest import divergences
from ofvl_core.training.run import resumed, run, scene_record
from ofvl_core.training.workers import worker_device, worker_rank

log = logging.getLogger(__name__)


def add_scene(
    checkpoint: Path,
    scene: SceneData,
    config: TrainConfig,
    out: Path,
    surroundings: Surroundings,
    *,
    share_with: str | None = None,
    alone: bool = False,
    resume: bool = False,
) -> bool:
    """Add `scene` to the model in `checkpoint`, a folder or a deployment file, and leave that in `out`.

    True when training ran to its end; it stops and resumes as `training.run.train` does. `checkpoint` stays
    as it is. With `share_with` the new scene uses that scene's specific convolutions, without a copy, and its
    normalisation and attention start like that scene's; else all of them start like those of the nearest
    scene by `divergences`. `alone` leaves the scenes of `checkpoint` out of the new model.

    Raises CheckpointError when `checkpoint` is unfinished or lacks `share_with`, and for `out` as `train`
    does; ConfigError when `config` asks for another network, the scene's name is taken, or the scene is to
    share with one that is left out.
    """
    scene = scene.holding_out(config.holdout)
    base = load_manifest(checkpoint)
    require_finished(checkpoint, base)
    if config.network != base.architecture:
        raise ConfigError(
            f"the network of the settings is not that of {checkpoint}, which a new scene cannot change; "
            "leave out the preset and settings of the network"
        )
    if alone and share_with is not None:
        raise ConfigError(f"the scenes of {checkpoint} stay out of the new model; leave out --share-with")
    owner = None if share_with is None else base.scene(share_with).shares_with or share_with
    others = [] if alone else base.scenes
    device = worker_device(surroundings.device)
    if resume:
        manifest = resumed([scene], config, out)
        *known, added = manifest.scenes
        same_scenes = [one.unprepared() for one in known] == [one.unprepared() for one in others]
        same_trainings = [one.identity for one in manifest.trainings[:-1]] == [
            one.identity for one in base.trainings
        ]
        if not (same_scenes and same_trainings and added.shares_with == owner):
            raise CheckpointError(
                f"{out} was begun from another checkpoint or --share-with; give the same ones to resume"
            )
        model = load_model(out, manifest, device)
    else:
        require_empty(out)
        if any(scene.name == record.name for record in base.scenes):
            raise ConfigError(
                f"{checkpoint} has a scene '{scene.name}' already; give the new folder another name"
            )
        record = scene_record(scene, config).model_copy(update={"shares_with": owner})
        training = TrainingRecord(scenes=[scene.name], config=config)
        manifest = base.model_copy(
            update={
                "scenes": [*(other.model_copy(update={"keyframes": None}) for other in others), record],
                "trainings": [*base.trainings, training],
            }
        )
        model = load_model(checkpoint, base, device)
        _add(model, scene, record.input_focal, config.seed, share_with)
        for left_out in base.scenes if alone else ():
            model.remove_scene(left_out.name)
    model.requires_grad_(False)
    for parameter in model.scene_parameters(scene.name):
        parameter.requires_grad_()

    def make_model(device: torch.device) -> OFVLMS:
        place(model, device)
        return model

    finished = run(manifest, make_model, [scene], out, surroundings, NewSceneTrainer)
    if finished and others and worker_rank() == 0:
        albums = load_keyframes(checkpoint, base)
        theirs = {record.name: albums[record.name] for record in others if record.name in albums}
        save_keyframes(out, load_manifest(out), theirs)
    return finished


def _add(model: OFVLMS, scene: SceneData, input_focal: float, seed: int, share_with: str | None) -> None:
    like = share_with
    if like is None:
        found = divergences(model, scene, input_focal)
        like = next(iter(found))
        if worker_rank() == 0:
            measured = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            log.info("%s starts like %s (divergence: %s)", scene.name, like, measured)
    torch.manual_seed(seed)
    model.add_scene(scene.name, like, share_with)
    model.head.add_scene(scene.name)  # a new one in place of the copy
