"""Folders with a dataset.yaml: what it can say, and one clear error for each way it can be wrong."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scenes import ROOM_CAMERA, misfit, render, walk, write_image, write_room

from ofvl_core.camera import Camera
from ofvl_core.datasets import load_scene
from ofvl_core.datasets.described import OPENCV_FROM_OPENGL, Description
from ofvl_core.errors import DataError
from ofvl_core.geometry import interpolate, invert
from ofvl_core.trajectory import write_tum

INTRINSICS = {name: getattr(ROOM_CAMERA, name) for name in ("width", "height", "fx", "fy", "cx", "cy")}


def describe(root: Path, **changes) -> Path:
    """A description of what `write_room` writes, with changes."""
    content = {
        "camera": INTRINSICS,
        "color": "frame-*.color.png",
        "depth": "frame-*.depth.png",
        "stamp_unit": 0.1,
        "poses": {"file": "frame-*.pose.txt", "format": "matrix"},
        "sequences": {"train": ["seq-01"], "test": ["seq-02"]},
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(content | changes))
    return root


@pytest.fixture
def room(tmp_path):
    return describe(write_room(tmp_path / "room", frames=4))


def worst(scene) -> float:
    """Metres by which the worst of a scene's frames misses the room."""
    return max(misfit(scene, frame)[0] for frames in scene.splits.values() for frame in frames)


def test_a_description_wins_over_other_signs(room):
    scene = load_scene(room)
    assert scene.camera == ROOM_CAMERA
    assert [frame.name for frame in scene.frames("train")] == [f"seq-01/{i:06d}" for i in range(4)]
    assert [frame.timestamp for frame in scene.frames("test")] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert worst(scene) < 0.001


