"""Packed frames: they are what the files hold, whichever way they come, and no pack is taken wrongly."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import write_scene

from ofvl_core.datasets import SceneData, load_scene
from ofvl_core.datasets.scene import DepthFormat
from ofvl_core.errors import ConfigError, DataError
from ofvl_core.resize import resize
from ofvl_core.training.packed import pack_frames

FRAMES = 8
SAMPLES = 3
"""Frames that are decoded to recognise a pack, however many it holds."""


@pytest.fixture
def scene(tmp_path) -> SceneData:
    """Eight training frames, 80x60."""
    return load_scene(write_scene(tmp_path / "room", frames=FRAMES))


def network_input(scene):
    """A quarter of the image's size, so that half of it is stored."""
    return scene.camera.resized(20, 15)


def packs(cache: Path) -> list[Path]:
    return sorted(path.parent for path in cache.glob("*/*/images.npy"))


def assert_same(one, other):
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.depths, other.depths)
    assert np.array_equal(one.world_from_camera, other.world_from_camera)
    assert (one.camera, one.input_camera) == (other.camera, other.input_camera)


def test_frames_are_those_of_the_files(scene):
    packed = pack_frames(scene, network_input(scene))
    assert packed.camera == scene.camera.resized(40, 30)
    assert (packed.images.dtype, packed.depths.dtype) == (np.uint8, np.uint16)
    assert len(packed) == FRAMES
    for number, frame in enumerate(scene.frames("train")):
        assert np.array_equal(packed.images[number], resize(scene.read_color(frame), packed.camera))
        depth = scene.read_depth(frame)
        block = np.stack([depth[row::2, column::2] for row in (0, 1) for column in (0, 1)])
        assert (block == packed.depths[number]).any(axis=0).all()  # nearest: no depth that nobody measured
        assert np.array_equal(packed.world_from_camera[number], frame.world_from_camera)


def test_images_are_never_enlarged_nor_is_depth(scene):
    coarse = replace(scene, depth_format=DepthFormat(camera=scene.camera.resized(32, 24)))
    for frame in scene.frames("train"):
        depth = cv2.imread(str(frame.depth), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(frame.depth), cv2.resize(depth, (32, 24), interpolation=cv2.INTER_NEAREST))
    packed = pack_frames(coarse, scene.camera)
    assert packed.camera == scene.camera
    assert packed.images.shape == (FRAMES, 60, 80, 3)
    expected = [coarse.read_depth(frame) for frame in coarse.frames("train")]
    assert np.array_equal(packed.depths, expected)


class Counting(SceneData):
    """A scene that knows which images were decoded."""

    decoded: list[str]

    def read_color(self, frame):
        self.decoded.append(frame.name)
        return super().read_color(frame)


def counting(scene) -> Counting:
    counted = Counting(scene.name, scene.root, scene.camera, scene.splits, scene.depth_format)
    object.__setattr__(counted, "decoded", [])
    return counted


def test_a_cache_gives_the_same_frames_and_is_used_again(scene, tmp_path):
    camera, cache = network_input(scene), tmp_path / "cache"
    in_memory = pack_frames(scene, camera)
    calls = []
    first = pack_frames(scene, camera, cache, lambda: calls.append(1))
    assert len(calls) == FRAMES
    assert_same(first, in_memory)
    assert not first.images.flags.writeable
    [pack] = packs(cache)
    counted = counting(scene)
    assert_same(pack_frames(counted, camera, cache, lambda: calls.append(1)), in_memory)
    assert len(calls) == 2 * FRAMES
    assert len(counted.decoded) == SAMPLES
    assert packs(cache) == [pack]


def test_a_scene_named_otherwise_is_still_the_same(scene, tmp_path, monkeypatch):
    """By a relative path, or through a link: nothing of it changes the pack."""
    camera, cache = network_input(scene), tmp_path / "cache"
    pack_frames(scene, camera, cache)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "room").symlink_to(scene.root)
    monkeypatch.chdir(tmp_path)
    for path in (Path("room"), Path("links/room")):
        again = counting(load_scene(path))
        pack_frames(again, camera, cache)
        assert len(again.decoded) == SAMPLES


def test_changed_files_are_packed_anew_and_the_old_pack_goes(scene, tmp_path):
    camera, cache = network_input(scene), tmp_path / "cache"
    before = pack_frames(scene, camera, cache)
    [old] = packs(cache)
    changed = scene.frames("train")[5]
    cv2.imwrite(str(changed.depth), np.full((60, 80), 1234, np.uint16))
    after = pack_frames(scene, camera, cache)
    assert (after.depths[5] == 1234).all()
    assert (before.depths[5] != 1234).any()  # who has the old pack open keeps it
    assert packs(cache) != [old]
    assert len(packs(cache)) == 1


