"""7-Scenes, 12-Scenes and LIVL in their native layouts, made from views of a room that can be checked."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import misfit, render, walk, write_image, write_views
from test_cli import ofvl

from ofvl_core.camera import Camera
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.datasets.livl import DESCRIPTION
from ofvl_core.datasets.registration import DepthRegistration
from ofvl_core.datasets.seven_scenes import COLOR_FROM_DEPTH
from ofvl_core.errors import DataError
from ofvl_core.geometry import invert, pose_error, transform_from_rotation_vector
from ofvl_core.trajectory import read_tum

KINECT_COLOR = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)
KINECT_DEPTH = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)


@pytest.fixture(scope="module")
def chess(tmp_path_factory) -> Path:
    """Two sequences of a scene like 7-Scenes': poses are the depth sensor's, depth is not registered."""
    root = tmp_path_factory.mktemp("7scenes") / "chess"
    for sequence, pose in ((1, walk(4)[3]), (2, walk(6)[5])):
        stem = root / f"seq-{sequence:02d}" / "frame-000000"
        write_image(Path(f"{stem}.color.png"), render(KINECT_COLOR, pose @ invert(COLOR_FROM_DEPTH)).color)
        depth = render(KINECT_DEPTH, pose).millimetres()
        depth[:20, :50] = 65535
        write_image(Path(f"{stem}.depth.png"), depth)
        np.savetxt(f"{stem}.pose.txt", pose)
    (root / "TrainSplit.txt").write_text("sequence1 \r\n")
    (root / "TestSplit.txt").write_text("sequence2\r\n")
    return root


def test_7_scenes_is_registered_to_colour(chess):
    scene = load_scene(chess)
    assert scene.camera == KINECT_COLOR
    for frame in scene.frames("train") + scene.frames("test"):
        assert scene.read_depth(frame).shape == (480, 640)
        metres, colors = misfit(scene, frame)
        assert metres < 0.004
        assert colors <= 2


def test_7_scenes_as_published_code_takes_it(chess):
    scene = load_scene(chess, register_depth=False)
    assert scene.camera == KINECT_COLOR
    frame = scene.frames("train")[0]
    pose = np.loadtxt(chess / "seq-01" / "frame-000000.pose.txt")
    assert np.allclose(frame.world_from_camera, pose, atol=1e-9)
    assert np.array_equal(scene.read_depth(frame)[30:], render(KINECT_DEPTH, pose).millimetres()[30:])
    assert not scene.read_depth(frame)[:20, :50].any()
    assert misfit(scene, frame)[0] > 0.03  # what registration is for


@pytest.mark.parametrize("register", ["true", "false"])
def test_evaluation_measures_the_pose_that_training_meant(chess, tmp_path, register):
    """The truth of `ofvl evaluate` is the colour camera's pose or, untouched, the published one."""
    model, out = tmp_path / "model", tmp_path / "poses"
    setting = ("--set", f"register_depth={register}", "--set", "network.input_height=64")
    ofvl("train", chess, "--out", model, "--iterations", "1", *setting)
    ofvl("evaluate", model, chess, "--trajectories", out)
    _, truth = read_tum(out / "chess.seq-02.truth.txt")
    published = np.loadtxt(chess / "seq-02" / "frame-000000.pose.txt")
    meant = published @ invert(COLOR_FROM_DEPTH) if register == "true" else published
    assert np.allclose(truth[0], meant, atol=1e-6)


def test_the_kinects_calibration():
    """The colour camera sits 2.56 cm to the depth sensor's right, turned by 0.67 degrees."""
    depth_from_color = invert(COLOR_FROM_DEPTH)
    assert COLOR_FROM_DEPTH[:3, 3] == pytest.approx([-0.02556, 0.00010, 0.00203], abs=5e-6)
    metres, degrees = pose_error(depth_from_color, np.eye(4))
    assert metres == pytest.approx(0.0256, abs=1e-4)
    assert degrees == pytest.approx(0.669, abs=1e-3)
    assert depth_from_color[0, 3] > 0.025


def test_registered_depth_has_no_gaps_but_where_nothing_was_measured(chess):
    """A slanted wall: all the sensor saw of the colour image is filled, the rim it did not see is not."""
    registration = DepthRegistration(KINECT_DEPTH, KINECT_COLOR, COLOR_FROM_DEPTH)
    columns = np.arange(640, dtype=np.uint16)[None].repeat(480, axis=0)
    registered = registration(1000 + 4 * columns)
    assert registered[40:440, 60:590].all()
    assert not registered[:, :5].any()
    assert not registered[:15].any()


