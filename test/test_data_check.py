"""`ofvl data check` names what is wrong with a scene, and nothing where nothing is."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from scenes import ROOM_CAMERA, render, walk, write_image, write_room, write_views

from ofvl_core.datasets import check
from ofvl_core.datasets.check import check_scene
from ofvl_core.datasets.described import OPENCV_FROM_OPENGL
from ofvl_core.geometry import invert
from ofvl_core.realsense import BODY_FROM_OPTICAL


@pytest.fixture(scope="module")
def good_room(tmp_path_factory):
    return write_room(tmp_path_factory.mktemp("good") / "room")


@pytest.fixture
def room(good_room, tmp_path):
    """A copy of the good room, to be damaged."""
    return shutil.copytree(good_room, tmp_path / "room")


def problems(root, **options):
    report = check_scene(root, **options)
    return [problem.text for problem in report.problems], report.usable


def rewrite_poses(root, change):
    for path in root.glob("seq-*/*.pose.txt"):
        np.savetxt(path, change(np.loadtxt(path)))


def test_nothing_is_wrong_with_a_good_scene(room):
    calls = []
    report = check_scene(room, progress=lambda done, total: calls.append((done, total)))
    assert (report.problems, report.usable) == ([], True)
    assert [done for done, _ in calls] == list(range(1, calls[-1][1] + 1))
    facts = {fact.topic: fact.values for fact in report.facts}
    assert "camera-intrinsics.txt" in facts["layout"]["sign"]
    assert facts["frames"]["counts"] == {"train": 12, "test": 12}
    assert facts["camera"]["view_deg"] == pytest.approx([59.5, 46.1], abs=0.1)
    assert facts["depth"]["valid"] == 1
    assert facts["surfaces"]["disagreement"] < 0.005
    assert facts["motion"]["median_step_m"] == pytest.approx(0.075, abs=0.01)
    json.dumps(report.as_json(), allow_nan=False)


def test_real_recordings_raise_no_false_alarm(real_scenes):
    for root in sorted(real_scenes.iterdir()):
        assert problems(root) == ([], True)


def test_a_simulated_scene_raises_no_false_alarm(tiny_scenes):
    found, usable = problems(tiny_scenes[0])
    assert usable
    assert all("test views" in text for text in found)  # so short a walk indeed leaves the test views far off


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (invert, "if poses are world to camera;"),
        (lambda pose: pose @ OPENCV_FROM_OPENGL, "if the camera's axes are OpenGL's"),
        (
            lambda pose: invert(pose @ OPENCV_FROM_OPENGL),
            "if poses are world to camera and the camera's axes OpenGL's",
        ),
        (lambda pose: pose @ invert(BODY_FROM_OPTICAL), "if the camera's axes are a robot's"),
        (
            lambda pose: pose * np.array([[1, 1, 1, 1000]] * 3 + [[1, 1, 1, 1]]),
            "positions are 1000 times too large",
        ),
    ],
)
def test_wrong_poses_are_recognised(room, change, says):
    rewrite_poses(room, change)
    found, usable = problems(room)
    assert not usable
    [fault] = [text for text in found if "do not fit" in text]
    assert says in fault


@pytest.mark.parametrize(("unit", "says"), [(1 / 5000, "5 times too large"), (0.01, "10 times too small")])
def test_wrong_units_of_depth_are_recognised(room, unit, says):
    for path in room.glob("seq-*/*.depth.png"):
        write_image(path, np.rint(cv2.imread(str(path), -1) * 0.001 / unit).astype(np.uint16))
    found, usable = problems(room)
    assert not usable
    assert any(f"depth is {says}" in text for text in found)


def test_depth_in_metres_is_another_unit(room):
    for path in room.glob("seq-*/*.depth.png"):
        write_image(path, np.rint(cv2.imread(str(path), -1) * 0.001).astype(np.uint16))
    found, usable = problems(room)
    assert not usable
    assert any("means another unit" in text for text in found)


def test_unexplained_disagreement_is_a_warning(room):
    poses = walk(12, 20.0)
    for path in room.glob("seq-*/*.pose.txt"):
        np.savetxt(path, poses[(7 * int(path.name[6:12])) % 12])
    found, usable = problems(room)
    assert usable
    assert any("none of the usual mistakes explains it" in text for text in found)


def test_unregistered_depth_is_recognised(room):
    """Depth from a sensor 5 cm to the left with a longer focal length."""
    from_color = np.eye(4)
    from_color[0, 3] = -0.05
    longer = ROOM_CAMERA.__class__(160, 120, 156.0, 157.0, 81.0, 58.0)
    for sequence, start in ((1, 0.0), (2, 0.5)):
        for number, pose in enumerate(walk(12, start)):
            path = room / f"seq-{sequence:02d}" / f"frame-{number:06d}.depth.png"
            write_image(path, render(longer, pose @ from_color).millimetres())
    found, _ = problems(room)
    assert any("not registered" in text for text in found)


def test_unusable_images_are_named(room):
    (room / "seq-01" / "frame-000003.color.png").write_bytes(b"")
    whole = (room / "seq-01" / "frame-000005.depth.png").read_bytes()
    (room / "seq-01" / "frame-000005.depth.png").write_bytes(whole[:-100])
    write_image(room / "seq-02" / "frame-000007.color.png", np.zeros((20, 30, 3), np.uint8))
    found, usable = problems(room)
    assert not usable
    assert len(found) == 3
    for name in ("frame-000003.color.png", "frame-000005.depth.png", "frame-000007.color.png"):
        assert any(name in text for text in found)


def test_unusable_depth_is_named_once_wherever_it_is_met(room, monkeypatch):
    monkeypatch.setattr(check, "SAMPLE", 6)  # of 24 frames; the pairs that are compared hold others
    for path in room.glob("seq-*/*.depth.png"):
        path.write_bytes(b"")
    found, usable = problems(room)
    assert not usable
    named = [text for text in found if "not a readable image" in text]
    assert len(named) == len(set(named)) > check.NAMED


def test_a_sample_may_miss_what_all_images_show(tmp_path):
    root = write_room(tmp_path / "room", frames=30)
    for number in range(12, 16):
        (root / "seq-01" / f"frame-{number:06d}.color.png").write_bytes(b"")
    assert not check_scene(root).usable
    everything, _ = problems(root, every_image=True)
    assert any("1 more" in text for text in everything)
    assert {fact.topic: fact.values for fact in check_scene(root, True).facts}["images"]["read"] == 60


def test_depth_without_a_valid_pixel_is_named(room):
    write_image(room / "seq-01" / "frame-000004.depth.png", np.zeros((120, 160), np.uint16))
    found, usable = problems(room)
    assert usable
    assert len(found) == 1
    assert "1 depth images have no valid pixel" in found[0]
    assert "frame-000004.depth.png" in found[0]
    for path in room.glob("seq-*/*.depth.png"):
        write_image(path, np.full((120, 160), 65535, np.uint16))
    assert not problems(room)[1]


def test_missing_depth_is_counted(room):
    (room / "seq-01" / "frame-000004.depth.png").unlink()
    (room / "seq-02" / "frame-000004.depth.png").unlink()
    found, usable = problems(room)
    assert not usable
    assert [text for text in found if "1 of 12 training frames have no depth" in text] == found


def test_odd_poses_times_and_splits_are_named(room):
    lost = np.loadtxt(room / "seq-02" / "frame-000005.pose.txt")
    lost[:3, 3] += 2.0
    np.savetxt(room / "seq-02" / "frame-000005.pose.txt", lost)
    stuck = (room / "seq-01" / "frame-000000.pose.txt").read_text()
    for number in range(1, 6):
        (room / "seq-01" / f"frame-{number:06d}.pose.txt").write_text(stuck)
    (room / "seq-01" / "frame-000009.pose.txt").write_text("nan " * 4 + "\n" + "0 0 0 1\n" * 3)
    times = "".join(f"{number:06d} {5 - 0.1 * number}\n" for number in range(12))
    (room / "seq-01" / "timestamps.txt").write_text(times)
    (room / "TestSplit.txt").write_text("sequence1 sequence2\n")
    text = "\n".join(problems(room)[0])
    assert "pose jumps at 2 frames (seq-02/frame-000005" in text
    assert "5 frames have exactly the pose" in text or "10 frames have exactly the pose" in text
    assert "2 frames are left out" in text
    assert "time does not move on" in text
    assert "11 frames are in both splits" in text


def test_test_views_far_from_training_are_named(tmp_path):
    root = write_room(tmp_path / "room", frames=3)
    for path in (root / "seq-02").glob("*.pose.txt"):
        pose = np.loadtxt(path)
        pose[:3, 3] += 10.0
        np.savetxt(path, pose)
    assert any("100% of the test views" in text for text in problems(root)[0])


def test_unlikely_intrinsics_are_named(room):
    (room / "camera-intrinsics.txt").write_text("1500 0 20\n0 900 58\n0 0 1\n")
    text = "\n".join(problems(room)[0])
    assert "field of view of 6 degrees" in text
    assert "principal point" in text
    assert "more than a tenth" in text


def test_splits_without_frames_are_named(room):
    (room / "TestSplit.txt").unlink()
    assert problems(room) == (["no test frames; hold some out to learn how good a model is"], True)
    (room / "TrainSplit.txt").rename(room / "TestSplit.txt")
    assert not problems(room)[1]


def test_a_scene_that_cannot_be_read_is_a_report(room):
    (room / "seq-01" / "frame-000002.pose.txt").write_text("2 0 0 0\n0 2 0 0\n0 0 2 0\n0 0 0 1\n")
    found, usable = problems(room)
    assert not usable
    assert len(found) == 1
    assert "frame-000002.pose.txt" in found[0]
    assert not check_scene(room / "seq-01").usable


def test_a_camera_that_hardly_moves_is_not_judged(room):
    for folder in room.glob("seq-*"):
        write_views(folder, ROOM_CAMERA, [walk(1)[0]] * 12)
    report = check_scene(room)
    assert report.usable
    assert {fact.topic: fact.values for fact in report.facts}["surfaces"]["pairs"] == 0


def test_the_command(room, tmp_path):
    (tmp_path / "described").mkdir()
    (tmp_path / "described" / "dataset.yaml").write_text(yaml.safe_dump({"camera": "unknown"}))
    command = [sys.executable, "-c", "from ofvl_core.cli import main; main()", "data", "check", tmp_path]
    ended = subprocess.run(
        [*map(str, command), "--json", str(tmp_path / "check.json")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "12 for training (seq-01)" in ended.stdout
    assert "error: " in ended.stdout
    content = json.loads((tmp_path / "check.json").read_text())
    assert [scene["usable"] for scene in content["scenes"]] == [False, True]
    assert "dataset.yaml: camera" in content["scenes"][0]["errors"][0]
    assert not content["usable"]
