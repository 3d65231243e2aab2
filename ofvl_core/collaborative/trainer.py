"""One step of collaborative training: triplets of one scene, then one update of all networks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofvl_core.collaborative.config import CollaborativeConfig, Stage
from ofvl_core.collaborative.global_pose_net import GlobalPose
from ofvl_core.collaborative.model import CollaborativeModel
from ofvl_core.collaborative.objective import Losses, joint_loss
from ofvl_core.collaborative.pose_loss import PoseLoss
from ofvl_core.collaborative.rigid import inverse
from ofvl_core.collaborative.video import Video, VideoSource
from ofvl_core.device import trains_in_bfloat16
from ofvl_core.errors import ConfigError
from ofvl_core.training.optimisation import NOT_FINITE, learning_rate, make_optimizer


class Learner(nn.Module):
    """All that is learned: the networks, and the balances of Eq. 7."""

    def __init__(self, model: CollaborativeModel):
        super().__init__()
        self.model = model
        self.pose_loss = PoseLoss()
        self.motion_loss = PoseLoss()


class Trainer:
    """A model, the videos of its scenes and its optimiser. Steps take the scenes in turn."""

    def __init__(
        self,
        model: CollaborativeModel,
        videos: Sequence[dict[Stage, Video]],
        config: CollaborativeConfig,
        device: torch.device,
    ):
        """`videos` has for every scene of the model its video at the input size of each stage."""
        self.config, self.device = config, device
        self.learner = Learner(model)
        self.learner.to(device)
        self.optimizer = make_optimizer(self.learner, config)
        self.mixed_precision = trains_in_bfloat16(config.precision, device)
        self.sources = [
            {
                stage: VideoSource(
                    video,
                    stage.batch_size,
                    config.turns,
                    (config.seed, number),
                    device,
                    mirrored=stage.weights.pose == 0,
                )
                for stage, video in by_stage.items()
            }
            for number, by_stage in enumerate(videos)
        ]

    def step(self, iteration: int, progress: float) -> Losses:
        """Train on one batch; `progress` runs from 0 to 1 over both stages.

        Raises ConfigError, before anything has changed, when the loss or a gradient is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.learner.train()
        losses = self.losses(iteration, progress)
        losses.total.backward()
        gradients = [p.grad for p in self.learner.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(losses.total.item() + norm.item()):
            raise ConfigError(NOT_FINITE)
        if self.config.gradient_clip is not None:
            torch._foreach_mul_(gradients, (self.config.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        return Losses(*(loss.detach() for loss in losses))

    def rate(self, progress: float) -> float:
        """The learning rate: a cosine for each stage, or the paper's step down in the second."""
        config, share = self.config, self.config.pretraining_share
        if config.step_down is not None:
            down = share + config.step_down * (1 - share)
            return config.learning_rate * (1.0 if progress < down else 0.1)
        in_stage = progress / share if progress < share else (progress - share) / (1 - share)
        return learning_rate(config, in_stage)

    def losses(self, iteration: int, progress: float) -> Losses:
        """Eq. 13 of the batch of an iteration, with gradients."""
        stage = self.config.stage(progress)
        model, number = self.learner.model, iteration % len(self.sources)
        weights = stage.weights
        relocalizes = model.global_pose_net is not None and bool(weights.pose or weights.consistency)
        batch = self.sources[number][stage].batch(iteration // len(self.sources))
        frames = batch.images.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        previous, target, following = frames.chunk(3)
        disparities = previous_from_target = following_from_target = poses = attention = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            if weights.photometric or weights.consistency or weights.motion:
                guides = relocalizes and model.global_attention is not None
                sight = model.see(frames if guides else target)
                local, attention = sight.local_attention, sight.global_attention
                disparities = sight.prediction.disparities
                if guides:
                    disparities = [middle(disparity) for disparity in disparities]
                    local = None if local is None else middle(local)
                ahead = model.motion(
                    torch.cat([previous, target]),
                    torch.cat([target, following]),
                    None if local is None else torch.cat([local, local]),
                )
                if not torch.isfinite(ahead).all():
                    raise ConfigError(NOT_FINITE)
                target_from_previous, following_from_target = ahead.chunk(2)
                previous_from_target = inverse(target_from_previous)
            if relocalizes:
                position, logarithm = model.relocalize(frames, model.scenes[number], attention)
                poses = [
                    GlobalPose(*of_frame)
                    for of_frame in zip(position.chunk(3), logarithm.chunk(3), strict=True)
                ]
        return joint_loss(
            batch,
            disparities,
            previous_from_target,
            following_from_target,
            weights,
            poses,
            self.learner.pose_loss,
            self.learner.motion_loss,
            self.config.consistency,
            self.config.warp_at_full_size,
            progress >= self.config.masked_from,
        )


def middle(of_three: Tensor) -> Tensor:
    """What belongs to the middle frames, of (3 B, ...) in the order of frames."""
    return of_three.chunk(3)[1]
