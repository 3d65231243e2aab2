"""The `ofvl` command as a user runs it: as a process."""

import json
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from processes import Forked, catches, wait_until
from scenes import write_scene

from ofvl_core.checkpoint import load_manifest
from ofvl_core.checkpoint_folder import save_manifest
from ofvl_core.cli import main
from ofvl_core.datasets import load_scene
from ofvl_core.evaluation import nearest_view
from ofvl_core.simulation import simulate
from ofvl_core.trajectory import read_tum


def start(*arguments):
    return Forked(main, *arguments)


def ofvl(*arguments, status=0):
    with start(*arguments) as process:
        assert process.wait(120) == status, process.errors
        assert "Traceback" not in process.errors
        return process.output, process.errors


def refused(*arguments):
    """The one sentence on stderr of a command that must fail."""
    output, errors = ofvl(*arguments, status=1)
    assert output == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors


def test_the_command_needs_nothing_to_be_imported_before():
    code = "from ofvl_core.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "info", "ofvl_ms34"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ofvl("info", "ofvl_ms34")


def test_info_of_a_named_model():
    content = json.loads(ofvl("info", "ofvl_ms34", "--json", "-")[0])
    assert content["parameters"]["single_scene"] == 25_397_388
    assert len(content["layers"]) == 37
    assert json.loads(ofvl("info", "ofvl_ms34", "--json")[0]) == content
    assert "25,397,388" in ofvl("info", "ofvl_ms34")[0]


def test_info_of_a_checkpoint(tiny_checkpoint, tmp_path):
    output, _ = ofvl("info", tiny_checkpoint, "--json", tmp_path / "info.json")
    content = json.loads((tmp_path / "info.json").read_text())
    assert [scene["name"] for scene in content["scenes"]] == ["room_1", "room_2"]
    parameters = content["parameters"]
    specific = sum(layer["parameters"] for layer in content["layers"] if not layer["shared"])
    assert parameters["specific_convolutions"] == specific
    assert parameters["total"] == parameters["single_scene"] + parameters["per_scene"]
    assert content["trainings"][-1]["iteration"] == 250
    assert "room_2" in output


def test_evaluate_writes_json_and_a_self_contained_report(tiny_checkpoint, tiny_scenes, tmp_path):
    output, _ = ofvl(
        "evaluate", tiny_checkpoint, tiny_scenes[0].parent, "--split", "train",
        "--json", tmp_path / "r.json", "--report", tmp_path / "report",
    )  # fmt: skip
    results = json.loads((tmp_path / "r.json").read_text())
    assert [scene["scene"] for scene in results["scenes"]] == ["room_1", "room_2"]
    for scene in results["scenes"]:
        assert scene["frames"] == 8
        assert scene["failures"] == 0
        assert scene["median_m"] < 0.2
        assert 0 <= scene["within_5cm_5deg"] <= 1
        assert scene["nearest_view_m"] == 0  # training frames are their own nearest views
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<img") == 1 + 2 * (1 + 4)
    assert page.count('src="data:') == page.count("src=")
    assert "room_1" in output
    on_stdout = json.loads(
        ofvl("evaluate", tiny_checkpoint, tiny_scenes[0], "--split", "train", "--json", "-")[0]
    )
    assert on_stdout["scenes"][0]["median_m"] == results["scenes"][0]["median_m"]


def test_frames_that_training_held_out_are_a_split(tiny_checkpoint, tiny_scenes, tmp_path):
    assert "no frames are held out" in refused(
        "evaluate", tiny_checkpoint, tiny_scenes[0], "--split", "holdout"
    )
    (room,) = simulate(tmp_path / "rooms", 1, seed=0, train_sequences=1, test_sequences=1, frames=12)
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    manifest = load_manifest(model)
    manifest.training.config = manifest.training.config.model_copy(update={"holdout": 0.5})
    save_manifest(model, manifest)
    (scene,) = json.loads(ofvl("evaluate", model, room, "--split", "holdout", "--json", "-")[0])["scenes"]
    assert scene["frames"] == 6
    assert scene["nearest_view_m"] > 0  # they are no training frames


