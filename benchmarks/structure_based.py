"""The structure-based opponent: image points lifted by depth, and how it was tuned.

What a user would otherwise reach for. RootSIFT points (R. Arandjelovic, A. Zisserman: Three things everyone
should know to improve object retrieval, CVPR 2012) of all training frames, lifted by their depth, in FLANN's
randomised k-d trees; a query's points are matched by a ratio test, and OpenCV's USAC PnP with MAGSAC++'s
score (D. Barath et al., CVPR 2020) and a refinement give the pose. No retrieval and one map a scene, as ours.

Its settings were chosen on a tenth of the training frames, held out in blocks; the table changes one at
a time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from harness import Table, pose_errors, recordings, write
from numpy.typing import NDArray

from ofvl_core.alignment import align
from ofvl_core.camera import Camera
from ofvl_core.datasets import SceneData, find_scenes, load_scene
from ofvl_core.datasets.images import MILLIMETRE
from ofvl_core.datasets.scene import HOLDOUT
from ofvl_core.evaluation import share_within
from ofvl_core.geometry import Array, apply, invert, transform_from_rotation_vector

Descriptors = NDArray[np.float32]
"""(N, 128), of length 512 and in whole numbers that fit a byte, as COLMAP keeps them; FLANN wants floats."""

KDTREE = 1
"""FLANN's number of its randomised k-d trees."""

NEIGHBOURS = 5
"""Of a query's point in the map. A rival that is farther looks so much less alike that it is none."""

BYTES_A_POINT = 128 + 3 * 4
"""Of a stored map: a descriptor and three floats."""


@dataclass(frozen=True)
class StructureOptions:
    """How the map is made and asked.

    Chosen by the medians and the shares within 5 cm and 5 degrees on frames held out of training; near these
    settings differences are within chance. What made medians worse is not there: fusing what several frames
    saw of a point (tried in hololens_office), averaging the places of its five nearest neighbours (fr1_rpy).
    Our own solver in place of USAC was better in hololens_office and worse in fr1_rpy. An exact k-d tree
    takes minutes a query in 128 dimensions.
    """

    points: int = 1500
    """Of a training frame and of a query, the strongest. With 1000 poses are as good, the map is smaller."""
    contrast: float = 0.01
    """SIFT's threshold; OpenCV's 0.04 finds too few in blurred images."""
    depth_jump: float = 0.05
    """Relative change of depth in 5x5 pixels above which a point lies on an edge and is dropped."""
    trees: int = 4
    checks: int = 32
    """Leaves that a search looks at. With 128 it takes three times as long and finds no better poses."""
    ratio: float = 0.85
    """Largest ratio of the distances to the best neighbour and to the best one elsewhere (D. Lowe 2004). Many
    frames saw the same point, so that the second neighbour is no rival."""
    elsewhere_m: float = 0.1
    """Metres from the best neighbour at which another is elsewhere."""
    pixels: float = 4.0
    """MAGSAC++'s threshold. With 6, fr1_rpy is worse and hololens_office better."""
    iterations: int = 2000
    """Bound on RANSAC's hypotheses."""
    depth_share: float = 0.0133
    """With depth at query: share of its depth within which a point agrees with a pose, 2 cm at 1.5 m."""
    least: int = 12
    """Points that must agree with a pose."""


VARIANTS = {
    "as tuned": StructureOptions(),
    "every nearest neighbour (ratio 1)": StructureOptions(ratio=1.0),
    "ratio 0.8": StructureOptions(ratio=0.8),
    "ratio 0.9": StructureOptions(ratio=0.9),
    "1000 points": StructureOptions(points=1000),
    "16 leaves": StructureOptions(checks=16),
    "128 leaves": StructureOptions(checks=128),
    "3 pixels": StructureOptions(pixels=3.0),
    "6 pixels": StructureOptions(pixels=6.0),
}
"""Settings that are compared on held-out frames, each of which differs from the tuned ones in one way."""

HELD_OUT = 0.1
"""Share of the training frames on which the settings were chosen."""


