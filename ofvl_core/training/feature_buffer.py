"""Features of many views of a scene, computed once by a network that rests.

After ACE (E. Brachmann, T. Cavallari, V. Prisacariu: Accelerated Coordinate Encoding, CVPR 2023). What a head
of kernel 1 says of a cell depends on that cell's features alone. So it can be trained on cells of all views
mixed: a step costs a small part of one through the whole network, and its gradient is that of the whole scene
rather than of a few views.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ofvl_core.training.augmentation import Batch, BatchSource

VIEWS = 4096
"""Random views of a scene that a buffer holds."""

CELLS = 2_000_000
"""Cells that it holds at most, 0.6 GB of ofvl_ms_lite: of larger images each view gives some of them."""


class FeatureBuffer(NamedTuple):
    """Cells that show the scene: their `features` (N, C) in bfloat16, and what a head should say of them.

    `coordinates` (N, 3), metres, are known where `valid` (N, 1); `rays` (N, 2) on the plane z = 1 belong to
    `camera_from_world` (V, 4, 4) of each cell's view, whose numbers are `views` (N,).
    """

    features: Tensor
    coordinates: Tensor
    valid: Tensor
    rays: Tensor
    views: Tensor
    camera_from_world: Tensor

    def gather(self, rows: Tensor) -> tuple[Tensor, Batch]:
        """Features (1, C, 1, n) of the cells `rows` (n,), and a batch of n images of one cell each."""
        coordinates, valid, rays = (
            tensor[rows, :, None, None] for tensor in (self.coordinates, self.valid, self.rays)
        )
        features = self.features[rows].T[None, :, None]
        seen = torch.ones_like(valid)
        poses = self.camera_from_world[self.views[rows]]
        return features, Batch(features, coordinates, valid, rays, seen, poses)


@torch.no_grad()
def fill_buffer(
    source: BatchSource,
    compute: Callable[[Tensor], Tensor],
    until: Callable[[int], bool] = lambda cells: False,
) -> FeatureBuffer:
    """What `compute` makes of the images (B, 3, H, W) in the batches of `source`, from number 0.

    It ends early when `until` says so of the cells that there are, but not before the first batch.
    """
    random = np.random.default_rng(source.seed)
    most = CELLS * source.size // VIEWS
    parts: list[FeatureBuffer] = []
    for number in range(-(-VIEWS // source.size)):
        if parts and until(sum(len(part.features) for part in parts)):
            break
        batch = source.batch(number)
        chosen = np.flatnonzero(batch.seen.cpu().numpy())
        if len(chosen) > most:
            chosen = random.choice(chosen, most, replace=False)
        rows = torch.from_numpy(chosen).to(source.device)
        parts.append(
            FeatureBuffer(
                _cells(compute(batch.images).bfloat16())[rows],
                _cells(batch.coordinates)[rows],
                _cells(batch.valid)[rows],
                _cells(batch.rays)[rows],
                rows // batch.seen[0].numel() + number * source.size,
                batch.camera_from_world,
            )
        )
    return FeatureBuffer(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _cells(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as rows (B h w, C)."""
    return maps.movedim(1, -1).flatten(0, 2)
