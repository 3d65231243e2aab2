"""Collaborative training on small videos: learns, stops, resumes, refuses; estimates and replays."""

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scenes import render, write_scene
from typer.testing import CliRunner

from ofvl_core.camera import Camera
from ofvl_core.cli import app
from ofvl_core.collaborative import run
from ofvl_core.collaborative.accuracy import observe
from ofvl_core.collaborative.architecture import STRIDE
from ofvl_core.collaborative.checkpoint import load_manifest, load_model
from ofvl_core.collaborative.config import CollaborativeConfig
from ofvl_core.collaborative.estimator import Estimator
from ofvl_core.collaborative.objective import Losses
from ofvl_core.collaborative.presets import PRESETS
from ofvl_core.collaborative.replay import replay, shots
from ofvl_core.collaborative.splits import ODOMETRY
from ofvl_core.collaborative.trainer import Trainer
from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.errors import CheckpointError, ConfigError, DataError, OfvlError
from ofvl_core.geometry import transform_from_rotation_vector
from ofvl_core.odometry_metrics import motions_between
from ofvl_core.resize import input_camera
from ofvl_core.training.config import make_settings
from ofvl_core.training.loop import Surroundings
from ofvl_core.trajectory import read_tum

CPU = torch.device("cpu")
HERE = Surroundings(CPU)
SHORT = make_settings(
    CollaborativeConfig,
    {
        "iterations": 4,
        "pretraining_share": 0.5,
        "warmup": 0.0,
        "learning_rate": 1e-4,  # nothing that rounding could turn over in four steps
        "precision": "float32",
        "pretraining": {"batch_size": 2, "input_pixels": 6144},
        "collaboration": {"batch_size": 2, "input_pixels": 6144},
    },
)
APART = {
    "network": {"guidance": False},
    "pretraining_share": 0.0,
    "collaboration": {"weights": {"photometric": 0.0, "smoothness": 0.0, "consistency": 0.0, "motion": 0.0}},
}
"""GlobalPoseNet alone."""

CAMERA = Camera(96, 64, 70.0, 70.0, 47.5, 31.5)


