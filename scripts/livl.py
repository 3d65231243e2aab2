"""From driving to a pose, measured: simulated drives in scenes of the paper's sizes, whose truth is known.

`.venv/bin/python scripts/livl.py [OUT]` simulates, records the drives through ROS, measures the trajectories
of aloam and kiss-icp drive by drive with evo, builds data sets with the calibration as recorded and refined,
compares their poses with the truth, trains one model of all scenes, plays the held-out drives to the
localizer node, and writes the tables into docs/livl.md. What OUT holds of an earlier run is taken as it is.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evo.core import metrics, sync
from evo.core.trajectory import PoseTrajectory3D
from markdown_tables import markdown_table
from record_through_ros import RunningRecorder, lost
from through_ros import ROOT, RunningLocalizer, console, ofvl

from ofvl_core.checkpoint import load_manifest
from ofvl_core.datasets import load_scene
from ofvl_core.files import write_json, write_text
from ofvl_core.geometry import pose_error, quaternion_xyzw
from ofvl_core.livl.comparison import aligned
from ofvl_core.livl.drive import Drive
from ofvl_core.livl.sources import trajectory
from ofvl_core.provenance import provenance
from ofvl_core.stamped_path import StampedPath
from ofvl_core.trajectory import read_tum

METHODS = ("aloam", "kiss-icp")
MEDIANS = (
    ("median_m", 100),
    ("median_deg", 1),
    ("fused_m", 100),
    ("nearest_view_m", 100),
    ("nearest_view_deg", 1),
)
"""Of the localizer's poses; there is none where it refuses more than half of the images."""

ITERATIONS, MINUTES = 12000, 28.0
PAGE = ROOT / "docs" / "livl.md"
BEGIN, END = "<!-- measured by scripts/livl.py -->\n", "<!-- end of what was measured -->\n"


def evo_trajectory(seconds: np.ndarray, poses: np.ndarray) -> PoseTrajectory3D:
    """Poses (N, 4, 4) as evo has them, whose quaternions are w, x, y, z."""
    quaternions = np.array([np.roll(quaternion_xyzw(pose), 1) for pose in poses])
    return PoseTrajectory3D(poses[:, :3, 3], quaternions, seconds)


def measure(bag: Path, truth: Path, method: str) -> dict[str, float]:
    """Errors of a method's trajectory of a bag against the truth, after rigid alignment.

    Aligned are positions and orientations together: a robot's path is flat, and its positions alone leave
    open how it is tilted about itself. `ape_deg_by_positions` is what evo says after aligning those alone.
    """
    with Drive(bag, {}, None, lidar=True) as drive:
        began = time.perf_counter()
        path = trajectory(drive, method, None).path
        seconds = time.perf_counter() - began
    true_stamps, true_poses = read_tum(Path(f"{truth}.lidar.txt"))
    reference, estimate = sync.associate_trajectories(
        evo_trajectory(true_stamps, true_poses),
        evo_trajectory(path.stamps * 1e-9, path.poses),
        max_diff=0.001,
    )
    result = {"scans": len(path), "scans_per_second": len(path) / seconds, "metres": reference.path_length}
    estimate.transform(aligned(np.array(reference.poses_se3), np.array(estimate.poses_se3)))
    relation, unit = metrics.PoseRelation, metrics.Unit
    for name, measured in {
        "ape_cm": metrics.APE(relation.translation_part),
        "ape_deg": metrics.APE(relation.rotation_angle_deg),
        "rpe_cm": metrics.RPE(relation.translation_part, 1.0, unit.meters, all_pairs=True),
        "rpe_deg": metrics.RPE(relation.rotation_angle_deg, 1.0, unit.meters, all_pairs=True),
    }.items():
        result[name] = _rmse(measured, reference, estimate)
    estimate.align(reference)
    result["ape_deg_by_positions"] = _rmse(metrics.APE(relation.rotation_angle_deg), reference, estimate)
    return result


