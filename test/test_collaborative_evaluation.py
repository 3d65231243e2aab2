"""The evaluation of the three tasks, of a stand-in for the network that knows the truth and errs as told."""

import json
import re
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest
from scenes import ROOM_CAMERA, render, write_room

from ofvl_core.camera import Camera
from ofvl_core.collaborative.estimator import Estimate, network_camera
from ofvl_core.collaborative.evaluation import (
    ESSENTIAL,
    EXAMPLES,
    NETWORK,
    REPEATED,
    STRAIGHT,
    evaluate,
    look_at,
)
from ofvl_core.collaborative.report import depth_table, path_table, pose_table, snippet_table, write_report
from ofvl_core.collaborative.splits import ODOMETRY, RELOCALIZATION, held_out
from ofvl_core.collaborative.yardsticks import essential_motion
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.depth_metrics import DepthProtocol
from ofvl_core.errors import DataError
from ofvl_core.geometry import Array, invert, pose_error, transform_from_rotation_vector

FRAMES = 14
DISTORTED = replace(ROOM_CAMERA, distortion=(-0.25, 0.08, 0.001, -0.001))


@dataclass
class Knowing:
    """Answers as an Estimator does, from the true poses of images: wrong by a factor and a transform."""

    scene: SceneData
    metres_per_unit: float = 1.0
    camera_error: Array = field(default_factory=lambda: np.eye(4))
    relocalizes: bool = True
    starts: int = 0
    previous: Array | None = None

    def __post_init__(self) -> None:
        self.poses = {
            self.scene.read_color(frame).tobytes(): frame.world_from_camera
            for frames in self.scene.splits.values()
            for frame in frames
        }

    def reset(self) -> None:
        self.starts += 1
        self.previous = None

    def estimate(self, image_rgb: np.ndarray, camera: Camera, scene: str) -> Estimate:
        true = self.poses[image_rgb.tobytes()]
        seen = network_camera(camera, camera.fy / 2)
        motion = None
        if self.previous is not None:
            motion = invert(self.previous) @ true
            motion[:3, 3] /= self.metres_per_unit
        self.previous = true
        depth = render(seen, true).depth.astype(np.float32) / np.float32(self.metres_per_unit)
        attention = np.linspace(0.2, 0.7, 15, dtype=np.float32).reshape(3, 5)
        pose = true @ self.camera_error if self.relocalizes else None
        return Estimate(depth, seen, motion, pose, attention, attention if self.relocalizes else None)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> SceneData:
    return held_out(load_scene(write_room(tmp_path_factory.mktemp("evaluated") / "room", FRAMES)))


def test_the_truth_has_no_errors_but_its_unit(room):
    evaluation = evaluate(Knowing(room, metres_per_unit=4.0), room)
    found = evaluation.summary()
    depth = found["depth"]
    assert (depth["images"], depth["left_out"]) == (FRAMES, 0)
    assert depth["scale"] == pytest.approx(4, rel=0.01)
    assert depth["scale_deviation"] < 0.01
    assert depth["abs_rel"] < 0.02  # the edges of crates, which half the pixels blur
    assert depth["delta_1"] > 0.98
    snippets = found["odometry"]["snippets"]
    assert snippets[NETWORK]["count"] == snippets[STRAIGHT]["count"] == FRAMES - 4
    assert snippets[REPEATED]["count"] == FRAMES - 5
    assert snippets[NETWORK]["mean_m"] < 1e-9 < snippets[REPEATED]["mean_m"]
    assert snippets[REPEATED]["mean_m"] < snippets[STRAIGHT]["mean_m"]
    (path,) = found["odometry"]["paths"]
    network = path["errors"][NETWORK]
    assert (network["poses"], network["scale"]) == (FRAMES, pytest.approx(4))
    assert network["ape_sim3_m"] < 1e-6 < network["ape_se3_m"]
    assert path["errors"][ESSENTIAL]["ape_se3_m"] is None
    poses = found["relocalization"]
    assert (poses["frames"], poses["mean_m"], poses["median_m"]) == (FRAMES, 0, 0)
    assert poses["nearest_view_m"] > 0.01