def write_video(root: Path, frames: int = 14, testing: int = 8) -> Path:
    """A camera that drives ahead in a room and looks around; its end is the test split."""
    root.mkdir(parents=True)
    np.savetxt(root / "camera-intrinsics.txt", CAMERA.matrix)
    for name, sequence in (("Train", 1), ("Test", 2)):
        (root / f"{name}Split.txt").write_text(f"sequence{sequence}\n")
    for number in range(frames + testing):
        sequence = root / f"seq-{1 + (number >= frames):02d}"
        sequence.mkdir(exist_ok=True)
        turn, place = (0, 0.06 * number - 0.4, 0), (1.2 + 0.05 * number, 1.2, 0.6 + 0.06 * number)
        pose = transform_from_rotation_vector(turn, place)
        view = render(CAMERA, pose)
        stem = sequence / f"frame-{number:06d}"
        cv2.imwrite(f"{stem}.color.png", cv2.cvtColor(view.color, cv2.COLOR_RGB2BGR))
        cv2.imwrite(f"{stem}.depth.png", view.millimetres())
        np.savetxt(f"{stem}.pose.txt", pose)
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return load_scene(write_video(tmp_path_factory.mktemp("video") / "room"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return load_scene(write_video(tmp_path_factory.mktemp("video") / "hall", frames=7))


@pytest.fixture(scope="module")
def checkpoint(video, other, tmp_path_factory):
    """A model of two scenes that has seen next to nothing."""
    out = tmp_path_factory.mktemp("collaborative") / "model"
    assert run.train([video, other], SHORT, out, HERE)
    return out


def weights(folder):
    return load_model(folder, load_manifest(folder), CPU).state_dict()


def test_training_teaches_depth_and_motion(video, tmp_path):
    changes = {"iterations": 100, "learning_rate": 2e-3, "pretraining_share": 0.9}
    config = make_settings(CollaborativeConfig, SHORT.model_dump(), changes)
    assert run.train([video], config, tmp_path / "model", HERE)
    manifest = load_manifest(tmp_path / "model")
    history = Losses(*np.array(manifest.training.history).T[1:])
    assert np.isfinite(history).all()
    assert history.photometric[40:50].mean() < 0.9 * history.photometric[:5].mean()
    assert history.motion[80:90].mean() < history.motion[:5].mean() - 0.7
    for of_second_stage in (history.pose, history.consistency):
        assert (of_second_stage[:89] == 0).all()
        assert (of_second_stage[90:] != 0).all()
    estimator = Estimator(tmp_path / "model", "cpu")
    poses = np.array([frame.world_from_camera for frame in video.frames("train")])
    true = motions_between(poses)
    lengths = np.linalg.norm(observe(estimator, video, "train").estimated[:, :3, 3], axis=1)
    assert np.median(lengths) == pytest.approx(np.linalg.norm(true[0, :3, 3]), rel=0.05)  # in metres
    assert manifest.scene("room").accuracy.position_deviation is None  # eight frames are too few to tell


def test_training_teaches_poses(video, tmp_path):
    changes = {"iterations": 150, "learning_rate": 2e-3, "collaboration": {"batch_size": 4}}
    config = make_settings(CollaborativeConfig, SHORT.model_dump(), APART, changes)
    assert run.train([video], config, tmp_path / "model", HERE)
    estimator = Estimator(tmp_path / "model", "cpu")
    found = observe(estimator, video, "train")
    errors = np.linalg.norm(found.estimated_poses[:, :3, 3] - found.true_poses[:, :3, 3], axis=1)
    true = found.true_poses[:, :3, 3]
    assert np.median(errors) < 0.3 * np.median(np.linalg.norm(true - true.mean(axis=0), axis=1))


def test_same_seed_same_model(checkpoint, video, other, tmp_path):
    run.train([video, other], SHORT, tmp_path / "again", HERE)
    one, two = weights(checkpoint), weights(tmp_path / "again")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(checkpoint, video, other, tmp_path, stop_at):
    def interrupt(iteration, losses):
        if iteration == stop_at:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "parts"
    assert not run.train([video, other], SHORT, out, Surroundings(CPU, on_step=interrupt))
    stopped = load_manifest(out)
    assert (stopped.training.iteration, stopped.training.finished) == (stop_at, False)
    assert stopped.scene("room").accuracy is None
    assert run.train([video, other], SHORT, out, HERE, resume=True)
    whole, parts = weights(checkpoint), weights(out)
    for name in whole:
        assert torch.allclose(whole[name].float(), parts[name].float(), atol=1e-6), name
    assert load_manifest(out).optimizer is None
    history = [load_manifest(folder).training.history for folder in (checkpoint, out)]
    np.testing.assert_allclose(history[1], history[0], rtol=1e-4)


def test_resume_takes_the_same_scenes_and_settings(video, other, tmp_path):
    out = tmp_path / "model"
    stop = lambda iteration, losses: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    run.train([video, other], SHORT, out, Surroundings(CPU, on_step=stop))
    with pytest.raises(CheckpointError, match="other data"):
        run.train([video], SHORT, out, HERE, resume=True)
    with pytest.raises(CheckpointError, match="other settings"):
        run.train([video, other], SHORT.model_copy(update={"seed": 5}), out, HERE, resume=True)
    with pytest.raises(CheckpointError, match="--resume"):
        run.train([video, other], SHORT, out, HERE)
    assert load_manifest(out).training.iteration == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"guidance": False, "relocalization": False}},
        {"network": {"relocalization": False}},
        {"network": {"guidance": False}},
        {"consistency": "printed"},
        {"pretraining_share": 0.0, "precision": "bfloat16"},
        APART,
    ],
    ids=["without GAGM", "without GlobalPoseNet", "unguided", "printed", "bfloat16", "apart"],
)  # fmt: skip
def test_every_variant_trains(video, tmp_path, changes):
    config = make_settings(CollaborativeConfig, SHORT.model_dump(), changes)
    run.train([video], config, tmp_path / "model", HERE)
    tensors = weights(tmp_path / "model")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    relocalizes = any(name.startswith("global_pose_net") for name in tensors)
    assert relocalizes == config.network.relocalization
    assert any(name.startswith("guidance") for name in tensors) == config.network.guidance
    estimate = Estimator(tmp_path / "model", "cpu").estimate(np.zeros((64, 96, 3), np.uint8), CAMERA, "room")
    assert (estimate.world_from_camera is not None) == config.network.relocalization


def test_apart_means_that_depth_is_not_trained(video, tmp_path):
    config = make_settings(CollaborativeConfig, SHORT.model_dump(), APART)
    run.train([video], config, tmp_path / "model", HERE)
    torch.manual_seed(config.seed)
    fresh = run.make_model(load_manifest(tmp_path / "model")).state_dict()
    trained = weights(tmp_path / "model")
    still = {name.split(".")[0] for name in fresh if torch.equal(fresh[name], trained[name])}
    moved = {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert still >= {"depth_net", "local_pose_net"}
    assert moved == {"global_pose_net"}


def test_what_is_not_finite_is_not_learned(video, tmp_path):
    config = SHORT.model_copy(update={"learning_rate": 1e30, "iterations": 50})
    with pytest.raises(ConfigError, match="lower learning rate"):
        run.train([video], config, tmp_path / "model", HERE)
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "model").values())


