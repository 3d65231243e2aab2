"""A scene's training frames in memory, so that no image is decoded twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from ofvl_core.camera import Camera
from ofvl_core.datasets import Frame, SceneData
from ofvl_core.datasets.images import read_color, read_depth
from ofvl_core.errors import DataError
from ofvl_core.resize import resize

OVERSAMPLING = 2
"""Stored images are this many times the network's input where the originals are as large, so that zooming in
finds detail."""


class SceneMemory:
    """Images (N, H, W, 3) uint8 RGB in main memory; on the device depths (N, H, W) in metres, 0 where
    unknown, and poses (N, 4, 4)."""

    def __init__(
        self,
        scene: SceneData,
        camera: Camera,
        device: torch.device,
        on_frame: Callable[[], None] = lambda: None,
    ):
        """Load the scene's training split for a network input of `camera`. Raises DataError."""
        frames = scene.frames("train")
        self.input_camera = camera
        width, height = camera.width * OVERSAMPLING, camera.height * OVERSAMPLING
        self.camera = camera.resized(width, height) if width < scene.camera.width else scene.camera

        def load(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
            if frame.depth is None:
                raise DataError(
                    f"{frame.color}: has no depth beside it; training needs depth for every frame"
                )
            color = resize(read_color(frame.color, scene.camera), self.camera)
            depth = read_depth(frame.depth, scene.camera)
            on_frame()
            return color, _nearest(depth, self.camera)

        with ThreadPoolExecutor() as pool:  # OpenCV decodes outside the interpreter lock
            colors, depths = zip(*pool.map(load, frames), strict=True)
        self.device = device
        self.images = np.stack(colors)
        self.depths = torch.from_numpy(np.stack(depths)).to(device)
        poses = np.stack([frame.world_from_camera for frame in frames])
        self.world_from_camera = torch.from_numpy(poses).float().to(device)

    def __len__(self) -> int:
        return len(self.images)


def _nearest(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth in metres at the camera's size: nearest, because averaging mixes surfaces at their edges."""
    resized = cv2.resize(depth, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.float32) / 1000.0
