"""KITTI odometry: the published tree and a folder with its own intrinsics, and what can be wrong."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ofvl_core.camera import Camera
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.datasets.check import check_scene
from ofvl_core.datasets.loading import recognise
from ofvl_core.errors import DataError
from ofvl_core.geometry import apply, invert, transform_from_rotation_vector

P2 = np.array(
    [
        [718.856, 0.0, 607.1928, 45.38225],
        [0.0, 718.856, 185.2157, -0.1130887],
        [0.0, 0.0, 1.0, 0.003779761],
    ]
)
"""Of the published sequence 00."""

FRAMES = 5
SIZE = (124, 38)


def drive(count: int = FRAMES) -> np.ndarray:
    """Poses (N, 4, 4) of camera 0, in which z points ahead."""
    return np.stack([transform_from_rotation_vector((0, 0.1 * i, 0), (0.1 * i, 0, i)) for i in range(count)])


def write_images(folder: Path, count: int = FRAMES, suffix: str = "png") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        image = np.full((*SIZE[::-1], 3), 40 * number, np.uint8)
        assert cv2.imwrite(str(folder / f"{number:06d}.{suffix}"), image)


def write_poses(path: Path, poses: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, poses[:, :3].reshape(len(poses), 12))


def write_calibration(root: Path, projection: np.ndarray = P2) -> None:
    others = np.eye(3, 4)
    rows = (("P0", others), ("P1", others), ("P2", projection), ("P3", others), ("Tr", others))
    text = "\n".join(f"{name}: " + " ".join(f"{x:.12e}" for x in matrix.flat) for name, matrix in rows)
    (root / "calib.txt").write_text(text + "\n")


@pytest.fixture
def published(tmp_path) -> Path:
    """A sequence's folder in KITTI's own tree, all kinds of files included."""
    root = tmp_path / "dataset" / "sequences" / "07"
    write_images(root / "image_2")
    write_images(root / "image_3")
    write_calibration(root)
    np.savetxt(root / "times.txt", 3.0 + 0.1037 * np.arange(FRAMES))
    write_poses(tmp_path / "dataset" / "poses" / "07.txt", drive())
    return root


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with images, poses and intrinsics of one camera."""
    root = tmp_path / "Old town"
    write_images(root / "image_2", suffix="jpg")
    np.savetxt(root / "camera-intrinsics.txt", P2[:, :3] / [[10], [10], [1]])
    write_poses(root / "poses.txt", drive())
    return root


def test_a_published_sequence_is_a_scene_for_training_without_depth(published):
    scene = load_scene(published)
    assert (scene.name, scene.skipped_poses) == ("kitti_07", 0)
    assert scene.camera == Camera(*SIZE, 718.856, 718.856, 607.1928, 185.2157)
    assert scene.splits["test"] == []
    frames = scene.frames("train")
    assert [frame.name for frame in frames] == [f"07/{number:06d}" for number in range(FRAMES)]
    assert {(frame.sequence, frame.depth) for frame in frames} == {("07", None)}
    assert [frame.timestamp for frame in frames] == pytest.approx(0.1037 * np.arange(FRAMES))
    assert [int(scene.read_color(frame)[0, 0, 0]) for frame in frames] == [0, 40, 80, 120, 160]
    assert [frame.color.parent.name for frame in frames] == ["image_2"] * FRAMES


shifts = st.tuples(*[st.floats(-60.0, 60.0)] * 2, st.floats(-0.2, 0.2))


@settings(deadline=None, max_examples=20)
@given(shifts, st.integers(0, 2**32 - 1))
def test_poses_are_those_of_the_colour_camera(tmp_path_factory, shift, seed):
    """Points of the world land where P2 carries them from camera 0, whose pose the file holds."""
    random = np.random.default_rng(seed)
    tree = tmp_path_factory.mktemp("kitti")
    root = tree / "sequences" / "00"
    projection = P2.copy()
    projection[:, 3] = shift
    write_images(root / "image_2", 1)
    write_calibration(root, projection)
    pose = transform_from_rotation_vector(random.normal(size=3), 100 * random.normal(size=3))
    write_poses(tree / "poses" / "00.txt", pose[None])
    scene = load_scene(root)
    seen_by_camera0 = random.uniform((-5, -2, 2), (5, 2, 60), (20, 3))
    expected = np.column_stack([seen_by_camera0, np.ones(20)]) @ projection.T
    camera_from_world = invert(scene.frames("train")[0].world_from_camera)
    pixels = scene.camera.project(apply(camera_from_world, apply(pose, seen_by_camera0)))
    assert np.allclose(pixels, expected[:, :2] / expected[:, 2:], atol=1e-4)


