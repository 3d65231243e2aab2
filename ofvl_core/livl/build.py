"""Bags in, a data set out: the steps in their order."""

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from ofvl_core import __version__
from ofvl_core.datasets.layout import scene_name
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.files import write_json
from ofvl_core.livl import lidar_on_depth, sources
from ofvl_core.livl.calibration import Calibration, read_calibration
from ofvl_core.livl.drive import Drive
from ofvl_core.livl.lidar_on_depth import Agreement
from ofvl_core.livl.manifest import MANIFEST_FILE, summary
from ofvl_core.livl.options import Options, Progress
from ofvl_core.livl.part import NO_SECOND, Part, examine
from ofvl_core.livl.report import write_report
from ofvl_core.livl.resume import Steps
from ofvl_core.livl.robot import write_robot
from ofvl_core.livl.selection import select
from ofvl_core.livl.takes import takes, write_frames
from ofvl_core.livl.time_offset import agreed
from ofvl_core.livl.views import Moment, spread_moments
from ofvl_core.livl.world import share_world

logger = logging.getLogger(__name__)


def build(
    bags: Sequence[Path],
    out: Path,
    scene: str,
    options: Options,
    *,
    overwrite: bool = False,
    progress: Progress = lambda doing, done, total: None,
) -> Path:
    """Build the data set out/`scene` of one or more bags and return its folder.

    It appears when it is whole; what an interrupted build of the same bags and options had finished is taken
    up again. Raises DataError or ConfigError that say what to do; only a data set that was built before is
    replaced, with `overwrite`.
    """
    root = _target(bags, out, scene, overwrite)
    calibration = read_calibration(options.calibration) if options.calibration else None
    if calibration and options.time_offset is None:
        options = replace(options, time_offset=calibration.time_offset)
    with ExitStack() as stack:
        drives = _opened(bags, options, calibration, stack)
        out.mkdir(parents=True, exist_ok=True)
        steps = Steps(out / f".{root.name}-building", _fingerprint(bags, options))
        stack.callback(steps.close)
        if steps.resumed:
            logger.info("going on with a build that was interrupted")
        parts = [examine(drive, options, steps, progress) for drive in drives]
        _set_clocks(parts, options)
        share_world(parts, options)
        seen = spread_moments(parts, progress)
        agreement = lidar_on_depth.compare([moment.view for moment in seen])
        refined = None
        if options.refine_calibration:
            seen = _refine(parts, seen, agreement)
            refined = lidar_on_depth.compare([moment.view for moment in seen])
        for part in parts:
            part.reasons = select(part.survey, part.camera_path, part.time_offset, options.spacing)
        found = takes(parts, options)
        folder = steps.folder / root.name
        write_frames(folder, found, progress)
        write_robot(folder, found)
        content = summary(root.name, options, parts, found, agreement, refined)
        write_json(folder / MANIFEST_FILE, content)
        write_report(folder, content, parts, found, seen)
    _warn(content)
    if root.exists():
        shutil.rmtree(root)
    folder.replace(root)
    shutil.rmtree(steps.folder)
    return root


def _target(bags: Sequence[Path], out: Path, scene: str, overwrite: bool) -> Path:
    """The data set's folder. Raises DataError or ConfigError where building it would destroy something."""
    if out.is_file() or any(out.glob("*.mcap")) or any(out.glob("*.db3")) or (out / "metadata.yaml").exists():
        raise ConfigError(f"{out}: is a bag; after the bags give the folder of data sets")
    root = out / scene_name(scene)
    if root.exists() and not (overwrite and (root / MANIFEST_FILE).exists()):
        remedy = (
            "give --overwrite, another"
            if (root / MANIFEST_FILE).exists()
            else "it is no data set: give another"
        )
        raise DataError(f"{root}: exists already; {remedy} --scene or another folder")
    for bag in bags:
        if root.resolve() in (bag.resolve(), *bag.resolve().parents):
            raise ConfigError(f"{root}: holds the bag {bag}; give another --scene or another folder")
    return root


def _opened(
    bags: Sequence[Path], options: Options, calibration: Calibration | None, stack: ExitStack
) -> list[Drive]:
    """All drives, seen to be of one camera and to have what the options ask for."""
    wanted = [options.poses, *([] if options.compare in ("auto", NO_SECOND) else [options.compare])]
    computed = [sources.is_computed(source) for source in wanted]
    drives = [stack.enter_context(Drive(bag, options.topics, calibration, any(computed))) for bag in bags]
    names = [drive.name for drive in drives]
    if len(set(names)) < len(names):
        raise ConfigError(f"bags of one name ({', '.join(sorted(names))}); rename one, it names its drive")
    if unknown := set(options.test) - set(names):
        raise ConfigError(f"--test {', '.join(sorted(unknown))}: no such bag; choose of {', '.join(names)}")
    for drive in drives[1:]:
        if drive.camera != drives[0].camera:
            raise DataError(
                f"{drive.bag}: its camera ({drive.camera}) is not that of {drives[0].bag} "
                f"({drives[0].camera}); build a scene from recordings of one camera"
            )
    for first, second in combinations([drive.recording for drive in drives], 2):
        if first.start < second.end and second.start < first.end:
            raise DataError(
                f"{first.path} and {second.path} were recorded at the same time; leave one out, it is a copy "
                "of the other or of a part of it"
            )
    return drives


def _fingerprint(bags: Sequence[Path], options: Options) -> str:
    """Text that differs when bags, options or this software do."""
    read = [*bags, *(Path(source) for source in (options.poses, options.compare) if Path(source).exists())]
    files = [file for path in read for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    content = {
        "version": __version__,
        "options": asdict(options),
        "calibration": options.calibration and options.calibration.read_text(encoding="utf-8"),
        "files": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }
    return json.dumps(content, indent=1, default=str)


def _set_clocks(parts: Sequence[Part], options: Options) -> None:
    """Bring the camera's stamps to the trajectory's clock: as the user says, else as the turns say."""
    if options.time_offset is not None:
        for part in parts:
            part.time_offset = options.time_offset
        return
    for part, offset in zip(parts, agreed([part.found_offset for part in parts]), strict=True):
        part.time_offset = offset.seconds


def _refine(parts: Sequence[Part], seen: list[Moment], agreement: Agreement | None) -> list[Moment]:
    """Correct the calibration; the moments as they are then. Raises ConfigError where it cannot be."""
    if agreement is None or any(part.source.body != part.drive.lidar_frame for part in parts):
        raise ConfigError(
            "--refine-calibration needs poses of the LiDAR and points of it that fall on depth images; "
            "leave it out, or give --poses aloam"
        )
    for part in parts:
        part.correction = agreement.correction
    return [moment.corrected(agreement.correction) for moment in seen]


def _warn(content: dict[str, Any]) -> None:
    """Say what the user should look at before the data set is used."""
    for warning in content["warnings"]:
        logger.warning("%s", warning)
