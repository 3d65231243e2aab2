"""Localizer and visual odometry together, measured: is the path that both make better than either's?

    .venv/bin/python scripts/visual_odometry.py

Simulates a video of a room, trains OFVL-MS and visual odometry on it side by side, and plays a held-out drive
through both nodes as localize.launch.py starts them: no wheels, the localizer's map above visual odometry.
For ten seconds with many turns the localizer sees black images. What out/visual_odometry holds of an earlier
run is taken as it is: remove it to start over. The exit status says whether the fused path has the least
error, both on the whole path and while the localizer is blind.
"""

import array
import html
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from geometry_msgs.msg import PoseWithCovarianceStamped
from markdown_tables import markdown_table
from matplotlib.figure import Figure
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from through_ros import ROOT, Nodes, console, ofvl

from ofvl_core import checkpoint, page, realsense
from ofvl_core.bag import frame_stamps
from ofvl_core.checkpoint_folder import MANIFEST
from ofvl_core.cli.console import print_rows
from ofvl_core.collaborative import checkpoint as collaborative_checkpoint
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.robot import Robot, load_robot
from ofvl_core.files import write_json, write_text
from ofvl_core.geometry import Array, invert, pose_error
from ofvl_core.provenance import provenance
from ofvl_core.recording.messages import stamp_ns
from ofvl_ros.messages import matrix, pose_matrix

OUT = ROOT / "out" / "visual_odometry"
SCENE = "room_1"
RATE, FRAMES = 10.0, 400
"""Hz, and images of each drive."""

LOCALIZER = {"model": "ofvl_ms_lite", "augmentation": "robot", "iterations": 3000, "max-minutes": 5.0}
ODOMETRY: dict[str, object] = {}
"""Settings of the trainings, which differ from the defaults. A slower machine trains the localizer for fewer
iterations rather than longer."""

SEEN_FIRST, BLIND = 10.0, 10.0
"""Seconds of the drive before the localizer may be blinded, and for which it is."""

CAMERA = "/seen_by_localizer"
"""The topic of what the localizer is shown."""

FUSED, ALONE, HELD = "fused", "visual odometry alone", "localizer alone"
COLOURS = {FUSED: "tab:red", ALONE: "tab:blue", HELD: "tab:orange"}

ABOUT = (
    "Position errors of the base at the stamps of the images; who has no newer pose keeps the one before. "
    "Fused: odometry of the image, hung where tf had the map when it came. Visual odometry alone: the same "
    "odometry, begun at the true pose; its scale is the one that the localizer's poses have corrected. "
    "Localizer alone: the poses of single images that it believed, as if they were there at once."
)
"""What a reader must know of the numbers."""

Stamps = NDArray[np.int64]


class Training(NamedTuple):
    """A model to be trained: its folder, `ofvl`'s words and options, and who reads how far it is."""

    folder: Path
    words: tuple[str, ...]
    options: Mapping[str, object]
    load_manifest: Callable[[Path], Any]

    def run(self, scene: Path) -> None:
        """Train, or continue; a finished model is left as it is. One thread: trainings share the cores."""
        started = (self.folder / MANIFEST).exists()
        if started and self.load_manifest(self.folder).training.finished:
            return
        given = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        options = ["--resume"] if started else given
        log = self.folder.with_suffix(".log")
        ofvl(*self.words, scene, "--out", self.folder, *options, log=log, threads=1)


class Blindness(NamedTuple):
    """Nanoseconds between which (the second not included) the localizer sees nothing, and what it misses."""

    begin: int
    end: int
    degrees: float
    metres: float

    def covers(self, stamps: Any) -> Any:
        """Whether a stamp, or which of several, lies in it."""
        return (stamps >= self.begin) & (stamps < self.end)