def _rmse(measured: Any, reference: PoseTrajectory3D, estimate: PoseTrajectory3D) -> float:
    """In centimetres or degrees."""
    measured.process_data((reference, estimate))
    value = float(measured.get_statistic(metrics.StatisticsType.rmse))
    return 100 * value if measured.pose_relation == metrics.PoseRelation.translation_part else value


def built_errors(root: Path, out: Path) -> dict[str, float]:
    """Errors of a data set's poses, after one rigid alignment of all its sequences together."""
    scene, content = load_scene(root), json.loads((root / "manifest.json").read_text())
    sequences = {each["name"]: each for each in content["sequences"]}
    estimated, true = [], []
    for split in ("train", "test"):
        for frame in scene.splits[split]:
            sequence = sequences[frame.sequence]
            seconds, poses = read_tum(Path(f"{truth_of(out, Path(sequence['bag']))}.camera.txt"))
            truth = StampedPath(np.round(seconds * 1e9).astype(np.int64), poses)
            stamp = sequence["start_stamp"] + round(frame.timestamp * 1e9)
            estimated.append(frame.world_from_camera)
            true.append(truth.at(np.array([stamp]))[0])
    moved = aligned(np.array(true), np.array(estimated)) @ np.array(estimated)
    errors = np.array([pose_error(*pair) for pair in zip(moved, true, strict=True)])
    offset = json.loads((out / "bags" / root.name / "truth" / "truth.json").read_text())["time_offset"]
    found = [drive["time_offset"] for drive in content["drives"]]
    return {
        "frames": len(errors),
        "median_cm": 100 * float(np.median(errors[:, 0])),
        "rmse_cm": 100 * float(np.sqrt(np.mean(errors[:, 0] ** 2))),
        "median_deg": float(np.median(errors[:, 1])),
        "rmse_deg": float(np.sqrt(np.mean(errors[:, 1] ** 2))),
        "offset_error_ms": max(abs(1000 * (each["seconds"] - offset)) for each in found),
        "single_offset_error_ms": max(abs(1000 * (each["of_this_drive"] - offset)) for each in found),
    }


def mean(rows: list[dict[str, float]], key: str) -> float:
    """Root mean square of errors, mean of everything else."""
    values = np.array([row[key] for row in rows])
    return float(np.sqrt(np.mean(values**2))) if key[:3] in ("ape", "rpe") else float(values.mean())


def markdown(results: dict[str, Any]) -> str:
    """The measurements as the documentation shows them."""
    keys = ("ape_cm", "ape_deg", "ape_deg_by_positions", "rpe_cm", "rpe_deg", "scans_per_second")
    trajectories = [
        [scene, method, f"{mean(rows, 'metres'):.1f}", *(f"{mean(rows, key):.2f}" for key in keys)]
        for scene, methods in results["trajectories"].items()
        for method, rows in methods.items()
    ]
    built = [
        [scene, how, *(f"{errors[key]:.2f}" if key != "frames" else f"{errors[key]}" for key in errors)]
        for scene, variants in results["built"].items()
        for how, errors in variants.items()
    ]
    localized = [
        [
            each["scene"],
            str(each["frames"]),
            str(each["poses"]),
            *("" if each[key] is None else f"{factor * each[key]:.1f}" for key, factor in MEDIANS),
        ]
        for each in results["localized"]
    ]
    return (
        f"{results['bags']} drives of {results['seconds']:.0f} s, {results['lost_messages']} messages lost "
        "in recording. RMSE over a scene's drives after rigid alignment of the poses; RPE over 1 m. In "
        "brackets with positions alone aligned, which leaves open how a flat path is tilted about itself.\n\n"
        + markdown_table(
            [
                "scene",
                "method",
                "m a drive",
                "APE cm",
                "APE deg",
                "(by positions)",
                "RPE cm",
                "RPE deg",
                "scans/s",
            ],
            trajectories,
        )
        + "\nThe data sets' camera poses against the truth, all sequences of a scene aligned together once; "
        "the time offset as used and, at worst, as one drive alone gives it:\n\n"
        + markdown_table(
            [
                "scene",
                "calibration",
                "frames",
                "median cm",
                "RMSE cm",
                "median deg",
                "RMSE deg",
                "offset error ms",
                "of one drive ms",
            ],
            built,
        )
        + "\nHeld-out drives through the localizer node, one model of all scenes after "
        f"{results['iterations']} iterations; medians over all frames against the built poses, none where "
        "more than half are refused; and how far the nearest training view is:\n\n"
        + markdown_table(
            ["scene", "frames", "poses trusted", "cm", "deg", "fused cm", "nearest cm", "nearest deg"],
            localized,
        )
        + f"\n{results['provenance']}\n"
    )


