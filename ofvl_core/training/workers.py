"""The processes that train together (paper Sec. 3.3: one GPU a scene, or several, or several scenes on one).

`torchrun` starts them. Every worker holds the whole model and trains the scenes assigned to it: specific
parameters stay with a scene's workers, shared ones follow the same combined gradient everywhere. A
process that was started alone is a team of one and exchanges nothing.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, distributed

from ofvl_core.errors import ConfigError, OfvlError, WorkerError
from ofvl_core.training.gradients import Combination, Gradients, gramian, weighted_sum

PATIENCE = timedelta(hours=2)
"""How long workers wait for one that still loads its frames. One that dies is noticed before that: by gloo at
once, on GPUs by torchrun."""


class WorkerLostError(OfvlError):
    """Another worker of the team has ended."""


def worker_rank() -> int:
    """This process's number among those that torchrun started; 0 when alone."""
    return int(os.environ.get("RANK", 0))


def team_size() -> int:
    """How many processes train together; 1 when alone."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number among those on its machine; 0 when alone."""
    return int(os.environ.get("LOCAL_RANK", 0))


def worker_device(device: torch.device) -> torch.device:
    """The worker's own GPU of this machine, or the CPU. Raises WorkerError when there are fewer GPUs."""
    if device.type != "cuda":
        return device
    gpus = torch.cuda.device_count()
    if local_rank() >= gpus:
        raise WorkerError(
            f"worker {worker_rank()}: this machine has {gpus} GPUs; start {gpus} processes on it"
        )
    return torch.device("cuda", local_rank())


def assign(scenes: int, workers: int) -> list[list[int]]:
    """Scenes of every worker: dealt out in turn; once each has one, further workers join them in turn."""
    if workers <= scenes:
        return [list(range(worker, scenes, workers)) for worker in range(workers)]
    return [[worker % scenes] for worker in range(workers)]


class Team:
    """This worker among its team.

    `scenes` are the numbers of the scenes that it trains, `replica` its number among the workers of its
    scene: 0 for all but further workers of one scene.
    """

    def __init__(self, scene_count: int, device: torch.device):
        """Meet the other workers. Raises ConfigError when they cannot be reached."""
        self.rank, self.size = worker_rank(), team_size()
        self.device = device
        self.scene_count = scene_count
        assignment = assign(scene_count, self.size)
        self.scenes = assignment[self.rank]
        self.replica = self.rank // scene_count
        self.workers_of = [
            [rank for rank, scenes in enumerate(assignment) if scene in scenes]
            for scene in range(scene_count)
        ]
        if self.size == 1:
            return
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            backend = "nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the workers cannot meet ({str(error).splitlines()[0]}); start them with torchrun"
            ) from None
        self._groups = [  # every worker has to take part in the making of every group
            distributed.new_group(ranks, timeout=PATIENCE) if len(ranks) > 1 else None
            for ranks in self.workers_of
        ]

    def close(self) -> None:
        """Leave the team when all do. A worker that fails must not: the others would wait for each other."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def start_equal(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors by worker 0's: rounding may differ where workers computed them."""
        for tensor in tensors if self.size > 1 else ():
            values = tensor.detach().contiguous()
            with _loss_of_a_worker():
                distributed.broadcast(values, 0)
            tensor.detach().copy_(values)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of all workers' `values`, in place; the same bits everywhere."""
        if self.size > 1:
            with _loss_of_a_worker():
                distributed.all_reduce(values)
        return values

    def mean_of_scene(self, scene: int, tensors: Sequence[Tensor]) -> None:
        """Average tensors, in place, among the workers of a scene."""
        if len(self.workers_of[scene]) > 1 and tensors:
            with _loss_of_a_worker():
                _reduce(tensors, self._groups[scene])
            torch._foreach_div_(list(tensors), len(self.workers_of[scene]))

    def by_scene(self, values: Mapping[int, Tensor]) -> Tensor:
        """All scenes' values (N, ...) from those of this worker's scenes, averaged over a scene's workers."""
        like = next(iter(values.values()))
        table = torch.zeros(self.scene_count, *like.shape, dtype=like.dtype, device=self.device)
        for scene, value in values.items():
            table[scene] = value / len(self.workers_of[scene])
        return self.sum(table)

    def combine(self, gradients: dict[int, Gradients], combination: Combination) -> Gradients:
        """The combined gradient of all scenes (Eq. 6-9) from those of this worker's scenes.

        Gradients of one scene are averaged among its workers first. They are changed in place.
        """
        if self.size == 1:
            return combination(list(gradients.values()))
        for scene, gradient in gradients.items():
            self.mean_of_scene(scene, gradient)
        weights = combination.weights(self._gramian(gradients, combination.uses_inner_products)).tolist()
        # the workers of a scene hold the same mean: each brings its part of it
        mine = [weights[scene] / len(self.workers_of[scene]) for scene in gradients]
        combined = weighted_sum(list(gradients.values()), mine)
        with _loss_of_a_worker():
            _reduce(combined)
        return combined

    def _gramian(self, gradients: dict[int, Gradients], inner_products: bool) -> Tensor:
        if not inner_products:
            own = gramian(list(gradients.values()), inner_products=False).diagonal()
            squared_norms = {scene: own[row].to(self.device) for row, scene in enumerate(gradients)}
            return self.by_scene(squared_norms).diag().cpu()
        total = torch.zeros(self.scene_count, self.scene_count, dtype=torch.float64)
        for number in range(len(next(iter(gradients.values())))):  # one parameter at a time bounds the memory
            parts = self.by_scene({scene: gradient[number] for scene, gradient in gradients.items()})
            total += gramian([[part] for part in parts])
        return total

    def gather(self, tensors_of: dict[int, dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """On worker 0 the tensors of all scenes, given each worker's of its own; elsewhere nothing."""
        gathered = dict(tensors_of)
        for scene, (first, *_) in enumerate(self.workers_of):
            if first == 0:
                continue
            with _loss_of_a_worker():
                if self.rank == first:
                    _send(tensors_of[scene], self.device)
                elif self.rank == 0:
                    gathered[scene] = _receive(first, self.device)
        return gathered if self.rank == 0 else {}


@contextmanager
def _loss_of_a_worker() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # neither gloo nor NCCL has a class of its own for it
        cause = re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0])  # without the place in their source
        raise WorkerLostError(f"another worker ended ({cause})") from None


def _reduce(tensors: Sequence[Tensor], group: distributed.ProcessGroup | None = None) -> None:
    """Sum tensors over a group, in place, as one message."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat, group=group)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _send(tensors: dict[str, Tensor], device: torch.device) -> None:
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    message = torch.from_numpy(np.frombuffer(content, np.uint8).copy()).to(device)
    distributed.send(torch.tensor([len(message)], device=device), 0)
    distributed.send(message, 0)


def _receive(sender: int, device: torch.device) -> dict[str, Tensor]:
    size = torch.zeros(1, dtype=torch.int64, device=device)
    distributed.recv(size, sender)
    message = torch.empty(int(size), dtype=torch.uint8, device=device)
    distributed.recv(message, sender)
    return safetensors.torch.load(message.cpu().numpy().tobytes())