def test_relocalization_errors_are_those_made(room):
    off = transform_from_rotation_vector([0, np.radians(3.0), 0], [0.3, 0, 0.4])
    found = evaluate(Knowing(room, camera_error=off), room).summary()["relocalization"]
    assert [found[key] for key in ("mean_m", "median_m")] == pytest.approx([0.5, 0.5])
    assert [found[key] for key in ("mean_deg", "median_deg")] == pytest.approx([3.0, 3.0])


def test_motions_never_reach_over_a_gap(room):
    """A hole in the odometry split makes two paths, and of no snippet are frames on both sides."""
    ahead = room.splits[ODOMETRY]
    holed = replace(room, splits={**room.splits, ODOMETRY: ahead[:6] + ahead[8:], RELOCALIZATION: ahead[6:8]})
    knowing = Knowing(holed)
    seen = []
    evaluation = evaluate(knowing, holed, on_frame=lambda: seen.append(None))
    assert len(seen) == FRAMES
    assert knowing.starts == 2 + 2  # once a path, and for every image of a place on its own
    assert [len(path.true) for path in evaluation.odometry.paths] == [6, 6]
    assert [len(errors) for errors in evaluation.odometry.snippets.values()] == [4, 4, 4, 2]
    np.testing.assert_allclose(evaluation.odometry.snippets[NETWORK], 0, atol=1e-9)
    assert [result.frame for result in evaluation.relocalization.results] == [f.name for f in ahead[6:8]]
    assert evaluation.summary()["depth"]["images"] == 12  # places that are known do not count


def test_frames_in_both_splits_are_seen_once(room):
    seen = []
    evaluation = evaluate(Knowing(room), room, on_frame=lambda: seen.append(None))
    assert len(seen) == FRAMES
    assert len(evaluation.relocalization.results) == FRAMES


def test_what_cannot_be_measured_is_none(room):
    blind = replace(
        room,
        splits={
            "train": [],
            ODOMETRY: [replace(frame, depth=None) for frame in room.splits[ODOMETRY][:4]],
            RELOCALIZATION: room.splits[RELOCALIZATION][4:6],
        },
    )
    found = evaluate(Knowing(blind, relocalizes=False), blind).summary()
    assert found == {"scene": "room", "depth": None, "odometry": None, "relocalization": None}
    nothing = replace(room, splits={"train": room.frames("train"), ODOMETRY: [], RELOCALIZATION: []})
    with pytest.raises(DataError, match="neither the odometry nor the relocalization split"):
        evaluate(Knowing(room), nothing)


def test_frames_without_a_depth_that_counts_are_left_out(room):
    nearer = DepthProtocol(farthest=1e-2, garg_crop=False)
    assert evaluate(Knowing(room), room, nearer).depth is None
    blank = room.splits[ODOMETRY][3]
    measured = blank.depth.read_bytes()
    try:
        cv2.imwrite(str(blank.depth), np.zeros((120, 160), np.uint16))
        depth = evaluate(Knowing(room), room).summary()["depth"]
    finally:
        blank.depth.write_bytes(measured)
    assert (depth["images"], depth["left_out"]) == (FRAMES - 1, 1)


def test_depth_through_a_lens_is_compared_along_the_same_rays(room, tmp_path):
    """The stand-in answers for a camera without distortion, as the network does; the images have it."""
    frames = []
    for frame in room.splits[ODOMETRY][:2]:
        view = render(DISTORTED, frame.world_from_camera)
        paths = tmp_path / f"{frame.color.stem}.color.png", tmp_path / f"{frame.color.stem}.depth.png"
        cv2.imwrite(str(paths[0]), view.color[..., ::-1])
        cv2.imwrite(str(paths[1]), view.millimetres())
        frames.append(replace(frame, color=paths[0], depth=paths[1]))
    seen = replace(room, camera=DISTORTED, splits={ODOMETRY: frames})
    depth = evaluate(Knowing(seen), seen).summary()["depth"]
    assert depth["abs_rel"] < 0.02
    assert depth["scale"] == pytest.approx(1, abs=0.02)  # 0.97 and 0.04 if the lens were left out