def test_a_folder_with_intrinsics_holds_poses_of_its_own_camera(own):
    scene = load_scene(own)
    assert recognise(own)[0].title == "KITTI odometry"  # and not a posed folder, which has intrinsics too
    assert scene.name == "Old_town"
    assert scene.camera.fx == pytest.approx(71.8856)
    frames = scene.frames("train")
    assert np.allclose([frame.world_from_camera for frame in frames], drive())
    assert [frame.timestamp for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    np.savetxt(own / "times.txt", [0.0, 0.2, 0.4, 0.6, 0.9])
    assert [frame.timestamp for frame in load_scene(own).frames("train")] == [0.0, 0.2, 0.4, 0.6, 0.9]


def test_all_sequences_of_the_tree_are_found(published):
    other = published.with_name("10")
    write_images(other / "image_2")
    write_calibration(other)
    assert find_scenes([published.parents[1]]) == [published, other]


def test_a_description_wins_over_the_layout(own):
    content = {
        "camera": {"width": SIZE[0], "height": SIZE[1], "fx": 70, "fy": 70, "cx": 60, "cy": 20},
        "color": "image_2/*.jpg",
        "poses": {"file": "poses.txt", "format": "kitti"},
        "sequences": {"test": ["."]},
    }
    (own / "dataset.yaml").write_text(yaml.safe_dump(content))
    assert len(load_scene(own).frames("test")) == FRAMES


def test_an_image_has_the_row_of_its_number(published, caplog):
    """Not of its place: one may be missing. What is beyond the last pose is skipped, counted and logged."""
    poses = drive()
    (published / "image_2" / "000001.png").unlink()
    write_poses(published.parents[1] / "poses" / "07.txt", poses[:-1])
    scene = load_scene(published)
    assert [frame.name for frame in scene.frames("train")] == ["07/000000", "07/000002", "07/000003"]
    turns = [frame.world_from_camera[:3, :3] for frame in scene.frames("train")]
    assert np.allclose(turns, poses[[0, 2, 3], :3, :3])
    assert [frame.timestamp for frame in scene.frames("train")] == pytest.approx([0, 0.2074, 0.3111])
    assert scene.skipped_poses == 1
    assert "skipped 1 of 4 frames" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        (
            "../../poses/07.txt",
            None,
            r"07\.txt: missing; KITTI publishes poses of the sequences 00 to 10 only",
        ),
        ("../../poses/07.txt", "0 1 2 3 0 0 0 1\n", "a TUM trajectory, not a KITTI one"),
        ("../../poses/07.txt", "nan 0 0 0 0 1 0 0 0 0 1 0\n", "line 1 holds NaN"),
        ("calib.txt", "P0: 1 0 0 0 0 1 0 0 0 0 1 0\n", "has no row 'P2: ' with 12 numbers"),
        ("calib.txt", "P2: 1 0 0 0 0 1 0 0\n", "has no row 'P2: ' with 12 numbers"),
        ("calib.txt", "P2: 1 0 0 0 0 1 0 0 0 0 0 0\n", "has no row 'P2: ' with 12 numbers"),
        ("calib.txt", "P2: one 0 0 0 0 1 0 0 0 0 1 0\n", "has no row 'P2: ' with 12 numbers"),
        ("times.txt", "0.0\n0.1\n", "must hold the seconds of 5 images"),
        ("times.txt", "0.0\n0.1\n0.2\nnan\n0.4\n", "must hold the seconds of 5 images"),
        ("times.txt", "0.0 0.1\n", "times.txt: must hold 1x1 numbers"),
        ("image_2/000000.png", "no image", "not a readable image"),
    ],
)
def test_what_is_wrong_is_named(published, file, content, cause):
    path = published / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=cause):
        load_scene(published)


def test_a_folder_without_images_is_named(published):
    for path in (published / "image_2").iterdir():
        path.rename(path.with_suffix(".tiff"))
    with pytest.raises(DataError, match=r"no image named like 000012\.png"):
        load_scene(published)


def test_images_and_a_calibration_are_the_sign(published, own):
    for root, file in ((published, "calib.txt"), (own, "camera-intrinsics.txt")):
        assert recognise(root)[1] == f"it has image_2/ and a {file}"
        (root / file).unlink()
        assert recognise(root) is None


def test_data_check_reads_it(own):
    facts = {fact.topic: fact.text for fact in check_scene(own).facts}
    assert facts["frames"] == "5 for training (Old town), 0 for testing (none)"
    assert facts["time"] == "10 frames a second"
