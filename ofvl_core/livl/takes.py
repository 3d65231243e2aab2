"""Takes: the stretches of drives that become the data set's sequences, and their frames as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import DataError
from ofvl_core.livl import dataset
from ofvl_core.livl.drive import SPLITS, Stretch
from ofvl_core.livl.options import Options, Progress
from ofvl_core.livl.part import Part
from ofvl_core.livl.selection import KEPT

TRAIN, TEST = SPLITS


class Take(NamedTuple):
    """A sequence: its name, what it is for, and the places in its drive's survey of its images and frames."""

    name: str
    split: str
    part: Part
    images: NDArray[np.intp]
    frames: NDArray[np.intp]

    @property
    def start(self) -> int:
        """The camera's stamp of its first frame, ns: the zero of its frames' names."""
        return int(self.part.survey.stamps[self.frames[0]])

    def stem(self, root: Path, image: int) -> Path:
        """Where the files of a frame begin."""
        microseconds = (int(self.part.survey.stamps[image]) - self.start) // 1000
        return dataset.frame_stem(root / self.name, microseconds)


def takes(parts: Sequence[Part], options: Options) -> list[Take]:
    """The sequences of all drives: as the recorder marked them, else each drive is one.

    Those that `options` names are for testing whatever was marked; without either, the last of several is. A
    stretch without a frame is left out. Raises DataError when no frame is left, or none for training.
    """
    found: list[Take] = []
    for part, split in zip(parts, _splits(parts, options), strict=True):
        stamps = part.survey.stamps
        whole = [Stretch(split, int(stamps[0]), int(stamps[-1]) + 1)]
        for stretch in whole if options.test else part.drive.stretches(split, stamps):
            images = np.flatnonzero((stamps >= stretch.start) & (stamps < stretch.end))
            frames = images[[part.reasons[image] == KEPT for image in images]]
            if len(frames):
                name = dataset.sequence_name(len(found) + 1)
                found.append(Take(name, stretch.split, part, images, frames))
    if not any(take.split == TRAIN for take in found):
        raise DataError(
            f"no frame for training is left of {', '.join(part.drive.name for part in parts)}: "
            f"{_reasons(parts)}; give other bags, or mark fewer of them for testing"
        )
    return found


def write_frames(root: Path, found: Sequence[Take], progress: Progress) -> None:
    """Write images, depth and poses of all frames that are not there yet, and dataset.yaml."""
    total, done = sum(len(take.frames) for take in found), 0
    suffix, depth_size = "", (0, 0)
    for part in {id(take.part): take.part for take in found}.values():
        mine = [take for take in found if take.part is part]
        for take in mine:
            (root / take.name).mkdir(parents=True, exist_ok=True)
        stems = {
            int(part.survey.stamps[image]): take.stem(root, int(image))
            for take in mine
            for image in take.frames
        }
        offset = round(part.time_offset * 1e9)
        stamps = np.array(sorted(stems), np.int64)
        poses = dict(zip(stamps.tolist(), part.camera_path.at(stamps + offset), strict=True))
        for pair in part.drive.images():
            if pair.stamp not in stems or pair.depth is None:
                continue
            suffix = suffix or dataset.suffix_of(pair.color)
            if not depth_size[0] or not dataset.is_written(stems[pair.stamp]):
                depth = part.drive.read_depth(pair.depth)
                depth_size = depth.shape[1], depth.shape[0]
                dataset.write_frame(stems[pair.stamp], pair.color, depth, poses[pair.stamp], suffix)
            done += 1
            progress("writing frames", done, total)
    splits = {split: [take.name for take in found if take.split == split] for split in SPLITS}
    dataset.write_description(root, found[0].part.drive.camera, depth_size, suffix, splits)


def _splits(parts: Sequence[Part], options: Options) -> list[str]:
    if options.test:
        return [TEST if part.drive.name in options.test else TRAIN for part in parts]
    last = parts[-1] if len(parts) > 1 else None
    return [TEST if part is last else TRAIN for part in parts]


def _reasons(parts: Sequence[Part]) -> str:
    counts: dict[str, int] = {}
    for part in parts:
        for reason in part.reasons:
            counts[reason or "kept"] = counts.get(reason or "kept", 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
