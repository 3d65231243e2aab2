"""Eq. 1: the target's image, put together from a source image by depth and motion."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

NEAREST = 1e-3
"""Depth in the source camera at which points in or behind its plane are held: they land outside its image."""


def synthesise(source: Tensor, depth: Tensor, source_from_target: Tensor, intrinsics: Tensor) -> Tensor:
    """The image (B, C, H, W) that the target camera would have seen, taken from `source` (B, C, H, W).

    Target pixel p, `depth` (B, 1, H, W) along its optical axis, is looked up in the source at
    K T d K^-1 h(p) (Eq. 1), bilinearly; beyond the source's border the border's colour is taken.
    `source_from_target` (B, 4, 4) is in the units of depth, `intrinsics` K (B, 3, 3) in pixels.
    """
    height, width = depth.shape[-2:]
    grid_from_source = _grid_from_pixel(width, height, depth.dtype, depth.device) @ intrinsics
    # at depth d, pixel p is at d H h(p) + t in the source: both cameras' matrices are in H and t
    homography = grid_from_source @ source_from_target[:, :3, :3] @ torch.linalg.inv(intrinsics)
    translation = grid_from_source @ source_from_target[:, :3, 3:]
    directions = homography @ _pixels(width, height, depth.dtype, depth.device)
    points = directions * depth.flatten(2) + translation
    places = points[:, :2] / points[:, 2:].clamp(min=NEAREST)
    places = torch.nan_to_num(places, nan=2.0)  # torch would read outside of its memory
    grid = places.unflatten(2, (height, width)).permute(0, 2, 3, 1)
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


@lru_cache(maxsize=8)
def _pixels(width: int, height: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """All pixels (u, v, 1) of an image, row by row: (3, H W)."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device),
        torch.arange(width, dtype=dtype, device=device),
        indexing="ij",
    )
    return torch.stack([u, v, torch.ones_like(u)]).flatten(1)


@lru_cache(maxsize=8)
def _grid_from_pixel(width: int, height: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Takes pixels (u, v, 1) to grid_sample's coordinates, which span the image from -1 to 1: (3, 3)."""
    rows = [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]]
    return torch.tensor(rows, dtype=dtype, device=device)