def test_single_images_are_no_video(tmp_path):
    root = write_scene(tmp_path / "stills", frames=2)
    with pytest.raises(DataError, match="video"):
        run.train([load_scene(root)], SHORT, tmp_path / "model", HERE)
    assert not (tmp_path / "model").exists()


def test_the_papers_schedule(video):
    config = make_settings(CollaborativeConfig, PRESETS["kitti"])
    assert (config.pretraining.input_pixels, config.collaboration.input_pixels) == (640 * 192, 1024 * 320)
    assert config.pretraining.weights.model_dump() == {
        "photometric": 1.0, "smoothness": 0.05, "pose": 0.0, "consistency": 0.0, "motion": 0.0,
    }  # fmt: skip
    assert config.collaboration.weights.model_dump() == {
        "photometric": 0.5, "smoothness": 0.05, "pose": 0.85, "consistency": 0.1, "motion": 0.0,
    }  # fmt: skip
    small = make_settings(CollaborativeConfig, SHORT.model_dump(), {"step_down": 0.2, "learning_rate": 1e-4})
    model = run.make_model(
        run.Manifest(
            architecture=small.network,
            scenes=[run.scene_record(run.held_out(video), small)],
            training=run.TrainingRecord(config=small),
        )
    )
    trainer = Trainer(model, [{}], small, CPU)
    rates = [trainer.rate(progress) for progress in (0.0, 0.5, 0.59, 0.61, 1.0)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 1e-5, 1e-5])


def test_estimates_depend_on_neighbours_only(checkpoint, video):
    estimator = Estimator(checkpoint, "cpu")
    images = [video.read_color(frame) for frame in video.frames("train")[:3]]
    first, second, third = (estimator.estimate(image, CAMERA, "room") for image in images)
    assert first.previous_from_current is None
    assert second.depth.shape == (64, 96)
    assert second.input_camera == CAMERA
    for map_ in (second.local_attention, second.global_attention):
        assert map_.shape == (2, 3)
        assert ((map_ > 0) & (map_ < 1)).all()
    np.testing.assert_allclose(np.linalg.det(second.world_from_camera), 1, atol=1e-6)
    estimator.reset()
    assert estimator.estimate(images[1], CAMERA, "room").previous_from_current is None
    again = estimator.estimate(images[2], CAMERA, "room")
    np.testing.assert_array_equal(again.previous_from_current, third.previous_from_current)
    hall = estimator.estimate(images[2], CAMERA, "hall")
    assert not np.allclose(hall.world_from_camera, again.world_from_camera)


def test_another_camera_is_seen_as_the_trained_one(checkpoint, video):
    """A lens and a resolution of its own: what the network is shown stays nearly the same."""
    estimator = Estimator(checkpoint, "cpu")
    pose = video.frames("train")[5].world_from_camera
    plain = estimator.estimate(render(CAMERA, pose).color, CAMERA, "room")
    bent = Camera(192, 128, 140.0, 140.0, 95.5, 63.5, (-0.12, 0.02, 0.0, 0.0))
    estimator.reset()
    seen = estimator.estimate(render(bent, pose).color, bent, "room")
    assert (seen.input_camera.width, seen.input_camera.height) == (96, 64)
    assert not any(seen.input_camera.distortion)
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(seen.depth[inner], plain.depth[inner], rtol=0.05)
    straight = Camera(192, 128, 140.0, 140.0, 95.5, 63.5)
    estimator.reset()
    ignored = estimator.estimate(render(bent, pose).color, straight, "room")
    undone, left = (np.abs(each.depth - plain.depth)[inner].mean() for each in (seen, ignored))
    assert undone < left


def test_wrong_input_is_refused_in_one_sentence(checkpoint, video):
    estimator = Estimator(checkpoint, "cpu")
    image = video.read_color(video.frames("train")[0])
    with pytest.raises(CheckpointError, match="unknown scene 'cellar'; the checkpoint has: room, hall"):
        estimator.estimate(image, CAMERA, "cellar")
    with pytest.raises(ConfigError, match="camera_info"):
        estimator.estimate(image[:32], CAMERA, "room")
    with pytest.raises(ConfigError, match="so wide"):
        wide = Camera(96, 64, 0.1, 0.1, 47.5, 31.5)
        estimator.estimate(image, wide, "room")