def test_a_tum_download(tmp_path):
    """rgb/ and depth/ named by time, poses of another clock at 100 Hz, depth in fifths of a millimetre."""
    camera = Camera(160, 120, 140.0, 141.0, 81.0, 58.0, (0.1, -0.05, 0.001, -0.001, 0.0))
    start, poses = 1305031102.0, walk(10)
    folder = tmp_path / "desk"
    for i in range(8):
        at = start + 0.1 * i + 0.0137
        view = render(camera, interpolate(poses[i], poses[i + 1], 0.137))
        write_image(folder / "rgb" / f"{at:.6f}.png", view.color)
        write_image(folder / "depth" / f"{at + 0.008:.6f}.png", view.millimetres(1 / 5000))
    write_image(folder / "rgb" / f"{start + 30:.6f}.png", view.color)  # after the trajectory's end
    truth = folder / "groundtruth.txt"
    write_tum(
        truth,
        [(start + 0.01 * i, interpolate(poses[i // 10], poses[i // 10 + 1], i % 10 / 10)) for i in range(90)],
    )
    truth.write_text("# timestamp tx ty tz qx qy qz qw\n" + truth.read_text())
    page = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()
    content = yaml.safe_load(re.search(r"```yaml\n# TUM[^\n]*\n(.*?)```", page, re.DOTALL)[1])
    assert content["depth_unit"] == pytest.approx(1 / 5000)
    content["camera"] = INTRINSICS | {"distortion": list(camera.distortion)}
    content["hold_out"] = {"every": 2, "frames": 2}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(content))

    scene = load_scene(folder)
    assert scene.name == "desk"
    assert scene.skipped_poses == 1
    assert [round(10 * frame.timestamp) for frame in scene.frames("train")] == [0, 1, 4, 5]
    assert [round(10 * frame.timestamp) for frame in scene.frames("test")] == [2, 3, 6, 7]
    assert worst(scene) < 0.002


@pytest.mark.parametrize("direction", ["camera_to_world", "world_to_camera"])
@pytest.mark.parametrize("axes", ["opencv", "opengl"])
@pytest.mark.parametrize("form", ["matrix", "kitti"])
def test_directions_and_axes_of_poses(room, direction, axes, form):
    poses = {"direction": direction, "axes": axes, "format": form}
    for sequence, start in (("seq-01", 0.0), ("seq-02", 0.5)):
        rows = []
        for number, pose in enumerate(walk(4, start)):
            if axes == "opengl":
                pose = pose @ OPENCV_FROM_OPENGL
            if direction == "world_to_camera":
                pose = invert(pose)
            np.savetxt(room / sequence / f"frame-{number:06d}.pose.txt", pose)
            rows.append(pose[:3].ravel())
        np.savetxt(room / sequence / "poses.txt", rows)
    poses["file"] = "poses.txt" if form == "kitti" else "frame-*.pose.txt"
    assert worst(load_scene(describe(room, poses=poses))) < 0.001


def test_depth_units_invalid_values_and_sizes(room):
    for sequence, start in (("seq-01", 0.0), ("seq-02", 0.5)):
        for number, pose in enumerate(walk(4, start)):
            depth = render(ROOM_CAMERA.resized(80, 60), pose).millimetres(0.0005)
            depth[:5] = 12345
            write_image(room / sequence / f"frame-{number:06d}.depth.png", depth)
    scene = load_scene(describe(room, depth_unit=0.0005, depth_invalid=[12345], depth_size=[80, 60]))
    depth = scene.read_depth(scene.frames("train")[0])
    assert depth.shape == (60, 80)
    assert not depth[:5].any()
    assert worst(scene) < 0.002
    with pytest.raises(DataError, match="image is 80x60"):
        scene = load_scene(describe(room))
        scene.read_depth(scene.frames("train")[0])


def test_depth_too_far_to_store_is_unknown(room):
    write_image(room / "seq-01" / "frame-000000.depth.png", np.full((120, 160), 700, np.uint16))
    scene = load_scene(describe(room, depth_unit=0.1))
    assert not scene.read_depth(scene.frames("train")[0]).any()


def test_frames_without_depth_are_read(room):
    assert load_scene(describe(room, depth=None)).frames("train")[0].depth is None


def test_blocks_are_held_out(room):
    scene = load_scene(
        describe(room, sequences={"train": ["seq-01", "seq-02"]}, hold_out={"every": 2, "frames": 1})
    )
    assert [frame.name[-1] for frame in scene.frames("train")] == ["0", "2"] * 2
    assert [frame.name[-1] for frame in scene.frames("test")] == ["1", "3"] * 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"color": "frame.png"}, r"color: .*one \*"),
        ({"color": "picture-*.png"}, "no image fits"),
        ({"color": "*.color.png"}, "'frame-000000' is not a number"),
        ({"colour": "*.png"}, "colour: Extra inputs"),
        ({"camera": INTRINSICS | {"fx": 0}}, r"camera\.fx"),
        ({"camera": INTRINSICS | {"fx": float("nan")}}, r"camera\.fx"),
        ({"camera": INTRINSICS | {"cx": float("nan")}}, "NaN"),
        ({"camera": INTRINSICS | {"distortion": [1, 2, 3]}}, r"camera\.distortion"),
        ({"depth_unit": -1}, "depth_unit"),
        ({"depth_size": [80]}, "depth_size"),
        ({"pair": "order"}, "pair"),
        ({"poses": {"file": "poses.txt", "format": "kitti"}}, r"poses\.txt"),
        ({"poses": {"file": "poses.txt", "format": "tum"}}, r"poses\.txt"),
        ({"poses": {"file": "pose-*.txt", "format": "matrix"}}, "missing"),
        ({"poses": {"file": "pose.txt", "format": "matrix"}}, r"poses: .*one \*"),
        ({"poses": {"file": "*", "format": "euler"}}, r"poses\.format"),
        ({"sequences": {"train": ["seq-07"]}}, "seq-07: no such folder"),
        ({"sequences": {}}, "no frame in any split"),
        ({"hold_out": {"every": 1, "frames": 5}}, r"hold_out\.every"),
    ],
)
def test_what_is_wrong_is_named(room, changes, says):
    with pytest.raises(DataError, match=says) as caught:
        load_scene(describe(room, **changes))
    assert "\n" not in str(caught.value)
    assert str(room) in str(caught.value)


@pytest.mark.parametrize("content", ["", "just text", "camera: ["])
def test_what_is_no_description_is_named(room, content):
    (room / "dataset.yaml").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.yaml") as caught:
        load_scene(room)
    assert "\n" not in str(caught.value)


def test_a_description_runs_no_code(room):
    target = room / "made"
    (room / "dataset.yaml").write_text(f"camera: !!python/object/apply:os.mkdir ['{target}']\n")
    with pytest.raises(DataError, match="not readable as YAML"):
        load_scene(room)
    assert not target.exists()


def test_a_kitti_trajectory_has_a_row_for_each_image(room):
    np.savetxt(room / "seq-01" / "poses.txt", [pose[:3].ravel() for pose in walk(3)])
    with pytest.raises(DataError, match="3 KITTI rows for 4 images"):
        load_scene(describe(room, poses={"file": "poses.txt", "format": "kitti"}))


def test_every_key_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()

    def keys(model):
        for name, field in model.model_fields.items():
            yield name
            for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(part, "model_fields"):
                    yield from keys(part)

    missing = [key for key in keys(Description) if f"`{key}`" not in page]
    assert not missing
