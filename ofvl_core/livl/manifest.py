"""What was built of what, and how well it holds together: manifest.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ofvl_core import __version__
from ofvl_core.livl.lidar_on_depth import Agreement
from ofvl_core.livl.options import Options
from ofvl_core.livl.part import Part
from ofvl_core.livl.selection import dropped
from ofvl_core.livl.takes import TEST, Take

MANIFEST_FILE = "manifest.json"

LITTLE_OVERLAP = 0.4
"""Of two maps: below it, they may be of two places."""


def summary(
    scene: str,
    options: Options,
    parts: Sequence[Part],
    takes: Sequence[Take],
    agreement: Agreement | None,
    refined: Agreement | None,
) -> dict[str, Any]:
    """The manifest: drives, sequences, the check of the calibration as given and refined, warnings."""
    return {
        "scene": scene,
        "made_by": f"ofvl_ros {__version__}",
        "poses": options.poses,
        "drives": [_drive(part, options) for part in parts],
        "sequences": [_sequence(take) for take in takes],
        "lidar_on_depth": None if agreement is None else _agreement(agreement),
        "lidar_on_depth_refined": None if refined is None else _agreement(refined),
        "warnings": [*_warnings(parts, options, refined or agreement), *_about_splits(takes)],
    }


def _drive(part: Part, options: Options) -> dict[str, Any]:
    path = part.camera_path
    found, second = part.found_offset, part.second
    moved = np.linalg.norm(np.diff(path.poses[:, :3, 3], axis=0), axis=1)
    return {
        "bag": str(part.drive.bag),
        "seconds": round(float(path.stamps[-1] - path.stamps[0]) * 1e-9, 3),
        "metres": round(float(moved.sum()), 3),
        "poses": len(path),
        "damage": part.drive.recording.damage,
        "time_offset": {
            "seconds": round(part.time_offset, 5),
            "from": "user" if options.time_offset is not None else "turns",
            "of_this_drive": round(found.seconds, 5) if found.turns else None,
            "deviation": round(found.deviation, 5) if np.isfinite(found.deviation) else None,
        },
        "second_opinion": None
        if second is None
        else {
            "from": part.second_source,
            "position_rmse": round(second.position, 4),
            "rotation_rmse_deg": round(float(np.degrees(second.rotation)), 3),
            "largest": round(second.largest, 4),
            "largest_at": round(second.largest_at, 2),
        },
        "overlap_with_earlier": None if part.overlap is None else round(part.overlap, 3),
        "world_from_trajectory": np.round(part.world_from_frame, 9).tolist(),
    }


def _sequence(take: Take) -> dict[str, Any]:
    reasons = [take.part.reasons[image] for image in take.images]
    return {
        "name": take.name,
        "split": take.split,
        "bag": str(take.part.drive.bag),
        "start_stamp": take.start,
        "images": len(take.images),
        "frames": len(take.frames),
        "dropped": dropped(reasons),
    }


def _agreement(agreement: Agreement) -> dict[str, Any]:
    correction = agreement.correction
    turn = np.degrees(Rotation.from_matrix(correction[:3, :3]).as_rotvec())
    return {
        "points": agreement.points,
        "median": round(agreement.median, 4),
        "share_agreeing": round(agreement.share, 4),
        "correction_deg": np.round(turn, 3).tolist(),
        "correction_m": np.round(correction[:3, 3], 4).tolist(),
        "deviation_deg": np.round(np.degrees(agreement.deviations[:3]), 3).tolist(),
        "deviation_m": np.round(agreement.deviations[3:], 4).tolist(),
    }


def _warnings(parts: Sequence[Part], options: Options, agreement: Agreement | None) -> list[str]:
    found = []
    for part in parts:
        name, second = part.drive.name, part.second
        if part.drive.recording.damage:
            found.append(part.drive.recording.damage)
        if second is not None and second.parted:
            found.append(
                f"{name}: {options.poses} and {part.second_source} part by {100 * second.position:.0f} cm "
                f"and {np.degrees(second.rotation):.1f} deg, most {second.largest_at:.0f} s after the start; "
                "at least one is wrong: look at report.html before training"
            )
        if part.second_source not in ("none", "") and second is None:
            found.append(f"{name}: {part.second_source} gives too few poses to compare")
    if options.time_offset is None and not any(part.found_offset.certain for part in parts):
        found.append(
            "the time offset between camera and LiDAR cannot be told, for the robot hardly turned; 0 is "
            "taken: record more turns, or give --time-offset"
        )
        if part.overlap is not None and part.overlap < LITTLE_OVERLAP:
            found.append(
                f"{name}: only {part.overlap:.0%} of its map and of those before it agree; see in "
                "report.html whether it lies where it belongs"
            )
    if agreement is None and any(part.drive.has_lidar for part in parts):
        found.append("LiDAR points hardly fall on depth images: the calibration between them is not checked")
    if agreement is not None and agreement.doubtful:
        remedy = "correct it" if options.refine_calibration else "correct it, or give --refine-calibration"
        found.append(
            f"LiDAR and depth disagree: {agreement.share:.0%} of the points agree, and the calibration "
            f"seems wrong by {np.degrees(agreement.turn):.1f} deg and {100 * agreement.shift:.0f} cm; "
            f"{remedy}"
        )
    return found


def _about_splits(takes: Sequence[Take]) -> list[str]:
    if any(take.split == TEST for take in takes):
        return []
    return ["no sequence is for testing: record another drive, or name one of several with --test"]