def test_the_nearer_surface_hides_the_farther_one():
    """Beside a near board the sensor sees some of the wall that the board hides from the colour camera."""
    registration = DepthRegistration(KINECT_DEPTH, KINECT_COLOR, COLOR_FROM_DEPTH)
    depth = np.full((480, 640), 4000, np.uint16)
    depth[:, 200:440] = 800
    board = registration(depth)[240]
    near = np.flatnonzero((board > 0) & (board < 1500))
    assert np.ptp(near) + 1 == len(near)  # one piece
    assert len(near) == pytest.approx(240 * 525 / 585, abs=3)


@settings(deadline=None, max_examples=30)
@given(
    turn=st.floats(-0.02, 0.02),
    shift=st.floats(-0.03, 0.03),
    focal=st.floats(400, 700),
    width=st.sampled_from([320, 640]),
)
def test_registration_puts_the_plane_where_it_is(turn, shift, focal, width):
    """A wall two metres ahead of the sensor, for any calibration: lifted again it is that wall."""
    depth_camera = Camera(160, 120, 140.0, 140.0, 80.0, 60.0)
    color_camera = Camera(width, 240, focal, focal, width / 2, 120.0)
    color_from_depth = transform_from_rotation_vector((0, turn, 0), (shift, 0, 0))
    registration = DepthRegistration(depth_camera, color_camera, color_from_depth)
    registered = registration(np.full((120, 160), 2000, np.uint16))
    camera = registration.camera
    assert registered.shape == (camera.height, camera.width)
    assert camera.width <= width
    rows, columns = np.nonzero(registered)
    points = camera.rays(np.stack([columns, rows], axis=1)) * registered[rows, columns, None]
    in_depth = (points - 1000 * color_from_depth[:3, 3]) @ color_from_depth[:3, :3]
    assert np.abs(in_depth[:, 2] - 2000).max() < 2