def detect(image_rgb: NDArray[np.uint8], points: int, contrast: float) -> tuple[Array, Descriptors]:
    """Pixels (N, 2) and RootSIFT descriptors (N, 128) of an image's `points` strongest points, or fewer."""
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    found, sift = cv2.SIFT.create(points, contrastThreshold=contrast).detectAndCompute(grey, None)
    if not found:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    roots = np.sqrt(sift / np.maximum(sift.sum(axis=1, keepdims=True), 1e-9))
    descriptors = np.rint(512 * roots).clip(0, 255)
    strongest = np.argsort([-point.response for point in found], kind="stable")[:points]
    return np.asarray(cv2.KeyPoint.convert(found), np.float64)[strongest], descriptors[strongest]


def depths_at(depth: NDArray[np.floating], pixels: Array, camera: Camera, jump: float) -> Array:
    """Metres (N,) that a depth image (h, w) of `camera`'s view says of `pixels`; NaN where it says nothing.

    The median of what is known of 5x5 pixels, if that is most of them and nowhere differs from it by more
    than the share `jump`: a point on an edge belongs to what is in front or to what is behind.
    """
    height, width = depth.shape
    scale = np.array([width / camera.width, height / camera.height])
    column, row = np.rint((pixels + 0.5) * scale - 0.5).astype(np.intp).T
    known = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    padded = np.pad(known, 2, constant_values=np.nan)
    down, right = np.indices((5, 5)).reshape(2, 1, -1)
    around = padded[row.clip(0, height - 1)[:, None] + down[0], column.clip(0, width - 1)[:, None] + right[0]]
    enough = np.isfinite(around).sum(axis=1) > around.shape[1] // 2
    result = np.full(len(pixels), np.nan)
    middle = np.nanmedian(around[enough], axis=1)
    flat = np.nanmax(np.abs(around[enough] - middle[:, None]), axis=1, initial=0) <= jump * middle
    result[enough] = np.where(flat, middle, np.nan)
    return result


class Observations(NamedTuple):
    """`points` (N, 3) of the scene, in its frame, and their `descriptors` (N, 128)."""

    points: Array
    descriptors: Descriptors


def observe(scene: SceneData, options: StructureOptions) -> Observations:
    """What the training frames show where depth is known. Raises DataError for a frame without depth."""
    points, looks = [], []
    for frame in scene.frames("train"):
        pixels, descriptors = detect(scene.read_color(frame), options.points, options.contrast)
        depths = depths_at(scene.read_depth(frame) * MILLIMETRE, pixels, scene.camera, options.depth_jump)
        known = np.isfinite(depths)
        in_camera = scene.camera.rays(pixels[known]) * depths[known, None]
        points.append(apply(frame.world_from_camera, in_camera))
        looks.append(descriptors[known])
    return Observations(np.concatenate(points), np.concatenate(looks))