def test_localize_prints_json_lines_and_writes_tum(tiny_checkpoint, tiny_scenes, tmp_path):
    scene = load_scene(tiny_scenes[1])
    images = [frame.color for frame in scene.frames("train")[:3]]
    output, _ = ofvl(
        "localize", tiny_checkpoint, *images, "--scene", "room_2",
        "--intrinsics", tiny_scenes[1] / "camera-intrinsics.txt", "--tum", tmp_path / "poses.txt",
    )  # fmt: skip
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["image"] for line in lines] == [str(image) for image in images]
    stamps, poses = read_tum(tmp_path / "poses.txt")
    assert stamps.tolist() == [0, 1, 2]
    for line, pose, frame in zip(lines, poses, scene.frames("train"), strict=False):
        assert line["found"]
        assert line["position"] == pytest.approx(pose[:3, 3], abs=1e-6)
        assert np.linalg.norm(pose[:3, 3] - frame.world_from_camera[:3, 3]) < 0.3
        variances = np.diag(line["covariance"])
        assert np.square(line["position_std_m"]) == pytest.approx(variances[:3])
        assert np.square(np.radians(line["rotation_std_deg"])) == pytest.approx(variances[3:])
    assert (
        ofvl("localize", tiny_checkpoint, images[0], "--scene", "room_2")[0].strip() == output.splitlines()[0]
    )


def test_localize_says_when_there_is_no_pose(tiny_checkpoint, tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((480, 640, 3), np.uint8))
    line = json.loads(ofvl("localize", tiny_checkpoint, tmp_path / "black.png", "--scene", "room_1")[0])
    assert not line["found"]
    assert line["reason"]


def test_training_is_stopped_and_resumed(tmp_path):
    write_scene(tmp_path / "data" / "hall")
    arguments = ("train", tmp_path / "data", "--out", tmp_path / "model")
    with start(*arguments, "--iterations", "100000", "--batch-size", "1") as process:
        assert wait_until(lambda: catches(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130, process.errors
    assert "continue with --resume" in process.errors
    assert "already" not in process.errors
    assert "add --resume" in refused(*arguments)
    assert "other settings" in refused(*arguments, "--resume", "--seed", "5")
    assert "no longer" in refused(*arguments, "--resume", "--iterations", "99999")
    with start(*arguments, "--resume") as process:
        assert wait_until(lambda: catches(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130, process.errors


def test_bad_input_is_one_sentence(tmp_path, tiny_checkpoint, tiny_scenes):
    scene = write_scene(tmp_path / "attic")
    out = tmp_path / "out"
    assert "no such folder" in refused("train", tmp_path / "nothing", "--out", out)
    assert "'resnet' is unknown" in refused("train", scene, "--out", out, "--model", "resnet")
    assert "'max_minutes'" in refused("train", scene, "--out", out, "--max-minutes", "0")
    if not torch.cuda.is_available():
        assert "CUDA" in refused("train", scene, "--out", out, "--device", "cuda")
    assert not out.exists()
    assert "'seed'" in refused("train", scene, "--out", out, "--seed", 2**64)
    assert "does not exist" in refused("evaluate", tmp_path / "nothing", scene)
    assert "no split 'tests'" in refused("evaluate", tiny_checkpoint, tiny_scenes[0], "--split", "tests")
    _, errors = ofvl(
        "evaluate", tiny_checkpoint, tiny_scenes[0], "--split", "train", "--json", tmp_path, status=1
    )
    assert f"error: {tmp_path}: Is a directory" in errors
    assert "unknown scene 'attic'" in refused("evaluate", tiny_checkpoint, scene)
    assert "unknown scene 'attic'" in refused("localize", tiny_checkpoint, "x.png", "--scene", "attic")
    assert "cannot be read" in refused("localize", tiny_checkpoint, tmp_path / "x.png", "--scene", "room_1")
    small = scene / "seq-01" / "frame-000000.color.png"
    assert "--intrinsics" in refused("localize", tiny_checkpoint, small, "--scene", "room_1")
    assert "does not exist" in refused("info", "ofvl_ms99")
    with_room_name = tmp_path / "copy" / "room_1"
    write_scene(with_room_name)
    (with_room_name / "TestSplit.txt").write_text("")
    assert "test split is empty" in refused("evaluate", tiny_checkpoint, with_room_name)


def test_nearest_view_is_the_most_similar_not_only_the_closest():
    here = np.eye(4)
    turned, further = np.eye(4), np.eye(4)
    turned[:3, :3] = np.diag([-1.0, 1.0, -1.0])  # same place, looking back
    further[0, 3] = 0.2
    assert nearest_view(here, np.stack([turned, further])) == pytest.approx((0.2, 0.0), abs=1e-5)
