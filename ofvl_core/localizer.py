"""From one image to a pose, in the scene asked for: what the node and the command line both call."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.checkpoint import load_keyframes, load_manifest, load_model
from ofvl_core.correspondences import Correspondences
from ofvl_core.covariance import pose_covariance
from ofvl_core.device import place
from ofvl_core.engines import Engine, choose_engine, make_engine
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import Array
from ofvl_core.keyframes import Ahead, Search, refine
from ofvl_core.looks import InputView, input_view
from ofvl_core.pose import PoseOptions, estimate_pose
from ofvl_core.resize import require_size


@dataclass(frozen=True)
class Cells:
    """What the network said of one image, one row a network cell.

    The N cells are those of all its looks that lie in the image (`ofvl_core.looks`), look by look and row by
    row; a look has `columns` of them in a row, inside or beside.
    `pixels` (N, 2) are those of the image that was given: its full resolution, distorted as it is.
    `scene_coordinates` (N, 3), metres, are in the scene's frame and `uncertainties` (N,), metres, their
    predicted standard deviation along each axis. `inliers` (N,) agree with the pose.
    """

    pixels: Array
    scene_coordinates: Array
    uncertainties: Array
    inliers: NDArray[np.bool_]
    columns: int


@dataclass(frozen=True)
class Landmarks:
    """Where landmarks of keyframes were found in an image: at `pixels` (M, 2), as in `Cells`.

    They are the points `scene_coordinates` (M, 3), metres, of the scene; `inliers` (M,) agree with the pose.
    """

    pixels: Array
    scene_coordinates: Array
    inliers: NDArray[np.bool_]


@dataclass(frozen=True)
class Localization:
    """`world_from_camera` (4, 4) of the optical frame in `scene`, or None and the `reason`.

    `covariance` (6, 6) is the pose's, calibrated, in the convention of `ofvl_core.covariance`; None without
    a pose. `uncertainty` is the median predicted uncertainty of the inliers, metres; infinite without any.
    `landmarks` are what a pose refined by keyframes is made of, None for the network's own. The `cells` stay
    what the network said, and their inliers agree with its own pose.
    """

    scene: str
    world_from_camera: Array | None
    covariance: Array | None
    uncertainty: float
    reason: str | None
    cells: Cells
    landmarks: Landmarks | None = None

    @property
    def inlier_count(self) -> int:
        """How many cells agree with the pose."""
        return int(self.cells.inliers.sum())

    @property
    def inlier_share(self) -> float:
        """Their share of all cells."""
        return float(self.cells.inliers.mean())

    @property
    def agreement(self) -> str:
        """What agrees with the pose, in words."""
        words = f"{self.inlier_count} of {len(self.cells.inliers)} cells"
        if self.landmarks is not None:
            words += f" and {self.landmarks.inliers.sum()} of {len(self.landmarks.inliers)} landmarks"
        return f"{words} agree"


class Localizer:
    """A loaded checkpoint, for one thread at a time; `describe_ahead` may be called from any.

    `scenes` lists the scenes it knows. `note` is what a user should be told of the `device` that it runs on,
    None when all is as asked for.
    """

    def __init__(
        self,
        checkpoint: Path,
        device: str = "auto",
        options: PoseOptions = PoseOptions(),
        engine: str = "auto",
        keyframes: bool = True,
    ):
        """Load a checkpoint folder or a deployment file into memory; the device takes it with `acquire`.

        Without `keyframes` poses are the network's own, as in the paper.

        `device` is 'cpu', 'cuda' or, for CUDA where there is one and its memory suffices, 'auto'; `engine`
        one of `ENGINES`. Raises CheckpointError when the checkpoint is missing, damaged or none; ConfigError
        when CUDA or an engine is asked for and absent.
        """
        self.engine, self.device = choose_engine(engine, device)
        self.note: str | None = None
        self.manifest = load_manifest(Path(checkpoint))
        self.model = load_model(Path(checkpoint), self.manifest, torch.device("cpu"))
        self.scenes = [scene.name for scene in self.manifest.scenes]
        self._albums = load_keyframes(Path(checkpoint), self.manifest) if keyframes else {}
        self.options = options
        self._may_use_cpu = device == "auto"
        self._running: Engine | None = None
        self._ahead: Ahead | None = None
        self._lock = threading.Lock()  # of what is ahead

    def acquire(self) -> None:
        """Put the network on its device, where it is not; the first image would otherwise do so.

        Raises ConfigError when a GPU that was insisted on is out of memory.
        """
        if self._running is not None:
            return
        try:
            place(self.model, self.device)
        except torch.OutOfMemoryError:
            self._turn_to_cpu()
            place(self.model, self.device)
        self._running = make_engine(
            self.engine, self.model, self.device, lambda scene: self.manifest.scene(scene).quantisation
        )

    def release(self) -> None:
        """Give back the device's memory, and decoded keyframes'. The network stays in the computer's."""
        self.describe_ahead(None)
        for album in self._albums.values():
            album.forget()
        self._leave_device()

    def memory_mib(self) -> int:
        """Memory of the GPU that this process holds, in MiB; 0 on the CPU."""
        return torch.cuda.memory_reserved(self.device) >> 20 if self.device.type == "cuda" else 0

    def localize(
        self,
        image_rgb: NDArray[np.uint8],
        camera: Camera,
        scene: str,
        depth: NDArray[np.float32] | None = None,
        search: Search = "lost",
    ) -> Localization:
        """Pose of an image (H, W, 3) taken with `camera`, in `scene`, refined by its keyframes.

        `depth`, metres along the optical axis, is aligned to the image: of the same view, at any resolution;
        NaN, infinite or not positive where it is unknown. As a rule it makes the pose more accurate.

        Raises CheckpointError for an unknown scene, ConfigError when image, camera and depth do not fit one
        another, when a GPU that was insisted on is out of memory, and for int8 in a scene that was not
        prepared for it.
        """
        found = self.localize_in_each(image_rgb, camera, [scene], depth)[0]
        return self.refined(found, image_rgb, camera, depth, search)

    def localize_in_each(
        self,
        image_rgb: NDArray[np.uint8],
        camera: Camera,
        scenes: Sequence[str],
        depth: NDArray[np.float32] | None = None,
    ) -> list[Localization]:
        """The network's own poses of one image in several `scenes`, in their order; see `localize`."""
        records = [self.manifest.scene(scene) for scene in scenes]
        require_size(image_rgb, camera)
        height, width = image_rgb.shape[:2]
        if depth is not None and abs(width * depth.shape[0] - height * depth.shape[1]) >= max(width, height):
            raise ConfigError(
                f"depth is {depth.shape[1]}x{depth.shape[0]}, which is not the shape of a {width}x{height} "
                "image; use the depth that the driver aligns to the colour image"
            )
        shape = self.model.architecture
        views = [input_view(camera, record.input_focal, shape.stride, shape.looks) for record in records]
        try:
            predictions = self._predict(image_rgb, scenes, views)
        except torch.OutOfMemoryError:
            self._turn_to_cpu()
            predictions = self._predict(image_rgb, scenes, views)
        return [
            self._solve(scene, view, *prediction, None if depth is None else view.sampled(depth))
            for scene, view, prediction in zip(scenes, views, predictions, strict=True)
        ]

    def refined(
        self,
        found: Localization,
        image_rgb: NDArray[np.uint8],
        camera: Camera,
        depth: NDArray[np.float32] | None = None,
        search: Search = "lost",
    ) -> Localization:
        """What `localize_in_each` said of an image, with the pose of its scene's keyframes.

        It stays as it is where they give none: the scene has no keyframes, or what they show is not what the
        image shows. The network's pose, if it has one, only says where to begin: far from where it was
        trained it is wrong by more than its covariance says. With `search` 'lost' keyframes are looked
        through wherever they are if it is of no use, with 'always' in any case: an image that shows what
        other places have too then has no pose at all.
        """
        album = self._albums.get(found.scene)
        if album is None:
            return found
        better = refine(found.world_from_camera, image_rgb, camera, album, depth, self.options, search)
        if better is None:
            return found
        if not better.is_confirmed:
            reason = "this place is not told from others of the scene yet"
            return replace(found, world_from_camera=None, covariance=None, uncertainty=np.inf, reason=reason)
        return replace(
            found,
            world_from_camera=better.world_from_camera,
            covariance=self.manifest.calibration(found.scene).of_refined * better.covariance,
            reason=None,
            landmarks=Landmarks(better.pixels, better.seen.points, better.inliers),
        )

    def describe_ahead(self, scene: str | None) -> None:
        """Begin to get the scene's keyframes ready in a thread of its own, and no other's any more.

        Images do not wait for it: the few that they need are got ready for them, and only what is ready is
        looked through wherever it is.
        """
        album = None if scene is None else self._albums.get(scene)
        with self._lock:
            if self._ahead is not None:
                if self._ahead.album is album:
                    return
                self._ahead.stop()
            self._ahead = None if album is None else Ahead(album)

    def finish_describing(self) -> None:
        """Wait for what `describe_ahead` began: for an image that no other follows."""
        with self._lock:
            ahead = self._ahead
        if ahead is not None:
            ahead.finish()

    def warm_up(self, camera: Camera, scene: str) -> None:
        """Make the first image as fast as the next. Raises what `localize` does."""
        self.localize(np.full((camera.height, camera.width, 3), 128, np.uint8), camera, scene)

    def _leave_device(self) -> None:
        self._running = None
        place(self.model, torch.device("cpu"))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _turn_to_cpu(self) -> None:
        self._leave_device()
        if not self._may_use_cpu:
            raise ConfigError(
                "CUDA is out of memory; end what else uses the GPU, or choose device 'cpu' or 'auto'"
            )
        self.device, self.note = torch.device("cpu"), "CUDA is out of memory: running on the CPU"

    def _predict(
        self, image_rgb: NDArray[np.uint8], scenes: Sequence[str], views: Sequence[InputView]
    ) -> list[tuple[Array, Array]]:
        """Scene coordinates and uncertainties in each scene; scenes of one size share what is shown."""
        self.acquire()
        assert self._running is not None
        predictions, there = [], None
        for scene, view in zip(scenes, views, strict=True):
            if view.camera != there:
                self._running.put(view.shown(image_rgb))
                there = view.camera
            points, uncertainties = self._running.predict(scene)
            predictions.append((points[view.cells], uncertainties[view.cells]))
        return predictions

    def _solve(
        self, scene: str, view: InputView, points: Array, uncertainties: Array, depths: Array | None
    ) -> Localization:
        seen = Correspondences(view.rays, points, uncertainties, depths)
        estimate = estimate_pose(seen, view.camera.focal, self.options)
        cells = Cells(view.pixels, points, uncertainties, estimate.inliers, view.columns)
        if estimate.world_from_camera is None:
            return Localization(scene, None, None, np.inf, estimate.reason, cells)
        if not estimate.used_depths:
            seen = seen._replace(depths=None)
        covariance = pose_covariance(estimate.world_from_camera, seen, estimate.inliers)
        inflation = self.manifest.calibration(scene).inflation
        uncertainty = float(np.median(uncertainties[estimate.inliers]))
        return Localization(
            scene, estimate.world_from_camera, inflation * covariance, uncertainty, None, cells
        )