@pytest.mark.parametrize("change", ["invalid", "unit", "fewer frames"])
def test_another_reading_of_the_same_files_is_packed_anew(scene, tmp_path, change):
    camera, cache = network_input(scene), tmp_path / "cache"
    unsampled = scene.frames("train")[1].depth
    cv2.imwrite(str(unsampled), np.full((60, 80), 777, np.uint16))
    pack_frames(scene, camera, cache)
    other = {
        "invalid": replace(scene, depth_format=DepthFormat(invalid=(0, 777, 65535))),
        "unit": replace(scene, depth_format=DepthFormat(unit=0.002)),
        "fewer frames": replace(scene, splits={"train": scene.frames("train")[::2]}),
    }[change]
    assert_same(pack_frames(other, camera, cache), pack_frames(other, camera))
    assert len(packs(cache)) == 1


def test_a_reader_that_decodes_otherwise_is_noticed(scene, tmp_path):
    """The samples see what no file date and no setting shows: a corrected registration, say."""

    class Corrected(SceneData):
        def read_depth(self, frame):
            return super().read_depth(frame) + np.uint16(1)

    camera, cache = network_input(scene), tmp_path / "cache"
    pack_frames(scene, camera, cache)
    corrected = Corrected(scene.name, scene.root, scene.camera, scene.splits, scene.depth_format)
    assert_same(pack_frames(corrected, camera, cache), pack_frames(corrected, camera))


def test_poses_are_always_those_of_the_scene(scene, tmp_path):
    cache = tmp_path / "cache"
    pack_frames(scene, network_input(scene), cache)
    frames = [replace(frame, world_from_camera=np.eye(4)) for frame in scene.frames("train")]
    moved = pack_frames(replace(scene, splits={"train": frames}), network_input(scene), cache)
    assert (moved.world_from_camera == np.eye(4)).all()


def test_other_sizes_and_scenes_have_packs_of_their_own(scene, tmp_path):
    cache = tmp_path / "cache"
    second = load_scene(write_scene(tmp_path / "elsewhere" / "room", frames=2))
    for data, camera in (
        (scene, network_input(scene)),
        (scene, scene.camera),
        (second, network_input(second)),
    ):
        pack_frames(data, camera, cache)
    assert len(packs(cache)) == 3


@pytest.mark.parametrize("size", [0, 50, 5000])
def test_a_damaged_pack_is_written_again(scene, tmp_path, size):
    camera, cache = network_input(scene), tmp_path / "cache"
    pack_frames(scene, camera, cache)
    [pack] = packs(cache)
    os.truncate(pack / "images.npy", size)
    assert_same(pack_frames(scene, camera, cache), pack_frames(scene, camera))


PACK = """
import os, signal, sys, time
from pathlib import Path
from ofvl_core.datasets import load_scene
from ofvl_core.training.packed import pack_frames
scene = load_scene(Path(sys.argv[1]))
calls = []
def on_frame():
    calls.append(1)
    {on_frame}
packed = pack_frames(scene, scene.camera.resized(20, 15), Path(sys.argv[2]), on_frame)
print(len(calls), packed.images.sum(), packed.depths.sum())
"""


def test_a_killed_writer_leaves_nothing_that_is_taken_for_whole(scene, tmp_path):
    cache = tmp_path / "cache"
    code = PACK.format(on_frame="if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)")
    killed = subprocess.run([sys.executable, "-c", code, scene.root, cache])
    assert killed.returncode == -signal.SIGKILL
    [partial] = packs(cache)
    camera = network_input(scene)
    assert_same(pack_frames(scene, camera, cache), pack_frames(scene, camera))
    assert not partial.exists()
    assert len(packs(cache)) == 1


def test_processes_that_pack_at_once_share_one_whole_pack(scene, tmp_path):
    """The second comes while the first is amid writing, waits, and decodes nothing but its samples."""
    cache, begun, go_on = tmp_path / "cache", tmp_path / "begun", tmp_path / "go_on"
    code = PACK.format(
        on_frame=f"""
    Path({str(begun)!r}).touch()
    while not Path({str(go_on)!r}).exists():
        time.sleep(0.01)
"""
    )
    command = [sys.executable, "-c", code, scene.root, cache]
    second, calls = counting(scene), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first, ThreadPoolExecutor() as pool:
        while not begun.exists():
            assert first.poll() is None
            time.sleep(0.01)
        waiting = pool.submit(pack_frames, second, network_input(scene), cache, lambda: calls.append(1))
        assert not wait([waiting], timeout=0.3).done
        go_on.touch()
        packed = waiting.result(timeout=60)
        printed = first.communicate(timeout=60)[0].split()
    assert printed == [str(FRAMES), str(packed.images.sum()), str(packed.depths.sum())]
    assert_same(packed, pack_frames(scene, network_input(scene)))
    assert (len(calls), len(second.decoded)) == (FRAMES, SAMPLES)
    assert len(packs(cache)) == 1