class StructureMap:
    """Points of a scene and how they look, for one thread at a time."""

    def __init__(
        self, camera: Camera, observed: Observations, options: StructureOptions = StructureOptions()
    ):
        """A map of what was observed, for images of `camera`."""
        self.camera, self.observed, self.options = camera, observed, options  # FLANN keeps no descriptors
        cv2.setRNGSeed(0)  # of its trees
        self._index = cv2.flann.Index(observed.descriptors, {"algorithm": KDTREE, "trees": options.trees})

    @classmethod
    def build(cls, scene: SceneData, options: StructureOptions = StructureOptions()) -> "StructureMap":
        """The map of a scene's training frames. Raises DataError for a frame without depth."""
        return cls(scene.camera, observe(scene, options), options)

    @property
    def megabytes(self) -> float:
        """Size of the map as a file, in MB; the trees are made anew where it is read."""
        return len(self.observed.points) * BYTES_A_POINT / 1e6

    def localize(
        self, image_rgb: NDArray[np.uint8], depth: NDArray[np.floating] | None = None
    ) -> Array | None:
        """world_from_camera (4, 4) of an image (H, W, 3), or None. The same image gives the same pose.

        `depth` (h, w), metres, is of the same view: points are then aligned with points.
        """
        pixels, descriptors = detect(image_rgb, self.options.points, self.options.contrast)
        if len(pixels) < self.options.least:
            return None
        seen, known = self._match(descriptors)
        rays, points = self.camera.rays(pixels[seen]), self.observed.points[known]
        if depth is None:
            camera_from_world = self._pnp(rays[:, :2], points)
        else:
            depths = depths_at(depth, pixels[seen], self.camera, self.options.depth_jump)
            measured = np.isfinite(depths)
            depths = depths[measured]
            camera_from_world = align(
                points[measured],
                rays[measured] * depths[:, None],
                self.options.depth_share * depths,
                self.options.least,
            )
        return None if camera_from_world is None else invert(camera_from_world)

    def _match(self, descriptors: Descriptors) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of a query's points are matched, and with which of the map's (M,)."""
        search: dict[str, bool | int | float | str] = {"checks": self.options.checks}
        nearest, squared = self._index.knnSearch(descriptors, NEIGHBOURS, params=search)
        places = self.observed.points[nearest]
        elsewhere = np.linalg.norm(places - places[:, :1], axis=2) > self.options.elsewhere_m
        rival = np.where(elsewhere, squared, np.inf).min(axis=1)
        seen = np.flatnonzero(squared[:, 0] <= self.options.ratio**2 * rival)
        return seen, nearest[seen, 0].astype(np.intp)

    def _pnp(self, rays: Array, points: Array) -> Array | None:
        """camera_from_world by USAC, refined by Levenberg-Marquardt on the points that agree with it."""
        if len(points) < self.options.least:
            return None
        usac = cv2.UsacParams()
        usac.sampler = cv2.SAMPLING_UNIFORM
        usac.score = cv2.SCORE_METHOD_MAGSAC
        usac.loMethod = cv2.LOCAL_OPTIM_SIGMA
        usac.loIterations = 10
        usac.loSampleSize = 50
        usac.maxIterations = self.options.iterations
        usac.confidence = 0.9999
        usac.threshold = self.options.pixels
        usac.randomGeneratorState = 0
        pixels = rays * self.camera.focal
        matrix = np.diag([self.camera.focal, self.camera.focal, 1.0])
        try:
            found, _, rotation, translation, agree = cv2.solvePnPRansac(
                points, pixels, matrix, None, params=usac
            )
        except cv2.error:
            return None
        if not found or agree is None or len(agree) < self.options.least:
            return None
        agree = agree.ravel()
        rotation, translation = cv2.solvePnPRefineLM(
            points[agree], pixels[agree], matrix, None, rotation, translation
        )
        return transform_from_rotation_vector(rotation, translation)


def main() -> None:
    """Write what each change of the settings does on the frames that are held out of training."""
    scenes = [load_scene(path).holding_out(HELD_OUT) for path in find_scenes([recordings("scenes")])]
    cells: dict[str, list[str]] = {name: [] for name in VARIANTS}
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in VARIANTS}
    for scene in scenes:
        frames = scene.frames(HOLDOUT)
        observed: dict[int, Observations] = {}
        for name, options in VARIANTS.items():
            if options.points not in observed:
                observed[options.points] = observe(scene, options)
            structure = StructureMap(scene.camera, observed[options.points], options)
            errors = pose_errors(frames, [structure.localize(scene.read_color(frame)) for frame in frames])
            metres, degrees = np.median(errors, axis=0)
            share = share_within(errors)
            cells[name].append(f"{100 * metres:.2f} cm, {degrees:.2f} deg, {100 * share:.0f} %")
            figures[name][scene.name] = [metres, degrees, share]
    columns = ["settings", *(f"{scene.name}, {len(scene.frames(HOLDOUT))} frames" for scene in scenes)]
    rows: list[list[str | float | int | None]] = [[name, *said] for name, said in cells.items()]
    note = "Median errors, and the share of frames within 5 cm and 5 degrees."
    write("structure_based", "benchmarks/structure_based.py", [Table("", columns, rows, note)], figures)


if __name__ == "__main__":
    main()
