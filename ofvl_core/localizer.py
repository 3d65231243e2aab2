"""From one image to a pose, in the scene asked for: what the node and the command line both call."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.checkpoint import load_manifest, load_model
from ofvl_core.device import choose_device
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array
from ofvl_core.pose import PoseOptions, estimate_pose
from ofvl_core.resize import input_camera, normalise, resize


@dataclass(frozen=True)
class Localization:
    """`world_from_camera` (4, 4) of the optical frame, or None and the `reason`.

    `inliers` of `cells` network cells agree with the pose.
    """

    world_from_camera: Array | None
    inliers: int
    cells: int
    reason: str | None


class Localizer:
    """A loaded checkpoint. `scenes` lists the scenes it knows."""

    def __init__(self, checkpoint: Path, device: str = "auto", options: PoseOptions = PoseOptions()):
        """Load a checkpoint folder or a deployment file.

        `device` is 'cpu', 'cuda' or, for CUDA where there is one, 'auto'. Raises CheckpointError when the
        checkpoint is missing, damaged or none; ConfigError when CUDA is asked for and absent.
        """
        self.device = choose_device(device)
        self.manifest = load_manifest(Path(checkpoint))
        self.model = load_model(Path(checkpoint), self.manifest, self.device)
        self.scenes = [scene.name for scene in self.manifest.scenes]
        self.options = options

    @torch.inference_mode()
    def localize(self, image_rgb: NDArray[np.uint8], camera: Camera, scene: str) -> Localization:
        """Pose of an image (H, W, 3) taken with `camera`, in `scene`.

        Raises CheckpointError for an unknown scene, ConfigError when image and camera differ in size.
        """
        record = self.manifest.scene(scene)
        height, width = image_rgb.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise ConfigError(
                f"image is {width}x{height} but its camera_info says {camera.width}x{camera.height}; "
                "use the camera_info of this image stream"
            )
        stride = self.model.architecture.stride
        small = input_camera(camera, record.input_focal, stride)
        pixels = cell_pixels(small.width, small.height, stride)
        image = torch.from_numpy(resize(image_rgb, small)).to(self.device).permute(2, 0, 1)[None]
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            prediction = self.model(normalise(image), scene)
        coordinates = prediction.coordinates[0].flatten(1).T.cpu().double().numpy()
        uncertainties = prediction.log_uncertainty.flatten().exp().cpu().double().numpy()
        estimate = estimate_pose(pixels, coordinates, uncertainties, small, self.options)
        inliers = int(estimate.inliers.sum())
        return Localization(estimate.world_from_camera, inliers, len(pixels), estimate.reason)
