"""Builds that are interrupted, repeated, or asked for what is not there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from livl_helpers import EVERYTHING, TOPIC, recorded
from recording_helpers import ROS2, SECOND, write_bag

from ofvl_core.datasets import load_scene
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.livl.build import build
from ofvl_core.livl.options import Options

SCENE = "hall"


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> list[Path]:
    """Two drives, one after the other."""
    folder = tmp_path_factory.mktemp("drives")
    return [
        write_bag(
            folder / f"drive_{number}",
            [(topic, stamp + number * 100 * SECOND, message) for topic, stamp, message in recorded(ROS2)],
        )
        for number in (1, 2)
    ]


def test_an_interrupted_build_goes_on_and_ends_alike(bags, tmp_path):
    doing: list[str] = []

    def interrupt(what: str, done: int, total: int | None) -> None:
        doing.append(what)
        if what == "writing frames" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bags[:1], tmp_path / "a", SCENE, TOPIC, progress=interrupt)
    assert any("looking at images" in what for what in doing)
    assert not (tmp_path / "a" / SCENE).exists()
    doing.clear()
    going_on = build(bags[:1], tmp_path / "a", SCENE, TOPIC, progress=lambda what, *_: doing.append(what))
    assert not any("looking at images" in what for what in doing)
    at_once = build(bags[:1], tmp_path / "b", SCENE, TOPIC)
    names = {path.relative_to(at_once) for path in at_once.rglob("*")}
    assert {path.relative_to(going_on) for path in going_on.rglob("*")} == names
    for name in sorted(names):
        if (at_once / name).is_file():
            assert (at_once / name).read_bytes() == (going_on / name).read_bytes(), name
    assert [path.name for path in (tmp_path / "a").iterdir()] == [SCENE]


@pytest.mark.parametrize("change", ["options", "bags"])
def test_other_options_or_bags_begin_anew(bags, tmp_path, change):
    def stop(what: str, done: int, total: int | None) -> None:
        if what == "writing frames":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bags[:1], tmp_path, SCENE, TOPIC, progress=stop)
    options = replace(TOPIC, time_offset=0.01) if change == "options" else TOPIC
    others = bags[1:] if change == "bags" else bags[:1]
    doing: list[str] = []
    build(others, tmp_path, SCENE, options, progress=lambda what, *_: doing.append(what))
    assert any("looking at images" in what for what in doing)


def test_a_changed_file_of_poses_begins_anew(bags, tmp_path):
    rows = [f"{1_760_000_000 + at / 30:.9f} {0.05 * at} 0 0 0 0 0 1" for at in range(40)]
    file = tmp_path / "poses.txt"
    file.write_text("\n".join(rows))
    options = Options(poses=str(file), compare="none", time_offset=0.0, spacing=EVERYTHING)

    def stop(what: str, done: int, total: int | None) -> None:
        if what == "writing frames":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bags[:1], tmp_path / "data", SCENE, options, progress=stop)
    file.write_text("\n".join(rows[:20]))
    root = build(bags[:1], tmp_path / "data", SCENE, options)
    assert len(load_scene(root).frames("train")) < 25


def test_two_builds_of_one_scene_do_not_mix(bags, tmp_path):
    def meanwhile(what: str, done: int, total: int | None) -> None:
        if what == "writing frames" and done == 1:
            with pytest.raises(ConfigError, match="another build is at work there"):
                build(bags[:1], tmp_path, SCENE, TOPIC)

    assert load_scene(build(bags[:1], tmp_path, SCENE, TOPIC, progress=meanwhile)).frames("train")


def test_the_last_drive_is_for_testing_or_the_one_that_is_named(bags, tmp_path):
    sequences = {}
    for name, options in (("last", TOPIC), ("named", replace(TOPIC, test=("drive_1",)))):
        scene = load_scene(build(bags, tmp_path / name, SCENE, options))
        sequences[name] = {frame.sequence for frame in scene.frames("test")}
    assert sequences == {"last": {"seq-02"}, "named": {"seq-01"}}


def test_a_single_drive_is_for_training_and_says_so(bags, tmp_path):
    root = build(bags[:1], tmp_path, SCENE, TOPIC)
    assert any("testing" in text for text in json.loads((root / "manifest.json").read_text())["warnings"])


@pytest.mark.parametrize(
    ("others", "error", "named"),
    [
        ({"test": ("drive_9",)}, ConfigError, "no such bag; choose of drive_1, drive_2"),
        ({"topics": {"cloud": "/nothing"}}, DataError, "no topic /nothing; it holds"),
        ({"topics": {"cloud": "/aft_mapped_to_init"}}, DataError, "cannot be the cloud topic"),
        ({"topics": {"colour": "/odom"}}, ConfigError, "unknown role"),
        ({"calibration": Path("missing.yaml")}, DataError, "missing.yaml"),
        ({"refine_calibration": True}, ConfigError, "leave it out"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(bags, tmp_path, others, error, named):
    with pytest.raises(error, match=named) as raised:
        build(bags, tmp_path / "out", SCENE, replace(TOPIC, **others))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / SCENE).exists()


@pytest.mark.parametrize(
    ("poses", "error", "named"),
    [
        ("nonsense", ConfigError, "is no source of poses"),
        ("/odometry", DataError, "no topic /odometry with poses"),
        ("/velodyne_points", DataError, "holds no poses"),
        ("tf:map,velodyne", DataError, "'map'"),
    ],
)
def test_a_source_of_poses_that_is_not_there_is_named(bags, tmp_path, poses, error, named):
    with pytest.raises(error, match=named):
        build(bags, tmp_path, SCENE, Options(poses=poses, compare="none"))