def truth_of(out: Path, bag: Path) -> Path:
    """Where the files with the truth of a recorded drive begin: SCENE/drive_001 was simulated as seq-01."""
    return out / "bags" / bag.parent.name / "truth" / f"seq-{int(bag.name[-3:]):02d}"


def record(out: Path) -> tuple[dict[str, list[Path]], int]:
    """The drives as the recorder recorded them, by scene, and how many messages it lost."""
    recorded: dict[str, list[Path]] = {}
    missing = 0
    for scene in sorted(path for path in (out / "bags").iterdir() if (path / "truth").is_dir()):
        bags = sorted(path for path in scene.iterdir() if path.name.startswith("seq-"))
        folder = out / "recorded" / scene.name
        if not folder.exists():
            with RunningRecorder(folder, "drive") as recorder:
                for bag in bags:
                    recorder.record(bag, "test" if bag is bags[-1] else "train")
        recorded[scene.name] = sorted(path for path in folder.iterdir() if path.is_dir())
        for bag, again in zip(bags, recorded[scene.name], strict=True):
            if losses := lost(bag, again):
                console.print(f"{again}: lost {dict(losses)}", highlight=False)
            missing += losses.total()
    return recorded, missing


def localize(out: Path) -> list[dict[str, Any]]:
    """Summaries of the held-out drives, played to the node with a model of all scenes."""
    data = out / "data" / "refined"
    if not (out / "model").exists():
        ofvl(
            *("train", data, "--model", "ofvl_ms_lite", "--augmentation", "robot", "--out", out / "model"),
            *("--iterations", ITERATIONS, "--max-minutes", MINUTES),
        )
    summaries = []
    with RunningLocalizer(out / "model", "base_link", out / "localizer.log") as localizer:
        for scene in sorted(data.iterdir()):
            bag = out / "held_out" / scene.name
            if not bag.exists():
                ofvl("bag", "from-dataset", scene, bag)
            localizer.select_scene(scene.name)
            single, fused = localizer.score(bag, scene)
            summaries.append(single.summary() | {"fused_m": fused.summary()["median_m"]})
    return summaries


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "out" / "livl"
    if not (out / "bags").exists():
        ofvl("livl", "simulate", out / "bags")
    recorded, missing = record(out)
    results: dict[str, Any] = {"trajectories": {}, "built": {}, "lost_messages": missing}
    seconds = []
    for scene, bags in recorded.items():
        rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
        for bag in bags:
            for method in METHODS:
                rows[method].append(measure(bag, truth_of(out, bag), method))
                console.print(scene, bag.name, method, rows[method][-1], highlight=False)
            seconds.append(rows["aloam"][-1]["scans"] / 10)
        results["trajectories"][scene] = rows
        results["built"][scene] = {}
        for how, flags in {"as recorded": [], "refined": ["--refine-calibration"]}.items():
            folder = out / "data" / how.replace(" ", "_")
            if not (folder / scene).exists():
                ofvl("livl", "build", *bags, folder, "--scene", scene, *flags)
            results["built"][scene][how] = built_errors(folder / scene, out)
    results |= {"bags": len(seconds), "seconds": float(np.mean(seconds))}
    results["localized"] = localize(out)
    results["iterations"] = load_manifest(out / "model").training.iteration
    results["provenance"] = provenance(torch.device("cpu"))
    write_json(out / "results.json", results)
    tables = markdown(results)
    console.print(tables, highlight=False, soft_wrap=True)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    write_text(PAGE, before + BEGIN + tables + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
