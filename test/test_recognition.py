"""Which scene is it: evidence from what cells miss, in rooms made of points."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofvl_core.calibration import Calibration
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.checkpoint import Manifest, SceneRecord, TrainingRecord
from ofvl_core.datasets import load_scene
from ofvl_core.geometry import apply, transform_from_rotation_vector
from ofvl_core.localizer import Cells, Localization, Localizer
from ofvl_core.network import ARCHITECTURES
from ofvl_core.recognition import SceneSearch, SearchOptions, ray_distances
from ofvl_core.training.config import TrainConfig

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)
LENS = Camera(160, 120, 150.0, 150.0, 79.5, 59.5, (-0.2, 0.05, 0.001, -0.001))
HALF = np.array([2.5, 2.0, 1.3])
OPTIONS = SearchOptions()


def manifest(*scenes: str, calibration: Calibration | None = None) -> Manifest:
    records = [SceneRecord(name=name, camera=CAMERA, input_focal=150.0, frames=10) for name in scenes]
    training = TrainingRecord(scenes=list(scenes), config=TrainConfig(), calibration=calibration)
    return Manifest(architecture=ARCHITECTURES["ofvl_ms_lite"], scenes=records, trainings=[training])


def view(
    scene: str,
    yaw_deg: float,
    missing: float = 0.0,
    camera: Camera = CAMERA,
    by: float = 1.0,
    seed: int = 0,
    x: float = 0.1,
) -> Localization:
    """A camera in a room, turned by `yaw_deg`. A share `missing` of the cells, drawn by `seed`, lie `by`
    metres beside their rays, the others where they ought to and 1 cm off."""
    random = np.random.default_rng(seed)
    down = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # optical axes in the room
    pose = transform_from_rotation_vector([0, 0, np.radians(yaw_deg)], [x, 0.2, 0.0])
    pose[:3, :3] = pose[:3, :3] @ down
    pixels = cell_pixels(camera.width, camera.height, 8)
    rays = camera.rays(pixels)
    directions = rays @ pose[:3, :3].T
    walls = ((np.sign(directions) * HALF - pose[:3, 3]) / directions).min(axis=1)
    in_camera = rays * walls[:, None] + random.normal(0, 0.01, rays.shape)
    in_camera[random.permutation(len(rays))[: round(missing * len(rays))], 0] += by
    inliers = np.ones(len(rays), bool)
    cells = Cells(pixels, apply(pose, in_camera), np.full(len(rays), 0.03), inliers, camera.width // 8)
    return Localization(scene, pose, np.eye(6), 0.03, None, cells)


def lost(scene: str) -> Localization:
    """An image without a pose."""
    cells = view(scene, 0).cells
    return Localization(scene, None, None, np.inf, "RANSAC found no pose", cells)


def turn(search: SceneSearch, missing: dict[str, float], degrees: range) -> int:
    """Turn on the spot until there is an answer; the images it took."""
    for count, yaw in enumerate(degrees, 1):
        search.update([view(scene, yaw, share, seed=yaw) for scene, share in missing.items()], CAMERA)
        if search.answer or search.unknown:
            return count
    return len(degrees)


def test_scene_whose_surface_was_seen_is_the_answer() -> None:
    search = SceneSearch(manifest("a", "b"))
    assert search.answer is None
    images = turn(search, {"a": 0.0, "b": 0.3}, range(0, 360, 12))
    assert search.answer == "a" and not search.unknown
    assert 8 < images < 30  # one look is not enough, one turn is
    assert search.evidence["a"] >= OPTIONS.enough


def test_standing_still_decides_nothing() -> None:
    """Images of one view, however many, are one look."""
    search = SceneSearch(manifest("a", "b"))
    for seed in range(200):
        search.update([view("a", 0, 0.0, seed=seed), view("b", 0, 0.1, seed=seed)], CAMERA)
    assert search.answer is None and not search.unknown
    assert 0.9 < search.evidence["a"] < 2.0
    assert -OPTIONS.doubt < search.evidence["b"] < 0


def test_twins_that_both_fit_stay_undecided() -> None:
    """As long as nothing was seen in which they differ."""
    search = SceneSearch(manifest("a", "b"))
    turn(search, {"a": 0.0, "b": 0.0}, range(0, 360, 12))
    assert search.answer is None
    assert search.evidence["a"] > OPTIONS.enough


def test_unknown_twin_is_not_taken_for_its_room() -> None:
    """Half of its views show nothing but what the twins have in common."""
    search = SceneSearch(manifest("a"))
    unknown = 0
    for yaw in range(0, 1800, 12):
        foreign = 0.12 if (yaw // 60) % 2 else 0.0
        search.update([view("a", yaw, foreign, seed=yaw)], CAMERA)
        assert search.answer is None
        unknown += search.unknown
    assert unknown > 5


def test_place_against_which_all_speak_is_unknown_until_one_fits() -> None:
    search = SceneSearch(manifest("a", "b"))
    images = turn(search, {"a": 0.6, "b": 0.6}, range(0, 360, 12))
    assert search.unknown and search.answer is None
    assert images > 3  # one bad image rules nothing out
    turn(search, {"a": 0.0, "b": 0.6}, range(0, 1))
    assert not search.unknown
    turn(search, {"a": 0.0, "b": 0.6}, range(0, 360, 12))
    assert search.answer == "a"


def test_robot_carried_elsewhere_is_followed() -> None:
    search = SceneSearch(manifest("a", "b"))
    for yaw in range(0, 3600, 12):
        search.update([view("a", yaw), view("b", yaw, 0.6)], CAMERA)
    assert search.answer == "a"
    turned = turn(search, {"a": 0.6, "b": 0.6}, range(0, 360, 12))
    assert search.answer == "a" and turned == 1  # one image changes no answer
    for yaw in range(0, 360, 12):
        search.update([view("a", yaw, 0.6), view("b", yaw)], CAMERA)
    assert search.answer == "b"


def test_scene_that_was_ruled_out_can_be_found_again() -> None:
    """Though all of its surface has been seen before."""
    search = SceneSearch(manifest("a", "b"))
    for share in (0.0, 0.6, 0.0):
        for yaw in range(0, 360, 12):
            search.update([view("a", yaw, share), view("b", yaw, 0.6 - share)], CAMERA)
        assert search.answer == ("a" if share == 0 else "b")


def test_small_scene_is_found_from_many_places() -> None:
    """Where one image shows all there is, only that it fits from everywhere can tell."""
    search = SceneSearch(manifest("a", "b"))
    places = 0
    while search.answer is None and places < 300:
        x = -2.0 + 0.27 * (places % 14)
        search.update([view("a", 4.0 * (places // 14), x=x), view("b", 0, 0.6)], CAMERA)
        places += 1
    assert search.answer == "a" and places > 20


def test_only_scenes_in_the_running_are_candidates() -> None:
    search = SceneSearch(manifest("a", "b", "c"))
    assert search.candidates == ["a", "b", "c"]
    for yaw in range(0, 96, 12):
        search.update([view("a", yaw), view("b", yaw, 0.6), view("c", yaw, 0.02)], CAMERA)
    assert search.candidates == ["a", "c"]
    for yaw in range(0, 240, 12):
        search.update([view(scene, yaw, 0.6) for scene in search.candidates], CAMERA)
    assert search.unknown and search.candidates == ["a", "b", "c"]
    search.reset()
    assert not search.unknown and set(search.evidence.values()) == {0.0}


def test_images_without_any_pose_say_nothing() -> None:
    search = SceneSearch(manifest("a", "b"))
    for _ in range(50):
        search.update([lost("a"), lost("b")], CAMERA)
    assert set(search.evidence.values()) == {0.0}
    search.update([view("a", 0), lost("b")], CAMERA)
    assert search.evidence["b"] < 0 < search.evidence["a"]


def test_gross_miss_is_in_units_of_the_calibrated_uncertainty() -> None:
    calibration = Calibration(
        inflation=2.0, frames=50, poses=50, within_95=0.95, inlier_share=0.2, uncertainty=0.2
    )
    cells = [view("a", 0, 0.5, by=1.0)]
    default, calibrated = SceneSearch(manifest("a")), SceneSearch(manifest("a", calibration=calibration))
    default.update(cells, CAMERA)
    calibrated.update(cells, CAMERA)  # 1 m is less than 8 x 0.2 m
    assert default.evidence["a"] < 0 < calibrated.evidence["a"]


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        SceneSearch(manifest("a")).update([view("b", 0)], CAMERA)


@given(st.floats(-180, 180), st.floats(0.05, 3.0), st.sampled_from([CAMERA, LENS]))
def test_ray_distance_is_metric_and_undoes_the_lens(yaw: float, by: float, camera: Camera) -> None:
    distances = ray_distances(view("a", yaw, 0.25, camera, by), camera)
    assert distances is not None
    count = round(0.25 * len(distances))
    furthest = np.sort(distances)[-count:]
    assert np.abs(furthest - by).max() < 0.1
    assert np.sort(distances)[:-count].max() < 0.1


def test_what_lies_behind_the_camera_misses() -> None:
    found = view("a", 0)
    found.cells.scene_coordinates[0] = found.world_from_camera[:3, 3] - found.world_from_camera[:3, 2]
    distances = ray_distances(found, CAMERA)
    assert distances is not None and np.isinf(distances[0]) and np.isfinite(distances[1:]).all()


def test_network_that_knows_rooms_by_heart_tells_them_apart(
    tiny_checkpoint: Path, tiny_scenes: list[Path]
) -> None:
    localizer = Localizer(tiny_checkpoint, "cpu")
    search = SceneSearch(localizer.manifest)
    for path in tiny_scenes:
        search.reset()
        scene = load_scene(path)
        for frame in scene.frames("train"):
            search.update(
                localizer.localize_in_each(scene.read_color(frame), scene.camera, localizer.scenes),
                scene.camera,
            )
        assert max(search.evidence, key=search.evidence.__getitem__) == scene.name
        assert search.answer in (None, scene.name)
        (other,) = set(localizer.scenes) - {scene.name}
        assert search.evidence[other] < 0