@pytest.mark.parametrize("damage", ["manifest", "weights", "other kind", "absent"])
def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path, damage):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    content = (checkpoint / manifest["weights"]).read_bytes()
    (copy / manifest["weights"]).write_bytes(content[:-100] if damage == "weights" else content)
    text = json.dumps(manifest)[: 50 if damage == "manifest" else None]
    if damage == "other kind":
        text = json.dumps(manifest | {"format": "ofvl-checkpoint"})
    if damage != "absent":
        (copy / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError) as raised:
        Estimator(copy, "cpu")
    assert str(copy) in str(raised.value)
    assert ";" in str(raised.value)


def test_a_video_is_replayed_into_files(checkpoint, video, tmp_path):
    estimator = Estimator(checkpoint, "cpu")
    images = shots(video.root, estimator.manifest.scene("room"))
    assert len(images) == 22
    replay(estimator, "room", images, tmp_path / "out")
    stamps, poses = read_tum(tmp_path / "out" / "odometry.seq-01.txt")
    np.testing.assert_array_equal(poses[0], np.eye(4))
    assert len(stamps) == 14
    assert len(read_tum(tmp_path / "out" / "relocalized.seq-02.txt")[0]) == 8
    depth = cv2.imread(str(tmp_path / "out/depth/seq-01/frame-000000.color.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    assert depth.shape == (64, 96)
    with pytest.raises(CheckpointError, match="--out"):
        replay(estimator, "room", images, tmp_path / "out")


def test_plain_images_are_replayed_with_the_trained_camera(checkpoint, video, tmp_path):
    record = load_manifest(checkpoint).scene("room")
    for number, frame in enumerate(video.frames("train")[:3]):
        large = cv2.resize(cv2.imread(str(frame.color)), (192, 128))
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), large)
    images = shots(tmp_path, record)
    assert [shot.path.name for shot in images] == ["0.jpg", "1.jpg", "2.jpg"]
    assert images[0].camera == CAMERA.resized(192, 128)
    assert images[2].seconds == pytest.approx(2 / 30)
    cv2.imwrite(str(tmp_path / "0.jpg"), np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(DataError, match=r"dataset\.yaml"):
        shots(tmp_path, record)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a scene nor a folder of"):
        shots(tmp_path / "empty", record)


def test_the_command_line_trains_evaluates_and_runs(tmp_path):
    data = write_video(tmp_path / "data" / "room")
    out, page = tmp_path / "model", tmp_path / "page"
    runner = CliRunner()

    def ofvl(*words):
        result = runner.invoke(app, ["collab", *map(str, words)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    settings = tmp_path / "settings.yaml"
    settings.write_text(ofvl("config", "--set", "iterations=2").stdout)
    trained = ofvl("train", data, "--out", out, "--config", settings, "--set", "pretraining.batch_size=2")
    assert trained.exit_code == 0
    assert "trained room for 2 iterations" in " ".join(trained.stderr.split())
    done = ofvl("evaluate", out, data, "--json", "-", "--report", page)
    found = json.loads(done.stdout)["scenes"][0]
    assert found["depth"]["images"] == 8
    assert found["odometry"]["snippets"]["network"]["count"] == 4
    assert found["relocalization"]["frames"] == 8
    assert (page / "report.html").stat().st_size > 10_000
    assert "Relocalization" in ofvl("evaluate", out, data).stdout
    assert ofvl("run", out, data, "--out", tmp_path / "run").exit_code == 0
    with pytest.raises(OfvlError, match="ofvl collab config"):
        ofvl("train", data, "--out", out, "--set", "nothing=1")
    with pytest.raises(OfvlError, match="unknown preset"):
        ofvl("config", "--preset", "moon")
    with pytest.raises(OfvlError, match="indoors or kitti"):
        ofvl("evaluate", out, data, "--protocol", "moon")


def test_ahead_and_back_are_scored_on_test_frames(video):
    assert run.held_out(video).frames(ODOMETRY) == video.frames("test")


def test_the_input_has_the_cameras_shape():
    """The sizes that the paper gives for KITTI, and as many pixels for a camera of another shape."""
    kitti, d435 = Camera(1241, 376, 718.0, 718.0, 607.0, 185.0), Camera(640, 480, 610.0, 610.0, 319.5, 239.5)
    paper = make_settings(CollaborativeConfig, PRESETS["kitti"])

    def size(camera, stage):
        scene = SceneData("scene", Path(), camera, {})
        seen = input_camera(camera, run.input_focal(scene, stage), STRIDE)
        return seen.width, seen.height

    assert size(kitti, paper.pretraining) == (640, 192)
    assert size(kitti, paper.collaboration) == (1024, 320)
    assert size(kitti, SHORT.collaboration.model_copy(update={"input_pixels": 12288})) == (192, 64)
    assert size(d435, SHORT.collaboration.model_copy(update={"input_pixels": 12288})) == (128, 96)
