"""Measures how scenes are recognised by their own predictions: `python scripts/recognition.py`.

Simulates eight rooms, four of them twins of the others (the same shell, paint and furniture along the walls;
other pictures and free-standing furniture), and two rooms of another kind. One model is trained on rooms 1 to
5, of which 5 is a twin of 1; rooms 6 to 8, twins of 2 to 4, and the two others are unknown to it. Every
held-out image of a known room and every image of an unknown one is then a start of the search. About half an
hour on two cores. What is there is not made again; `--model` and `--rooms` give what else to measure.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from markdown_tables import markdown_table
from through_ros import ROOT, console, ofvl

from ofvl_core.camera import Camera
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.datasets.loading import find_scenes
from ofvl_core.files import write_json, write_text
from ofvl_core.geometry import Array
from ofvl_core.localizer import Localization, Localizer
from ofvl_core.recognition import SceneSearch

OUT = ROOT / "out" / "recognition"
ROOMS, TWINS, KNOWN = 8, 4, 5
IMAGES = 40
"""Images within which a known room is to be recognised: 13 s of a robot's drive at 3 a second."""


class Drive(NamedTuple):
    """The images of one sequence, each localized in every scene, and where they were taken."""

    found: list[list[Localization]]
    positions: Array


class Search(NamedTuple):
    """How a search ended: 'unknown', a scene, or None while undecided."""

    answer: str | None
    images: int
    metres: float
    passes: int


def make_rooms(folder: Path) -> None:
    """Simulate the rooms where they are not there yet."""
    if not (folder / "rooms").is_dir():
        ofvl("simulate", folder / "rooms", "--scenes", ROOMS, "--twins", TWINS)
    if not (folder / "others").is_dir():
        ofvl("simulate", folder / "others", "--scenes", 2, "--seed", 5, "--frames", 60)
        for room in sorted((folder / "others").iterdir()):
            room.rename(room.with_name(f"other_{room.name}"))


def train(folder: Path) -> None:
    """Train the model on the known rooms where there is none yet."""
    if not (folder / "model").is_dir():
        rooms = [folder / "rooms" / f"room_{number + 1}" for number in range(KNOWN)]
        ofvl(
            "train", *rooms, "--model", "ofvl_ms_lite", "--augmentation", "robot", "--out", folder / "model",
            "--iterations", 3000, "--max-minutes", 12,
        )  # fmt: skip


def drives(localizer: Localizer, scene: SceneData, splits: Sequence[str]) -> list[Drive]:
    """Localize every image of a scene's splits in every scene of the model, once."""
    result = []
    for split in splits:
        for _, group in groupby(scene.frames(split), key=lambda frame: frame.sequence):
            frames = list(group)
            found = [
                localizer.localize_in_each(scene.read_color(frame), scene.camera, localizer.scenes)
                for frame in frames
            ]
            result.append(Drive(found, np.array([frame.world_from_camera[:3, 3] for frame in frames])))
    return result


def search(searched: SceneSearch, drive: Drive, camera: Camera, start: int, end: int) -> Search:
    """Search from image `start` on until there is an answer, as a node does."""
    searched.reset()
    passes, metres, answer = 0, 0.0, None
    for number in range(start, end):
        candidates = searched.candidates
        passes += len(candidates)
        if number > start:
            metres += float(np.linalg.norm(drive.positions[number] - drive.positions[number - 1]))
        searched.update([found for found in drive.found[number] if found.scene in candidates], camera)
        answer = searched.answer or ("unknown" if searched.unknown else None)
        if answer is not None:
            return Search(answer, number - start + 1, metres, passes)
    return Search(None, end - start, metres, passes)


def measure(localizer: Localizer, scene: SceneData, searched: SceneSearch, images: int) -> dict[str, Any]:
    """One row of the table: all starts in a scene, searched for at most `images` where it is known.

    In an unknown scene the robot drives on to the end of the sequence, at least for half of `images`.
    """
    known = scene.name in localizer.scenes
    searches, best = [], []
    for drive in drives(localizer, scene, ["test"] if known else ["train", "test"]):
        length = len(drive.found)
        for start in range(length - (images if known else images // 2) + 1):
            end = start + images if known else length
            searches.append(search(searched, drive, scene.camera, start, end))
        for found in drive.found:
            best.append(max(found, key=lambda one: one.inlier_share).scene)
    answers = [result.answer for result in searches]
    right = scene.name if known else "unknown"
    answered = [result for result in searches if result.answer == right]
    passes, looked = (sum(getattr(result, name) for result in searches) for name in ("passes", "images"))
    return {
        "scene": scene.name,
        "known": known,
        "starts": len(searches),
        "right": answers.count(right),
        "undecided": answers.count(None),
        "falsely_unknown": answers.count("unknown") if known else 0,
        "wrong": sum(answer in localizer.scenes and answer != right for answer in answers),
        "images_median": float(np.median([result.images for result in answered])) if answered else None,
        "images_p95": float(np.percentile([result.images for result in answered], 95)) if answered else None,
        "metres_median": float(np.median([result.metres for result in answered])) if answered else None,
        "passes_an_image": passes / max(looked, 1),
        "most_inliers_in_right_scene": float(np.mean([name == scene.name for name in best]))
        if known
        else None,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for the documentation."""
    headings = (
        "room", "starts", "right", "undecided", "wrong", "images", "95 %", "metres", "passes an image",
        "single images",
    )  # fmt: skip
    lines = []
    for row in rows:
        single = row["most_inliers_in_right_scene"]
        numbers = [row[key] for key in ("images_median", "images_p95", "metres_median", "passes_an_image")]
        lines.append(
            [
                row["scene"] if row["known"] else f"{row['scene']}, unknown",
                *(str(row[key]) for key in ("starts", "right", "undecided")),
                str(row["wrong"] + row["falsely_unknown"]),
                *(
                    "" if number is None else f"{number:.{digits}f}"
                    for number, digits in zip(numbers, (0, 0, 1, 1), strict=True)
                ),
                "" if single is None else f"{100 * single:.0f} %",
            ]
        )
    return markdown_table(headings, lines)


def main(
    out: Path = OUT,
    model: Annotated[Path | None, typer.Option(help="A checkpoint; otherwise one is trained.")] = None,
    rooms: Annotated[list[Path] | None, typer.Option(help="Scenes; otherwise they are simulated.")] = None,
    images: int = IMAGES,
) -> None:
    """Search from every image of known and unknown scenes; JSON and a table go to OUT."""
    if rooms is None:
        make_rooms(out)
    if model is None:
        train(out)
    localizer = Localizer(model or out / "model")
    searched = SceneSearch(localizer.manifest)
    rows = []
    for path in find_scenes(rooms or [out / "rooms", out / "others"]):
        rows.append(measure(localizer, load_scene(path), searched, images))
        console.print(table(rows[-1:]).splitlines()[-1], highlight=False, soft_wrap=True)
    write_json(out / "results.json", {"images": images, "scenes": rows})
    write_text(out / "table.md", table(rows))
    known = [row for row in rows if row["known"]]
    starts, right = (sum(row[key] for row in known) for key in ("starts", "right"))
    wrong = sum(row["wrong"] for row in rows)
    console.print(f"known rooms: {right} of {starts} right; wrong answers in all: {wrong}", highlight=False)
    console.print(f"results: {out / 'results.json'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
