"""Which of the model's scenes is this? What each of them predicts of the same images says.

A network that is shown another scene's image predicts something all the same, and where scenes are built and
painted alike most of it is right: the share of cells that agree does not tell such twins apart. What does is
how far the others miss. Cells that look at what the scene holds lie near the pose that most of them agree on,
the inaccurate ones too; at a picture or a chair that is not there the network places cells somewhere in the
room, and these miss their viewing rays by decimetres.

An image in which next to no cell misses so grossly speaks for a scene, by the share of the image that shows
surface not seen before: a robot before a wardrobe that two rooms have learns nothing by looking longer. One
in which many do speaks against it. Evidence is summed over images. A scene is the answer when enough of its
surface was seen and found right, and of no other scene nearly as much; when images speak against all of
them, the place is unknown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ofvl_core.camera import Camera
from ofvl_core.checkpoint import Manifest
from ofvl_core.geometry import Array, apply, invert
from ofvl_core.localizer import Localization

RIGHT, CUBE = 0.5, 0.75
"""In units of a gross miss: what a cell that is right misses by at most, and the edge of the cubes by which
surface is remembered. A cube holds the scatter of right cells, so that what was seen stays seen."""


@dataclass(frozen=True)
class SearchOptions:
    """Evidence is counted in images: 1 is an image full of surface that was not seen before and is right.

    The defaults are argued in docs/scenes.md by what `scripts/recognition.py` measures.
    """

    enough: float = 4.6
    """Evidence that makes a scene the answer."""
    lead: float = 2.0
    """Evidence by which the answer is ahead of every other scene."""
    doubt: float = 2.0
    """Evidence against a scene that rules it out."""
    tolerated: float = 0.03
    """Share of grossly missing cells at which an image speaks neither for nor against a scene."""
    against: float = 0.1
    """What an image with twice as many counts against it: about as much new surface as the next image of a
    moving camera shows."""
    worst: float = 4.0
    """How many times as much the worst image counts: one bad image rules nothing out."""
    miss_uncertainties: float = 8.0
    """A cell misses grossly by this many times the uncertainty that 95 % of a scene's held-out images stay
    below."""
    uncalibrated_miss: float = 0.4
    """The same in metres, for scenes of a checkpoint that is not calibrated."""
    seen_again: float = 0.05
    """What surface seen before counts when it is seen from a new place: a scene may be so small that
    one image shows it all."""
    place_m: float = 0.25
    place_deg: float = 15.0
    """How far the camera moves or turns, about, for its place to be a new one."""


class SceneSearch:
    """Sums what images say until a scene is the answer, or none of them is.

    Feed it what `Localizer.localize_in_each` says in the scenes of `candidates`. It has no clock: images may
    come at any rate, and those that show nothing new change nothing.
    """

    def __init__(self, manifest: Manifest, options: SearchOptions = SearchOptions()):
        """Search among the scenes of a checkpoint."""
        self.options = options
        self._misses = {}
        for scene in manifest.scenes:
            known = manifest.calibration(scene.name)
            self._misses[scene.name] = (
                options.miss_uncertainties * known.uncertainty
                if known.is_calibrated
                else options.uncalibrated_miss
            )
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.evidence = dict.fromkeys(self._misses, 0.0)
        """Of each scene, in images; from -`doubt`, ruled out, to `enough` + `lead`."""
        self._surface: dict[str, set[tuple[int, ...]]] = {scene: set() for scene in self._misses}
        self._places: dict[str, set[tuple[int, ...]]] = {scene: set() for scene in self._misses}
        self._against: dict[str, tuple[int, ...]] = {}

    @property
    def answer(self) -> str | None:
        """The scene, None while that is undecided."""
        best, *others = sorted(self.evidence, key=self.evidence.__getitem__, reverse=True)
        rivals = [self.evidence[scene] + self.options.lead for scene in others]
        return best if self.evidence[best] >= max([self.options.enough, *rivals]) else None

    @property
    def unknown(self) -> bool:
        """Whether images spoke against every scene. Later ones may speak for one again."""
        return max(self.evidence.values()) <= -self.options.doubt

    @property
    def candidates(self) -> list[str]:
        """The scenes to test on the next image: those not ruled out, and all of them when none is left."""
        left = [scene for scene, evidence in self.evidence.items() if evidence > -self.options.doubt]
        return left or list(self.evidence)

    def update(self, localizations: Sequence[Localization], camera: Camera) -> None:
        """Take in one image of `camera`, localized in some of the scenes.

        Evidence is bounded, so that the search follows a robot that is carried elsewhere. An image without a
        pose in any of them says nothing: it may be dark or show a hand. Raises KeyError for a scene that the
        checkpoint does not hold.
        """
        if all(found.world_from_camera is None for found in localizations):
            return
        most = self.options.enough + self.options.lead
        for found in localizations:
            change = self._evidence(found, camera)
            evidence = min(max(self.evidence[found.scene] + change, -self.options.doubt), most)
            self.evidence[found.scene] = evidence
            if evidence <= -self.options.doubt:  # whoever comes back there starts anew
                self._surface[found.scene].clear()
                self._places[found.scene].clear()

    def _evidence(self, found: Localization, camera: Camera) -> float:
        options, miss = self.options, self._misses[found.scene]
        misses = ray_distances(found, camera)
        if misses is None or found.world_from_camera is None:
            return -options.against * options.worst
        place = self._place(found.world_from_camera)
        speaks_for = 1.0 - float(np.mean(~(misses <= miss))) / options.tolerated
        if speaks_for <= 0:
            has_moved = place != self._against.get(found.scene)
            self._against[found.scene] = place
            return options.against * max(speaks_for, -options.worst) * has_moved
        is_new = place not in self._places[found.scene]
        self._places[found.scene].add(place)
        new = self._new_share(found, misses <= RIGHT * miss, CUBE * miss)
        return speaks_for * (new + options.seen_again * (1 - new) * is_new)

    def _place(self, world_from_camera: Array) -> tuple[int, ...]:
        """Where the camera is and looks, in steps."""
        position, axis = world_from_camera[:3, 3], world_from_camera[:3, 2]
        steps = (position / self.options.place_m, axis / np.radians(self.options.place_deg))
        return tuple(np.floor(np.concatenate(steps)).astype(np.int64).tolist())

    def _new_share(self, found: Localization, right: NDArray[np.bool_], edge: float) -> float:
        """Share of the image in which cells that are `right` lie on surface not seen before, which now is.

        Surface is remembered as the cubes of `edge` metres that it passes through.
        """
        seen = self._surface[found.scene]
        cubes = np.floor(found.cells.scene_coordinates[right] / edge).astype(np.int64)
        counts = Counter(map(tuple, cubes.tolist()))
        new = sum(count for cube, count in counts.items() if cube not in seen)
        seen.update(counts)
        return new / len(right)


def ray_distances(found: Localization, camera: Camera) -> Array | None:
    """Metres (N,) by which the cells' points miss the cells' viewing rays, seen from the pose that was found.

    Measured at the point's depth, parallel to the image; infinite behind the camera, NaN for a cell without
    a ray. None without a pose.
    """
    if found.world_from_camera is None:
        return None
    rays = _rays(camera, np.ascontiguousarray(found.cells.pixels).tobytes())
    x, y, z = apply(invert(found.world_from_camera), found.cells.scene_coordinates).T
    return np.where(z > 0, np.hypot(x - rays[:, 0] * z, y - rays[:, 1] * z), np.inf)


@lru_cache(maxsize=16)
def _rays(camera: Camera, pixels: bytes) -> Array:
    """Viewing rays (N, 2) on the plane z = 1: undoing a distortion for every image would take long."""
    return camera.rays(np.frombuffer(pixels).reshape(-1, 2))[:, :2]