@dataclass(frozen=True)
class Speckled:
    """A scene of two walls with random speckles, the far one seen through a window in the near one."""

    camera: Camera = field(default_factory=lambda: Camera(320, 240, 260.0, 255.0, 158.0, 121.0))

    def seen_from(self, first_from_camera: Array) -> np.ndarray:
        speckles = np.random.default_rng(0).integers(0, 255, (2, 512, 512), dtype=np.uint8)
        rows, columns = np.indices((self.camera.height, self.camera.width)).reshape(2, -1)
        rays = self.camera.rays(np.stack([columns, rows], axis=1)) @ first_from_camera[:3, :3].T
        images = []
        for wall, (metres, speckle) in enumerate(((4.0, 0.05), (7.0, 0.09))):
            along = (metres - first_from_camera[2, 3]) / rays[:, 2:]
            places = (first_from_camera[:3, 3] + rays * along)[:, :2]
            at = (places / speckle + 256).astype(np.float32).reshape(*self.shape, 2)
            smooth = cv2.GaussianBlur(speckles[wall], (0, 0), 0.8)
            images.append(cv2.remap(smooth, at, None, cv2.INTER_CUBIC))
            if wall == 0:
                window = (np.abs(places[:, 0] - 0.5) < 0.8).reshape(self.shape)
        return cv2.cvtColor(np.where(window, images[1], images[0]), cv2.COLOR_GRAY2RGB)

    @property
    def shape(self) -> tuple[int, int]:
        return self.camera.height, self.camera.width


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.3), (0.2, -0.05, 0.1), (0.0, 0.1, -0.3)])
def test_the_essential_matrix_tells_rotation_and_direction(shift):
    scene = Speckled()
    true = transform_from_rotation_vector([0.01, -0.03, 0.02], shift)
    images = scene.seen_from(np.eye(4)), scene.seen_from(true)
    motion = essential_motion(*images, scene.camera)
    np.testing.assert_array_equal(motion, essential_motion(*images, scene.camera))
    assert np.linalg.norm(motion[:3, 3]) == pytest.approx(1)
    true[:3, 3] /= np.linalg.norm(true[:3, 3])
    off, turned = pose_error(motion, true)
    assert off < 0.05  # of a unit: 3 degrees
    assert turned < 0.2


def test_images_without_corners_have_no_essential_matrix():
    grey = np.full((240, 320, 3), 90, np.uint8)
    assert essential_motion(grey, grey, Speckled().camera) is None
    speckled = Speckled().seen_from(np.eye(4))
    assert essential_motion(speckled, grey, Speckled().camera) is None


def test_the_page_shows_all_and_stands_alone(room, tmp_path):
    blind = replace(room, name="blind <room>")
    evaluations = [
        evaluate(Knowing(room), room),
        evaluate(Knowing(blind, relocalizes=False), blind),
    ]
    assert len(evaluations[0].examples) == EXAMPLES
    stranger = look_at(Knowing(room), room, room.splits["train"][0], "room")
    path = write_report(tmp_path, "A & B", "Numbers & pictures.", evaluations, [stranger])
    text = path.read_text()
    assert path.stat().st_size < 3e6
    assert "A &amp; B" in text
    assert "blind &lt;room&gt;" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    for words in ("Abs Rel", "ATE [m]", "APE Sim3 [m]", "median [deg]", "Places never seen", "from above"):
        assert words in text
    # of each example: image, depth, measured depth and one or two attentions; a path each, poses of one
    assert text.count("<img") == (EXAMPLES + 1) * 5 + EXAMPLES * 4 + 2 + 1
    json.dumps([each.summary() for each in evaluations], allow_nan=False)


def test_tables_have_a_row_for_all_that_was_measured(room):
    summaries = [
        evaluate(Knowing(room), room).summary(),
        {"scene": "empty", "depth": None, "odometry": None, "relocalization": None},
    ]
    tables = [table(summaries) for table in (depth_table, snippet_table, path_table, pose_table)]
    assert [len(rows) for _, rows in tables] == [1, 4, 2, 1]
    for headings, rows in tables:
        assert {len(row) for row in rows} == {len(headings)}
    headings, rows = tables[2]
    essential = next(row for row in rows if row[0].endswith(ESSENTIAL))
    assert essential[headings.index("APE SE3 [m]")] == "-"
    assert [rows for _, rows in (table(summaries[1:]) for table in (depth_table, pose_table))] == [[], []]
