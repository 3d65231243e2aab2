"""Keyframes: what they make of a pose that is nearly right, and what each choice brings.

No network takes part. A scene's training frames are left out in blocks as long as its test split, and every
fourth of them is refined from poses that are wrong by 5 cm and 2 degrees (or more) along and about each axis,
by keyframes of the frames that are left. From 3 m and 90 degrees the pose says nothing, and all keyframes are
looked through. The structure-based opponent, whose map is of the same frames, needs no pose.

The test splits are not looked at: the settings were chosen here, on shorter blocks, a fifteenth of a scene.

Then images of each recording are looked for in the keyframes of the others, which have nothing to show of
them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from typing import Annotated, Any, NamedTuple
from unittest.mock import patch

import numpy as np
import typer
from harness import Array, Table, bootstrap, pose_errors, recordings, write
from structure_based import Observations, StructureMap, StructureOptions, observe

from ofvl_core.datasets import Frame, SceneData, find_scenes, load_scene
from ofvl_core.evaluation import share_within
from ofvl_core.geometry import pose_error, transform_from_rotation_vector
from ofvl_core.keyframes import Album, flow, matching, refine, refinement, remember, selection
from ofvl_core.training.config import TrainConfig

USUAL: int = TrainConfig.model_fields["keyframes"].default

FOREIGN = 6
"""One in so many images is looked for in other scenes."""


def no_match(*_: object) -> tuple[Array, Array]:
    """What features of a blank image match."""
    return np.empty((0, 2)), np.empty((0, 3))


class Variant(NamedTuple):
    """Constants of `ofvl_core.keyframes` that differ, by module and name; how many keyframes there are, and
    whether they correct the focal length."""

    changes: Mapping[tuple[Any, str], Any] = {}
    most: int = USUAL
    is_corrected: bool = True


VARIANTS = {
    "as it is": Variant(),
    "features never looked for": Variant({(refinement, "SURE"): np.inf, (refinement, "match"): no_match}),
    "features where landmarks give no pose": Variant({(refinement, "SURE"): np.inf}),
    "features always looked for": Variant({(refinement, "SURE"): 0.0}),
    "features of 6 keyframes": Variant({(refinement, "MATCHED"): 6}),
    "features of 48 keyframes": Variant({(refinement, "MATCHED"): 48}),
    "features always, of 48 keyframes": Variant({(refinement, "SURE"): 0.0, (refinement, "MATCHED"): 48}),
    "features without rivals of the same keyframe": Variant({(matching, "ALIKE"): 1}),
    "features of keyframes that show the image, not beside it": Variant({(refinement, "AROUND"): 1}),
    "landmarks of 4 keyframes": Variant({(refinement, "FOLLOWED"): 4}),
    "not followed again from a pose that fits": Variant({(refinement, "SETTLED"): np.inf}),
    "120 keyframes a scene": Variant(most=120),
    "focal length as it is given": Variant(is_corrected=False),
    "landmarks may come back anywhere": Variant({(flow, "RETURN"): np.inf}),
}

ERRORS = ((0.05, 2.0), (0.3, 6.0), (3.0, 90.0))
"""Metres and degrees, standard deviations along and about each axis, of the poses that are refined."""


class Refined(NamedTuple):
    """Errors (N, 2), metres and degrees, of all poses, and how many of them keyframes refined."""

    errors: Array
    count: int

    def text(self) -> str:
        """Median error, share within 5 cm and 5 degrees, poses refined."""
        metres, degrees = np.median(self.errors, axis=0)
        low, high = bootstrap(self.errors[:, 0], np.median)
        middle = f"{100 * metres:.1f} [{100 * low:.1f}, {100 * high:.1f}] cm, {degrees:.1f} deg"
        return f"{middle}, {100 * share_within(self.errors):.0f} %, {self.count} of {len(self.errors)}"


def blocks(scene: SceneData) -> Iterator[tuple[SceneData, list[Frame]]]:
    """The scene without a block of its training frames, and every fourth frame of the block."""
    frames, length = scene.frames("train"), len(scene.frames("test"))
    for start in range(0, len(frames), length):
        left = frames[:start] + frames[start + length :]
        yield replace(scene, splits={"train": left}), frames[start : start + length : 4]


def once(make: Callable[[SceneData, Frame], Any]) -> Callable[[SceneData, Frame], Any]:
    """The same, remembering what it made of a frame: variants have most of it in common."""
    made: dict[Any, Any] = {}

    def remembered(scene: SceneData, frame: Frame) -> Any:
        if frame.color not in made:
            made[frame.color] = make(scene, frame)
        return made[frame.color]

    return remembered


def albums_of(scene: SceneData, most: int) -> list[Album]:
    """The keyframes of the frames that each of the `blocks` leaves."""
    albums = [remember(rest, most) for rest, _ in blocks(scene)]
    return [album for album in albums if album is not None]


def refined(scene: SceneData, albums: Sequence[Album], wrong: tuple[float, float]) -> Refined:
    """What the keyframes of its `blocks` make of poses that are so `wrong`, metres and degrees."""
    random = np.random.default_rng(0)
    errors, count = [], 0
    for (_, left_out), album in zip(blocks(scene), albums, strict=True):
        for frame in left_out:
            turn, move = random.normal(0, np.radians(wrong[1]), 3), random.normal(0, wrong[0], 3)
            pose = frame.world_from_camera @ transform_from_rotation_vector(turn, move)
            better = refine(pose, scene.read_color(frame), scene.camera, album)
            if better is not None:
                pose, count = better.world_from_camera, count + 1
            errors.append(pose_error(pose, frame.world_from_camera))
    return Refined(np.array(errors), count)


def opponents(scene: SceneData) -> Refined:
    """What the structure-based opponent makes of the same images, by the same frames."""
    options = StructureOptions()
    frames = scene.frames("train")
    seen = {one.color: observe(replace(scene, splits={"train": [one]}), options) for one in frames}
    truths, poses = [], []
    for rest, left_out in blocks(scene):
        observed = [seen[frame.color] for frame in rest.frames("train")]
        opponent = StructureMap(scene.camera, Observations(*map(np.concatenate, zip(*observed, strict=True))))
        truths += left_out
        poses += [opponent.localize(scene.read_color(frame)) for frame in left_out]
    return Refined(pose_errors(truths, poses), sum(pose is not None for pose in poses))


def corrected(scenes: list[SceneData], scales: list[float], theirs: list[Refined]) -> list[Refined]:
    """What the opponent makes of them with the focal lengths that keyframes find."""
    return [
        known if scale == 1 else opponents(replace(scene, camera=scene.camera.zoomed(scale)))
        for scene, scale, known in zip(scenes, scales, theirs, strict=True)
    ]


def ahead(ours: Array, theirs: Array) -> str:
    """Our median errors and share right less theirs, of errors (N, 2) each, with intervals."""
    pairs = np.hstack([ours, theirs])

    def text(name: str, unit: float, less: Callable[[Array], float]) -> str:
        value, low, high = (one / unit for one in (less(pairs), *bootstrap(pairs, less)))
        return f"{value:.1f} [{low:.1f}, {high:.1f}] {name}"

    def medians(column: int) -> Callable[[Array], float]:
        return lambda rows: float(np.median(rows[:, column]) - np.median(rows[:, column + 2]))

    share = text("%", 0.01, lambda rows: share_within(rows[:, :2]) - share_within(rows[:, 2:]))
    return f"{text('cm', 0.01, medians(0))}, {text('deg', 1, medians(1))}, {share}"


def foreign(scenes: list[SceneData], albums: list[Album | None]) -> tuple[int, int]:
    """How often an image was looked for in another scene, from some pose there, and how often found."""
    asked = accepted = 0
    for scene in scenes:
        images = [scene.read_color(frame) for frame in scene.frames("train")[::FOREIGN]]
        for other, album in zip(scenes, albums, strict=True):
            if other is scene or album is None:
                continue
            poses = cycle(frame.world_from_camera for frame in other.frames("train")[::FOREIGN])
            for image, pose in zip(images, poses, strict=False):
                asked += 1
                accepted += refine(pose, image, scene.camera, album) is not None
    return asked, accepted


def main(
    rows: Annotated[int, typer.Option(help="Rows to measure, from the first; for a trial.")] = 100,
) -> None:
    """Measure on the recorded scenes; results go to keyframes.json."""
    scenes = [load_scene(path) for path in find_scenes([recordings("scenes")])]
    theirs = [opponents(scene) for scene in scenes]
    kept: dict[int, list[list[Album]]] = {}
    wanted = [("as it is", wrong) for wrong in ERRORS] + [(name, ERRORS[0]) for name in VARIANTS][1:]
    table: list[list[str | float | int | None]] = []
    figures: dict[str, Any] = {}

    def add(name: str, asked: str, found: Sequence[Refined]) -> None:
        table.append([name, asked, *(one.text() for one in found)])
        for scene, one in zip(scenes, found, strict=True):
            middle, share = np.median(one.errors, axis=0).tolist(), share_within(one.errors)
            figures[f"{scene.name}, {name}, {asked}"] = [*middle, share, one.count, len(one.errors)]

    with patch.object(selection, "_candidate", once(selection._candidate)):
        whole = [remember(scene, USUAL) for scene in scenes]
        scales = [1.0 if album is None else album.focal_scale for album in whole]
        asked, accepted = foreign(scenes, whole)
        for name, wrong in wanted[:rows]:
            changes, most, is_corrected = VARIANTS[name]
            if most not in kept:
                kept[most] = [albums_of(scene, most) for scene in scenes]
            albums = kept[most]
            if not is_corrected:
                albums = [[album.rescaled(1.0) for album in those] for those in albums]
            with ExitStack() as stack:
                for (module, constant), value in changes.items():
                    stack.enter_context(patch.object(module, constant, value))
                ours = [refined(scene, those, wrong) for scene, those in zip(scenes, albums, strict=True)]
            add(name, f"{100 * wrong[0]:g} cm, {wrong[1]:g} deg", ours)
            if (name, wrong) == ("as it is", ERRORS[-1]):
                add("structure-based", "any", theirs)
                add("structure-based, our focal length", "any", corrected(scenes, scales, theirs))
                both = zip(ours, theirs, strict=True)
                leads = [ahead(one.errors, other.errors) for one, other in both]
                table.append(["as it is, less structure-based", "any", *leads])
    columns = ["keyframes", "poses wrong by", *(scene.name for scene in scenes)]
    note = (
        "Median errors, share within 5 cm and 5 degrees, poses refined; differences are of the same images. "
        f"Images were looked for in another recording {asked} times, and found {accepted} times. Focal "
        f"lengths, times what is given: {', '.join(f'{one:.3f}' for one in scales)}."
    )
    write(
        "keyframes",
        " ".join(["benchmarks/keyframes.py", *sys.argv[1:]]),
        [Table("Poses refined by keyframes", columns, table, note)],
        figures | {"foreign": {"asked": asked, "accepted": accepted}},
    )


if __name__ == "__main__":
    typer.run(main)