class Drive(NamedTuple):
    """What is true: the stamps (N,) of the images and world_from_base (N, 4, 4) at them."""

    stamps: Stamps
    poses: Array

    @property
    def travelled(self) -> Array:
        """Metres and degrees (N, 2) since the first image, there and back counted alike."""
        steps = [pose_error(*pair) for pair in zip(self.poses, self.poses[1:], strict=False)]
        return np.cumsum([(0.0, 0.0), *steps], axis=0)

    @property
    def most_turning(self) -> Blindness:
        """The part of BLIND seconds in which the robot turns most, after SEEN_FIRST."""
        length = round(BLIND * 1e9)
        earliest, latest = self.stamps[0] + round(SEEN_FIRST * 1e9), self.stamps[-1] - length
        begins = np.flatnonzero((self.stamps >= earliest) & (self.stamps <= latest))
        ends = np.searchsorted(self.stamps, self.stamps[begins] + length)
        missed = self.travelled[ends] - self.travelled[begins]
        most = int(np.argmax(missed[:, 1]))
        begin, (metres, degrees) = int(self.stamps[begins[most]]), missed[most]
        return Blindness(begin, begin + length, float(degrees), float(metres))


class Together(Nodes):
    """Both nodes as localize.launch.py starts them beside one another, and what a consumer learns of them.

    Poses of the base by stamp: `fused` in the map, from the latest map->odom that had come when the image's
    odometry did; `odometry` in the frame odom; `single` in the map, of images alone that the localizer
    believed.
    """

    def __init__(self, localizer: Path, odometry: Path, robot: Robot, blindness: Blindness, log: Path):
        super().__init__("consumer", log)
        self._blindness = blindness
        self._frames: dict[str, Array] = {}
        self.fused: dict[int, Array] = {}
        self.odometry: dict[int, Array] = {}
        self.single: dict[int, Array] = {}
        shared = {"scene": SCENE, "base_frame": robot.base_frame, "use_sim_time": "true"}
        info = {"camera_info": realsense.COLOR_INFO}
        self.start(
            "localizer_node",
            {"checkpoint": localizer, **shared},
            {"image": CAMERA, **info},
            ROOT / "config" / "with_visual_odometry.yaml",
        )
        self.start(
            "visual_odometry_node",
            {"checkpoint": odometry, **shared},
            {"image": realsense.COLOR_IMAGE, "fix": "pose_with_covariance", **info},
        )
        node, qos = self.node, qos_profile_sensor_data
        self._camera = node.create_publisher(Image, CAMERA, qos)
        node.create_subscription(Image, realsense.COLOR_IMAGE, self._show, qos)
        node.create_subscription(TFMessage, "/tf", self._on_tf, 100)
        node.create_subscription(Odometry, "odometry", self._on_odometry, 100)
        node.create_subscription(PoseWithCovarianceStamped, "pose_with_covariance", self._on_single, 100)

    def drive(self, bag: Path) -> None:
        """Play the bag without its tf, which wheels measured."""
        self.await_start(self._are_waiting)
        self.play(bag, remappings={"/tf": "/wheels"})

    def _are_waiting(self) -> bool:
        images = self.node.count_subscribers(realsense.COLOR_IMAGE)
        return images == 2 and self._camera.get_subscription_count() == 1  # visual odometry and `_show`

    def _show(self, image: Image) -> None:
        if self._blindness.covers(stamp_ns(image)):
            image.data = array.array("B", bytes(len(image.data)))
        self._camera.publish(image)

    def _on_tf(self, message: TFMessage) -> None:
        for one in message.transforms:
            self._frames[one.child_frame_id] = matrix(one.transform)

    def _on_odometry(self, message: Odometry) -> None:
        stamp, odom_from_base = stamp_ns(message), pose_matrix(message.pose.pose)
        self.odometry[stamp] = odom_from_base
        if (map_from_odom := self._frames.get(message.header.frame_id)) is not None:
            self.fused[stamp] = map_from_odom @ odom_from_base

    def _on_single(self, message: PoseWithCovarianceStamped) -> None:
        self.single[stamp_ns(message)] = pose_matrix(message.pose.pose)


