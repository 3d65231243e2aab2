"""What the network is shown of an image, and what its cells then stand for.

What a network says of an image errs one way, and of the same image turned and scaled a little another way:
so it may look more than once, and the pose is solved from all that it saw. A small network at a small input
does so in less time than a larger one looks once.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera, cell_pixels, resized_pixels
from ofvl_core.geometry import Array
from ofvl_core.resize import affordable_input, resize
from ofvl_core.warps import GREY, stored_camera, unwarped, warp, warp_images


class Look(NamedTuple):
    """The image `scale` times as large, turned by `degrees` and moved by `shift`, in cells."""

    scale: float
    degrees: float
    shift: tuple[float, float]


LOOKS = (
    Look(1.0, 0.0, (0.0, 0.0)),
    Look(1.2, 12.0, (0.25, 0.375)),
    Look(0.85, -12.0, (0.5, 0.5)),
    Look(1.2, -12.0, (0.5, 0.125)),
    Look(0.85, 12.0, (0.0, 0.5)),
)
"""In the order in which they are taken. The first is the image as it is; all are well within the views that
`handheld` training shows, and no two have their cells at the same places."""


@dataclass(frozen=True, eq=False)
class InputView:
    """What depends on a camera and on the focal length that a scene was trained with, and on nothing else.

    `image` is the camera, `camera` that of the network's input, which `warps` (K, 2, 3) show K times from an
    image kept at the size of `stored`. `cells` (N,) are those of the K * rows * `columns` cells, look by look
    and row by row, that lie in the image: at its `pixels` (N, 2). `rays` (N, 2) are their viewing rays on the
    plane z = 1, distortion undone, NaN for a cell without one. Arrays are read only.
    """

    image: Camera
    camera: Camera
    stored: Camera
    warps: Array
    cells: NDArray[np.intp]
    pixels: Array
    rays: Array
    columns: int

    def shown(self, image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the network is shown (K, height, width, 3) of an image (H, W, 3)."""
        first = resize(image_rgb, self.camera)[None]
        if len(self.warps) == 1:
            return first
        kept = resize(image_rgb, self.stored)
        others = self.warps[1:]
        images = np.broadcast_to(kept, (len(others), *kept.shape))
        fills = np.full((len(others), 3), GREY)
        return np.concatenate([first, warp_images(images, others, fills, self.camera)])

    def sampled(self, depth: NDArray[np.floating]) -> Array:
        """The cells' depths (N,) of an aligned depth image; see `depths_at`."""
        return depths_at(depth, self.pixels, self.image)


def depths_at(depth: NDArray[np.floating], pixels: Array, camera: Camera) -> Array:
    """Depths (N,) at `pixels` (N, 2) of a camera's image by an aligned depth image of any resolution.

    Its nearest pixel, as in training, because a mean over an edge is the depth of nothing. NaN where it is
    not positive.
    """
    size = np.array(depth.shape[::-1])
    scale = size / (camera.width, camera.height)
    column, row = np.rint(resized_pixels(pixels, scale)).astype(np.intp).clip(0, size - 1).T
    depths = depth[row, column].astype(np.float64)
    return np.where(np.isfinite(depths) & (depths > 0), depths, np.nan)


@lru_cache(maxsize=32)
def input_view(camera: Camera, focal: float, stride: int, looks: int = 1) -> InputView:
    """The cells of a camera's images in a scene of that `focal` length. Kept for the cameras used last.

    Raises ConfigError when the input would be absurdly large.
    """
    small = affordable_input(camera, focal, stride)
    stored = stored_camera(camera, small)
    warps = np.stack([_warp(look, small, stored, stride) for look in LOOKS[:looks]])
    in_input = cell_pixels(small.width, small.height, stride)
    in_stored = in_input @ np.swapaxes(warps[:, :, :2], 1, 2) + warps[:, None, :, 2]
    scale = np.array([camera.width / stored.width, camera.height / stored.height])
    in_image = resized_pixels(in_stored.reshape(-1, 2), scale)
    inside = (in_image >= -0.5).all(axis=1) & (in_image <= (camera.width - 0.5, camera.height - 0.5)).all(
        axis=1
    )
    cells, in_image = np.flatnonzero(inside), in_image[inside]
    rays = camera.rays(in_image)[:, :2]
    for array in (cells, in_image, rays):
        array.flags.writeable = False
    return InputView(camera, small, stored, warps, cells, in_image, rays, small.width // stride)


def _warp(look: Look, small: Camera, stored: Camera, stride: int) -> Array:
    if look == LOOKS[0]:
        return unwarped(small, stored)
    shift = look.shift[0] * stride / small.width, look.shift[1] * stride / small.height
    return warp(small, stored, look.scale, np.radians(look.degrees), shift=shift)