def test_what_is_not_7_scenes_is_not_taken_for_it(tmp_path, chess, caplog):
    load_scene(chess)
    assert not caplog.text
    own = shutil.copytree(chess, tmp_path / "garage")
    load_scene(own)
    assert "read as a 7-Scenes recording" in caplog.text
    write_image(own / "seq-01" / "frame-000000.color.png", np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(DataError, match=r"camera-intrinsics\.txt: missing, and images of 80x60"):
        load_scene(own)


def test_packed_and_missing_sequences_are_told_apart(tmp_path, chess):
    (tmp_path / "TrainSplit.txt").write_text("sequence1\n")
    with pytest.raises(DataError, match="no such folder"):
        load_scene(tmp_path)
    (tmp_path / "seq-01.zip").touch()
    with pytest.raises(DataError, match=r"seq-01\.zip: .*unzip it"):
        load_scene(tmp_path)


COLOR_12 = Camera(1296, 968, 1158.3, 1153.53, 649.0, 483.5).resized(648, 484)  # half, to be quick
DEPTH_12 = Camera(640, 480, 572.0, 572.0, 320.0, 240.0).resized(320, 240)
INFO = """m_versionNumber = 4
m_sensorName = StructureSensor
m_colorWidth = 648
m_colorHeight = 484
m_depthWidth = 320
m_depthHeight = 240
m_depthShift = 1000
m_calibrationColorIntrinsic = {color}
m_calibrationColorExtrinsic = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
m_calibrationDepthIntrinsic = {depth}
m_calibrationDepthExtrinsic = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
m_frames.size = 3
"""


def sixteen(camera: Camera) -> str:
    return f"{camera.fx} 0 {camera.cx} 0 0 {camera.fy} {camera.cy} 0 0 0 1 0 0 0 0 1"


def write_kitchen(root: Path, depth_camera: Camera = DEPTH_12) -> Path:
    """A scene like 12-Scenes': frame 0 for testing, 1 and 2 for training, 3 without a pose."""
    root.mkdir(parents=True)
    (root / "info.txt").write_text(INFO.format(color=sixteen(COLOR_12), depth=sixteen(depth_camera)))
    (root / "split.txt").write_text(
        "sequence0 [frames=1]  [start=0 ; end=0]\nsequence1 [frames=3]  [start=1 ; end=3]\n"
    )
    for number, pose in enumerate(walk(3)):
        stem = root / "data" / f"frame-{number:06d}"
        write_image(Path(f"{stem}.color.jpg"), render(COLOR_12, pose).color)
        write_image(Path(f"{stem}.depth.png"), render(depth_camera, pose).millimetres())
        np.savetxt(f"{stem}.pose.txt", pose)
    for kind in ("color.jpg", "depth.png"):
        lost = root / "data" / f"frame-000003.{kind}"
        lost.write_bytes((root / "data" / f"frame-000002.{kind}").read_bytes())
    (root / "data" / "frame-000003.pose.txt").write_text("INF -INF 1.#INF INF\n" * 4)
    return root


@pytest.fixture(scope="module")
def kitchens(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("12scenes")
    write_kitchen(out / "apt1" / "kitchen")
    shutil.copytree(out / "apt1", out / "apt2")
    return out


def test_12_scenes_is_found_two_levels_deep_and_named_by_both(kitchens):
    found = find_scenes([kitchens])
    assert [path.relative_to(kitchens).as_posix() for path in found] == ["apt1/kitchen", "apt2/kitchen"]
    assert [load_scene(path).name for path in found] == ["apt1_kitchen", "apt2_kitchen"]
    assert find_scenes([kitchens / "apt2"]) == found[1:]


def test_12_scenes_splits_and_infinite_poses(kitchens, caplog):
    with caplog.at_level(logging.WARNING):
        scene = load_scene(kitchens / "apt1" / "kitchen")
    assert [frame.name for frame in scene.frames("test")] == ["sequence0/frame-000000"]
    assert [frame.name for frame in scene.frames("train")] == [
        "sequence1/frame-000001",
        "sequence1/frame-000002",
    ]
    assert scene.skipped_poses == 1
    assert "skipped 1 of 4 frames" in caplog.text


def test_12_scenes_depth_covers_the_colour_image(kitchens):
    scene = load_scene(kitchens / "apt1" / "kitchen")
    assert scene.camera == COLOR_12
    at_640 = scene.camera.resized(640, 480)
    assert (at_640.fx, at_640.fy) == pytest.approx((572.0, 572.0), abs=0.01)  # the paper's focal length
    for frame in scene.frames("train"):
        assert scene.read_depth(frame).shape == (240, 320)
        metres, colors = misfit(scene, frame)
        assert metres < 0.004
        assert colors < 8  # JPEG


def test_12_scenes_depth_of_another_view_is_carried_over(tmp_path):
    """Other recordings in the layout have depth of a wider view than colour: 1170 and 571.6 pixels."""
    root = write_kitchen(tmp_path / "scans" / "hall", Camera(320, 240, 270.0, 270.0, 161.0, 119.0))
    scene = load_scene(root)
    frame = scene.frames("train")[0]
    depth = scene.read_depth(frame)
    assert depth.all()
    assert misfit(scene, frame)[0] < 0.004
    untouched = load_scene(root, register_depth=False)
    assert untouched.read_depth(frame).shape == (240, 320)
    assert misfit(untouched, frame)[0] > 0.02


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("split.txt", "kitchen\n", "is not like"),
        ("split.txt", "sequence0 [frames=1] [start=90 ; end=99]\n", "names no frame"),
        ("info.txt", "m_colorWidth = 648\n", "m_colorHeight is missing"),
        ("info.txt", INFO.format(color="1 2 3", depth=sixteen(DEPTH_12)), "m_calibrationColorIntrinsic"),
        ("data/frame-000001.pose.txt", "1 2\n", "4x4"),
        ("data/frame-x.color.jpg", "", "not a frame number"),
    ],
)
def test_damaged_12_scenes_are_named(tmp_path, file, content, says):
    root = tmp_path / "apt1" / "bed"
    (root / "data").mkdir(parents=True)
    (root / "info.txt").write_text(INFO.format(color=sixteen(COLOR_12), depth=sixteen(DEPTH_12)))
    (root / "split.txt").write_text("sequence0 [frames=1] [start=1 ; end=1]\n")
    (root / "data" / "frame-000001.color.jpg").touch()
    np.savetxt(root / "data" / "frame-000001.pose.txt", np.eye(4))
    load_scene(root)
    (root / file).write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        load_scene(root)
    assert "\n" not in str(caught.value)


def write_parking_lot(root: Path, **changes) -> Path:
    camera = Camera(**{**DESCRIPTION.camera.model_dump(), **changes})
    for sequence in range(1, 5):
        write_views(root / f"seq-{sequence:02d}", camera, walk(1, sequence))
    return root


def test_livl_as_it_is_assumed(tmp_path):
    scene = load_scene(write_parking_lot(tmp_path / "Parking lot1"))
    assert scene.name == "Parking_lot1"
    assert [frame.name for frame in scene.frames("train")] == [f"seq-0{i}/000000" for i in (1, 2, 3)]
    assert misfit(scene, scene.frames("test")[0])[0] < 0.001


def test_a_description_takes_the_place_of_livls_assumption(tmp_path):
    root = write_parking_lot(tmp_path / "K544", fx=380.0, cx=310.0)
    assert misfit(load_scene(root), load_scene(root).frames("test")[0])[0] > 0.01
    content = DESCRIPTION.model_dump(mode="json")
    content["camera"] |= {"fx": 380.0, "cx": 310.0}
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))
    assert misfit(load_scene(root), load_scene(root).frames("test")[0])[0] < 0.001


def test_the_documented_livl_description_is_the_built_in_one():
    page = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()
    text = re.search(r"```yaml\n# LIVL[^\n]*\n(.*?)```", page, re.DOTALL)
    assert type(DESCRIPTION).model_validate(yaml.safe_load(text[1])) == DESCRIPTION