def latest(poses: Mapping[int, Array], stamps: Stamps) -> Array:
    """The pose that is known at each of `stamps`, (N, 4, 4): the latest, NaN before the first."""
    known = np.array(sorted(poses), np.int64)
    at = np.searchsorted(known, stamps, side="right") - 1
    found = np.array([np.full((4, 4), np.nan), *(poses[stamp] for stamp in known.tolist())])
    return found[at + 1]


def paths(together: Together, drive: Drive) -> dict[str, Array]:
    """World_from_base (N, 4, 4) at the images' stamps, as each of the three has it."""
    if not together.fused:
        raise SystemExit(f"the localizer has not put the map above odometry; the log is {together.log}")
    first = min(together.odometry)
    world_from_odom = drive.poses[drive.stamps == first][0] @ invert(together.odometry[first])
    return {
        FUSED: latest(together.fused, drive.stamps),
        ALONE: world_from_odom @ latest(together.odometry, drive.stamps),
        HELD: latest(together.single, drive.stamps),
    }


def summary(errors: Array) -> dict[str, float]:
    """Of errors in metres."""
    return {
        "rmse_m": float(np.sqrt(np.mean(errors**2))),
        "median_m": float(np.median(errors)),
        "max_m": float(np.max(errors)),
    }


def table_rows(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[list[str], list[list[str]]]:
    """Headings and formatted cells: for terminal, page and documentation."""
    parts = {"whole": "", "blind": "blind "}
    headings = [f"{prefix}{name}" for prefix in parts.values() for name in ("RMSE", "median", "max")]
    rows = [
        [name, *(f"{number:.3f}" for part in parts for number in found[part].values())]
        for name, found in results.items()
    ]
    return ["position error [m]", *headings], rows


def from_above(drive: Drive, found: Mapping[str, Array], blindness: Blindness) -> Figure:
    """The three paths over the true one."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axis = figure.subplots()
    true = drive.poses[:, :2, 3]
    axis.plot(
        *true[blindness.covers(drive.stamps)].T,
        color="0.85",
        linewidth=10,
        solid_capstyle="butt",
        label="localizer blind",
    )
    axis.plot(*true.T, color="tab:green", linewidth=2.5, label="true")
    for name, poses in found.items():
        axis.plot(*poses[:, :2, 3].T, color=COLOURS[name], linewidth=1.2, label=name)
    axis.set(xlabel="x [m]", ylabel="y [m]", aspect="equal")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def over_time(drive: Drive, errors: Mapping[str, Array], blindness: Blindness) -> Figure:
    """The errors on the way, on a logarithmic scale: they are of very different sizes."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    begin, end = ((stamp - drive.stamps[0]) * 1e-9 for stamp in (blindness.begin, blindness.end))
    axis.axvspan(begin, end, color="0.9", label="localizer blind")
    for name, metres in errors.items():
        axis.plot((drive.stamps - drive.stamps[0]) * 1e-9, metres, color=COLOURS[name], label=name)
    axis.set(xlabel="time [s]", ylabel="position error [m]", yscale="log")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def prepare() -> tuple[Path, Path, Path, Path]:
    """The scene, its bag, and the models of localizer and visual odometry; what is there is kept."""
    scene, bag = OUT / "scenes" / SCENE, OUT / "bags" / SCENE
    if not scene.exists():
        ofvl("simulate", scene.parent, "--scenes", 1, "--frames", FRAMES, "--rate", RATE)
    if not bag.exists():
        ofvl("bag", "from-dataset", scene, bag, "--split", "test")
    localizer = Training(OUT / "localizer", ("train",), LOCALIZER, checkpoint.load_manifest)
    odometry = Training(
        OUT / "odometry", ("collab", "train"), ODOMETRY, collaborative_checkpoint.load_manifest
    )
    with console.status("training"), ThreadPoolExecutor() as pool:
        list(pool.map(lambda training: training.run(scene), (localizer, odometry)))
    return scene, bag, localizer.folder, odometry.folder


def main() -> None:
    start = time.monotonic()
    scene_root, bag, localizer, odometry = prepare()
    scene, robot = load_scene(scene_root), load_robot(scene_root)
    assert robot is not None  # the simulator writes it
    frames = scene.frames("test")
    world_from_base = np.array([frame.world_from_camera for frame in frames]) @ invert(
        robot.base_from_optical
    )
    drive = Drive(np.array(frame_stamps(frames), np.int64), world_from_base)
    blindness = drive.most_turning
    with Together(localizer, odometry, robot, blindness, OUT / "nodes.log") as together:
        together.drive(bag)

    found = paths(together, drive)
    errors = {name: np.linalg.norm((poses - drive.poses)[:, :3, 3], axis=1) for name, poses in found.items()}
    known = np.isfinite(list(errors.values())).all(axis=0)
    parts = {"whole": known, "blind": known & blindness.covers(drive.stamps)}
    if not parts["blind"].any():
        raise SystemExit(f"nothing was known when the localizer went blind; the log is {together.log}")
    results = {
        name: {part: summary(metres[images]) for part, images in parts.items()}
        for name, metres in errors.items()
    }
    metres, degrees = drive.travelled[-1]
    begin, end, last = ((at - drive.stamps[0]) * 1e-9 for at in (*blindness[:2], drive.stamps[-1]))
    said = (
        f"The robot drove {metres:.1f} m and turned by {degrees:.0f} degrees in {last:.1f} s, {len(frames)} "
        f"images. From {begin:.1f} to {end:.1f} s the localizer saw black ones; in that time the robot drove "
        f"{blindness.metres:.1f} m and turned by {blindness.degrees:.0f} degrees. {len(together.odometry)} "
        f"images gave odometry and {len(together.single)} a pose that the localizer believed; compared are "
        f"the {known.sum()} from when all three were known, {parts['blind'].sum()} of them blind."
    )
    write_json(
        OUT / "results.json",
        {
            "machine": provenance(torch.device("cpu")),
            "drive": {"metres": metres, "degrees": degrees, "seconds": last, "images": len(frames)},
            "blind": {
                "from_s": begin,
                "to_s": end,
                "metres": blindness.metres,
                "degrees": blindness.degrees,
            },
            "images": {
                "with_odometry": len(together.odometry),
                "with_believed_pose": len(together.single),
                "compared": int(known.sum()),
                "compared_blind": int(parts["blind"].sum()),
            },
            "errors": results,
        },
    )
    headings, rows = table_rows(results)
    print_rows(headings, rows)
    machine = f"{provenance(torch.device('cpu'))}."
    write_text(OUT / "tables.md", f"{machine}\n\n{said}\n\n{markdown_table(headings, rows)}\n{ABOUT}\n")
    body = (
        *(f"<p>{html.escape(words)}</p>" for words in (said, ABOUT)),
        page.table(headings, rows),
        page.image(from_above(drive, found, blindness), "the paths from above"),
        page.image(over_time(drive, errors, blindness), "position errors over time"),
        f"<p>{html.escape(machine)}</p>",
    )
    write_text(OUT / "report.html", page.page("Localizer and visual odometry together", "".join(body)))
    console.print(said, highlight=False)
    console.print(
        f"tables: {OUT / 'tables.md'}\nreport: {OUT / 'report.html'}", highlight=False, soft_wrap=True
    )
    console.print(f"{(time.monotonic() - start) / 60:.1f} min in all", highlight=False)
    better = [
        f"{name} ({part})"
        for part in parts
        for name in (ALONE, HELD)
        if results[name][part]["rmse_m"] <= results[FUSED][part]["rmse_m"]
    ]
    if better:
        raise SystemExit(f"the fused path is not better than {', '.join(better)}")


if __name__ == "__main__":
    main()
