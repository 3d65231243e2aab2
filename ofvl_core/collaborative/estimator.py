"""Depth, motion and pose of one image after another: what node, command line and evaluation call."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.camera import Camera
from ofvl_core.collaborative.architecture import STRIDE
from ofvl_core.collaborative.checkpoint import load_manifest, load_model
from ofvl_core.collaborative.depth_net import depth_from
from ofvl_core.collaborative.rigid import rotation_from_log
from ofvl_core.collaborative.video import View
from ofvl_core.device import choose_device
from ofvl_core.geometry import Array, invert
from ofvl_core.resize import affordable_input, normalise, require_size, resize


@dataclass(frozen=True)
class Estimate:
    """What one image says, and its predecessor with it.

    `depth` (h, w) in metres along the optical axis of `input_camera`, the network's input without its lens.
    `previous_from_current` (4, 4) is the camera's motion since the image before, in metres, None for the
    first. `world_from_camera` (4, 4) is None where the model has no GlobalPoseNet. The attention maps
    (h / 32, w / 32) in 0..1 are where the pose networks were told to look (Eq. 9), None without guidance.
    Lengths are metric as far as the scale of training holds.
    """

    depth: NDArray[np.float32]
    input_camera: Camera
    previous_from_current: Array | None
    world_from_camera: Array | None
    local_attention: NDArray[np.float32] | None
    global_attention: NDArray[np.float32] | None


class Estimator:
    """A loaded checkpoint of `ofvl collab train`, for one thread at a time. `scenes` are those it knows."""

    def __init__(self, checkpoint: Path, device: str = "auto"):
        """Load the checkpoint onto a device: 'cpu', 'cuda' or, for CUDA where there is one, 'auto'.

        Raises CheckpointError when it is missing or damaged; ConfigError when CUDA is asked for and absent.
        """
        self.device = choose_device(device)
        self.manifest = load_manifest(Path(checkpoint))
        self.model = load_model(Path(checkpoint), self.manifest, self.device)
        self.scenes = [scene.name for scene in self.manifest.scenes]
        self.reset()

    def reset(self) -> None:
        """Forget the last images: the next one has no predecessor."""
        self._previous: Tensor | None = None
        self._before: Tensor | None = None

    def hold(self) -> None:
        """Measure the next motion from the image from which the last one was measured."""
        if self._before is not None:
            self._previous = self._before

    @torch.inference_mode()
    def estimate(self, image_rgb: NDArray[np.uint8], camera: Camera, scene: str) -> Estimate:
        """Depth, motion and pose of an image (H, W, 3) taken with `camera` in `scene`.

        Raises CheckpointError for an unknown scene, ConfigError when image and camera do not fit each other
        or the camera's view is so wide that the network's input would be absurdly large.
        """
        record = self.manifest.scene(scene)
        seen = network_camera(camera, record.input_focal)
        current = self._input(image_rgb, camera, seen)
        if self._previous is not None and self._previous.shape != current.shape:
            self.reset()
        sight = self.model.see(current)
        unit = 1.0 if record.accuracy is None else record.accuracy.metres_per_unit
        motion = pose = None
        if self._previous is not None:
            current_from_previous = self.model.motion(self._previous, current, sight.local_attention)
            motion = invert(_double(current_from_previous[0]))
            motion[:3, 3] *= unit
        if self.model.global_pose_net is not None:
            found = self.model.relocalize(current, scene, sight.global_attention)
            pose = np.eye(4)
            pose[:3, :3] = _double(rotation_from_log(found.log_quaternion.double()[0]))
            pose[:3, 3] = _double(found.position[0])
        self._before, self._previous = self._previous, current
        depth = unit * depth_from(sight.prediction.disparities[0])[0, 0]
        return Estimate(
            depth.float().cpu().numpy(),
            seen,
            motion,
            pose,
            *(
                None if attention is None else attention[0, 0].float().cpu().numpy()
                for attention in (sight.local_attention, sight.global_attention)
            ),
        )

    def _input(self, image_rgb: NDArray[np.uint8], camera: Camera, seen: Camera) -> Tensor:
        require_size(image_rgb, camera)
        small = resize(image_rgb, seen)
        if any(camera.distortion):
            small = np.asarray(cv2.remap(small, *_undistorting(camera, seen), cv2.INTER_LINEAR), np.uint8)
        tensor = torch.from_numpy(np.ascontiguousarray(small)).to(self.device)
        return normalise(tensor.permute(2, 0, 1)[None]).contiguous(memory_format=torch.channels_last)


def network_camera(camera: Camera, focal: float) -> Camera:
    """The network's input for a camera in a scene of that `focal` length: the view is undistorted.

    Raises ConfigError when the input would be absurdly large.
    """
    return replace(affordable_input(camera, focal, STRIDE), distortion=())


@lru_cache(maxsize=4)
def _undistorting(camera: Camera, seen: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each pixel of the undistorted input its column and row in the resized image."""
    pixels = View(seen, np.eye(3), mirrored=False).stored_pixels(camera.resized(seen.width, seen.height))
    return np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1])


def _double(tensor: Tensor) -> Array:
    return tensor.double().cpu().numpy()