def test_a_full_disc_is_one_sentence_and_leaves_nothing(scene, tmp_path):
    cache = tmp_path / "cache"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the pack's images need 29 kB
    try:
        with pytest.raises(
            ConfigError, match=r"cache/room-\w+: cannot hold the 1 MB of packed frames \(.*free space"
        ):
            pack_frames(scene, network_input(scene), cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]


def test_a_cache_that_is_no_folder_is_named(scene, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(ConfigError, match=r"cache/room-\w+: cannot hold .*\(Not a directory\)"):
        pack_frames(scene, network_input(scene), tmp_path / "cache")


@pytest.mark.parametrize("with_cache", [False, True])
def test_bad_frames_are_named_and_leave_no_pack(scene, tmp_path, with_cache):
    cache = tmp_path / "cache" if with_cache else None
    frames = scene.frames("train")
    without = replace(scene, splits={"train": [*frames[:-1], replace(frames[-1], depth=None)]})
    with pytest.raises(DataError, match=r"frame-000007.*no depth"):
        pack_frames(without, network_input(scene), cache)
    whole = frames[4].color.read_bytes()
    frames[4].color.write_bytes(whole[:50])
    with pytest.raises(DataError, match=r"frame-000004.*not a readable image"):
        pack_frames(scene, network_input(scene), cache)
    frames[4].color.write_bytes(whole)
    frames[4].depth.unlink()
    with pytest.raises(DataError, match=r"frame-000004\.depth.*cannot be read"):
        pack_frames(scene, network_input(scene), cache)
    assert packs(tmp_path / "cache") == []


def test_a_frame_may_lack_valid_depth_a_scene_may_not(scene, tmp_path):
    nothing, cache = np.zeros((60, 80), np.uint16), tmp_path / "cache"
    first, *others = scene.frames("train")
    cv2.imwrite(str(first.depth), nothing)
    packed = pack_frames(scene, network_input(scene))
    assert not packed.depths[0].any()
    assert packed.depths[1:].any(axis=(1, 2)).all()
    for frame in others:
        shutil.copy(first.depth, frame.depth)
    for folder in (None, cache):
        with pytest.raises(DataError, match=r"room: no training frame has a valid depth"):
            pack_frames(scene, network_input(scene), folder)
    assert packs(cache) == []


def without_depth(scene):
    """A recording of colour alone."""
    frames = [replace(frame, depth=None) for frame in scene.frames("train")]
    return replace(scene, splits={**scene.splits, "train": frames})


@pytest.mark.parametrize("with_cache", [False, True])
def test_a_video_has_no_depth(scene, tmp_path, with_cache):
    cache, camera, video = (
        tmp_path / "cache" if with_cache else None,
        network_input(scene),
        without_depth(scene),
    )
    packed = pack_frames(video, camera, cache, with_depth=False)
    assert packed.depths.shape == (FRAMES, 0, 0)
    with_depth = pack_frames(scene, camera)
    assert np.array_equal(packed.images, with_depth.images)
    assert np.array_equal(packed.world_from_camera, with_depth.world_from_camera)
    assert packed.camera == with_depth.camera
    with pytest.raises(DataError, match="has no depth beside it"):
        pack_frames(video, camera, cache)


def test_depth_that_is_not_asked_for_is_not_read(scene, tmp_path):
    """Its pack is used again, also when depth changes, and stays beside the one with depth."""
    camera, cache = network_input(scene), tmp_path / "cache"
    with_depth = pack_frames(scene, camera, cache)
    first = pack_frames(scene, camera, cache, with_depth=False)
    assert len(packs(cache)) == 2
    for frame in scene.frames("train"):
        frame.depth.write_bytes(b"no image")
    again = counting(without_depth(scene))
    assert_same(pack_frames(again, camera, cache, with_depth=False), first)
    assert len(again.decoded) == SAMPLES
    assert np.array_equal(with_depth.images, first.images)
    assert len(packs(cache)) == 2
    color = np.zeros((60, 80, 3), np.uint8)
    cv2.imwrite(str(scene.frames("train")[5].color), color)
    assert not pack_frames(scene, camera, cache, with_depth=False).images[5].any()


def test_memory_stays_flat_while_a_cache_is_written(tmp_path):
    scene = load_scene(write_scene(tmp_path / "room", frames=300, sequences=1))
    pack_frames(replace(scene, splits={"train": scene.frames("train")[:2]}), scene.camera)  # imports, threads
    tracemalloc.start()
    try:
        packed = pack_frames(scene, scene.camera, tmp_path / "cache")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (packed.images.nbytes + packed.depths.nbytes) / 2
