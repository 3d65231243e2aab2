"""A robot's camera and LiDAR are found among a bag's topics."""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from recording_helpers import ROS1, ROS2, SECOND, Ros, write_bag
from rosbags.rosbag2 import Writer

from ofvl_core.errors import ConfigError, DataError
from ofvl_core.recording.bags import Recording
from ofvl_core.recording.images import depth_array, rgb_array
from ofvl_core.recording.messages import camera_from_info, frame_from_body
from ofvl_core.recording.topics import Topics, choose_topics

START = 1000 * SECOND
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
MILLIMETRES = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
VELODYNE = np.ones(4, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("ring", "u2"), ("time", "f4")])
COLORED = np.ones(4, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "f4")])
MAPPED = np.array(
    [(9, 0, 9 * np.tan(np.radians(1)), 1)] * 4, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("intensity", "f4")]
)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def color(ros: Ros = ROS2, frame: str = "color") -> Any:
    return ros.image(START, RGB, "rgb8", frame)


def grey(frame: str = "infra") -> Any:
    return ROS2.image(START, RGB[..., 0], "mono8", frame)


def depth(ros: Ros = ROS2, frame: str = "depth") -> Any:
    return ros.image(START, MILLIMETRES, "16UC1", frame)


def jpeg(frame: str = "color") -> Any:
    return ROS2.compressed(START, cv2.imencode(".jpg", RGB)[1].tobytes(), "rgb8; jpeg compressed bgr8", frame)


def packed_depth(frame: str = "depth") -> Any:
    data = struct.pack("<iff", 0, 0.0, 0.0) + png(MILLIMETRES)
    return ROS2.compressed(START, data, "16UC1; compressedDepth png", frame)


def info(frame: str = "color", ros: Ros = ROS2) -> Any:
    return ros.camera_info(START, frame=frame)


def chosen(
    path: Path,
    topics: dict[str, Any],
    names: dict[str, str] | None = None,
    lidar: bool = True,
    storage: str = "mcap",
) -> Topics:
    bag = write_bag(path / "drive.bag", [(name, START, message) for name, message in topics.items()], storage)
    with Recording(bag) as recording:
        return choose_topics(recording, names or {}, lidar)


def realsense(camera: str = "/camera/camera") -> dict[str, Any]:
    return {
        f"{camera}/color/image_raw": color(),
        f"{camera}/color/camera_info": info(),
        f"{camera}/infra1/image_rect_raw": grey(),
        f"{camera}/infra1/camera_info": info("infra"),
        f"{camera}/depth/image_rect_raw": depth(),
        f"{camera}/depth/camera_info": info("depth"),
        f"{camera}/depth/color/points": ROS2.cloud(START, COLORED, "depth"),
        f"{camera}/aligned_depth_to_color/image_raw": depth(frame="color"),
        f"{camera}/aligned_depth_to_color/image_raw/compressed": jpeg(),
        f"{camera}/aligned_depth_to_color/camera_info": info(),
    }


VLP16 = {"/velodyne_points": ROS2.cloud(START, VELODYNE)}
ALOAM = {
    "/laser_cloud_surround": ROS2.cloud(START, MAPPED, "camera_init"),
    "/velodyne_cloud_registered": ROS2.cloud(START, MAPPED, "camera_init"),
}


@pytest.mark.parametrize("camera", ["/camera/camera", "/camera", "/robot/d435"])
def test_a_realsense_and_a_velodyne_are_found(tmp_path: Path, camera: str) -> None:
    assert chosen(tmp_path, realsense(camera) | VLP16 | ALOAM) == Topics(
        color=f"{camera}/color/image_raw",
        color_info=f"{camera}/color/camera_info",
        depth=f"{camera}/aligned_depth_to_color/image_raw",
        depth_info=f"{camera}/aligned_depth_to_color/camera_info",
        cloud="/velodyne_points",
        depth_is_aligned=True,
    )


def test_unaligned_depth_is_taken_where_there_is_no_other(tmp_path: Path) -> None:
    topics = {name: message for name, message in realsense().items() if "aligned" not in name}
    found = chosen(tmp_path, topics | VLP16)
    assert (found.depth, found.depth_is_aligned) == ("/camera/camera/depth/image_rect_raw", False)
    assert found.depth_info == "/camera/camera/depth/camera_info"


def test_compressed_images_are_taken_where_there_are_no_raw_ones(tmp_path: Path) -> None:
    topics = {
        "/camera/color/image_raw/compressed": jpeg(),
        "/camera/color/camera_info": info(),
        "/camera/depth/image_rect_raw/compressed": ROS2.compressed(
            START, cv2.imencode(".jpg", RGB)[1].tobytes(), "16UC1; jpeg compressed mono8", "depth"
        ),
        "/camera/depth/image_rect_raw/compressedDepth": packed_depth(),
        "/camera/depth/camera_info": info("depth"),
    }
    found = chosen(tmp_path, topics, lidar=False)
    assert found.color == "/camera/color/image_raw/compressed"
    assert found.depth == "/camera/depth/image_rect_raw/compressedDepth"
    assert (found.color_info, found.cloud) == ("/camera/color/camera_info", "")


@pytest.mark.parametrize(
    ("name", "beside"), [("/usb_cam/image_raw", "/usb_cam/camera_info"), ("/image", "/camera_info")]
)
def test_other_drivers_names_do(tmp_path: Path, name: str, beside: str) -> None:
    topics = {
        name: color(),
        name.replace("raw", "rect"): color(),
        beside: info(),
        "/range/picture": ROS2.image(START, MILLIMETRES / np.float32(1000), "32FC1", "color"),
    }
    found = chosen(tmp_path, topics | {"/lidar/data": ROS2.cloud(START, MAPPED)})
    assert (found.color, found.color_info) == (name, beside)
    assert (found.depth, found.depth_is_aligned, found.depth_info) == ("/range/picture", True, beside)
    assert found.cloud == "/lidar/data"


def test_camera_info_may_be_told_by_its_frame(tmp_path: Path) -> None:
    topics = {
        "/a/rgb": color(frame="/color"),
        "/b/depth": depth(),
        "/x/camera_info": info("depth"),
        "/y/info": info(),
    }
    found = chosen(tmp_path, topics, lidar=False)
    assert (found.color_info, found.depth_info) == ("/y/info", "/x/camera_info")


def test_a_grey_camera_is_taken_where_no_other_is(tmp_path: Path) -> None:
    topics = {
        "/cam/image_raw": grey("cam"),
        "/cam/camera_info": info("cam"),
        "/tof/depth": depth(frame="cam"),
    }
    assert chosen(tmp_path, topics, lidar=False).color == "/cam/image_raw"


def test_two_cameras_are_named(tmp_path: Path) -> None:
    topics = realsense("/front/camera") | realsense("/rear/camera")
    with pytest.raises(
        DataError,
        match=r"/front/camera/color/image_raw and /rear/camera/color/image_raw could .* --topic color=/fr",
    ):
        chosen(tmp_path / "unnamed", topics, lidar=False)
    found = chosen(tmp_path, topics, {"color": "/rear/camera/color/image_raw"}, lidar=False)
    assert found.depth == "/rear/camera/aligned_depth_to_color/image_raw"
    assert found.color_info == "/rear/camera/color/camera_info"


def test_two_lidars_are_named_where_one_is_needed(tmp_path: Path) -> None:
    topics = realsense() | VLP16 | {"/rear/velodyne_points": ROS2.cloud(START, VELODYNE)}
    with pytest.raises(DataError, match="could each be the cloud topic"):
        chosen(tmp_path / "needed", topics)
    assert chosen(tmp_path / "idle", topics, lidar=False).cloud == ""
    names = {"cloud": "/rear/velodyne_points"}
    assert chosen(tmp_path / "named", topics, names, lidar=False).cloud == "/rear/velodyne_points"


def test_what_may_be_no_lidar_is_one_only_where_one_is_needed_or_named(tmp_path: Path) -> None:
    name = "/move_base/local_costmap/voxels"
    topics = realsense() | {name: ROS2.cloud(START, MAPPED, "map")}
    assert chosen(tmp_path / "idle", topics, lidar=False).cloud == ""
    assert chosen(tmp_path / "named", topics, {"cloud": name}, lidar=False).cloud == name
    assert chosen(tmp_path / "needed", topics).cloud == name
    assert chosen(tmp_path / "ringed", topics | VLP16, lidar=False).cloud == "/velodyne_points"


@pytest.mark.parametrize(
    ("name", "depth_frame", "color_frame", "aligned"),
    [
        ("aligned_depth_to_infra1", "infra", "color", False),
        ("aligned_depth_to_color", "color", "/color", True),
        ("aligned_depth_to_color", "", "color", True),
        ("depth_registered", "depth", "", True),
        ("depth", "color", "color", True),
        ("depth", "", "", False),
    ],
)
def test_frames_rather_than_names_say_whether_depth_is_aligned(
    tmp_path: Path, name: str, depth_frame: str, color_frame: str, aligned: bool
) -> None:
    topics = {
        "/camera/color/image_raw": color(frame=color_frame),
        "/camera/color/camera_info": info(),
        f"/camera/{name}/image_raw": depth(frame=depth_frame),
        f"/camera/{name}/camera_info": info(),
    }
    found = chosen(tmp_path, topics, {"depth": f"/camera/{name}/image_raw"}, lidar=False)
    assert found.depth_is_aligned is aligned


def fisheye() -> Any:
    message = info()
    message.distortion_model = "fisheye"
    return message


@pytest.mark.parametrize(
    ("role", "message", "cause"),
    [
        ("color", depth(), "image encoding '16UC1' is not supported"),
        ("color", ROS2.compressed(START, b"JFIF", "jpeg"), "is not a whole JPEG or PNG"),
        ("depth", grey(), "depth encoding 'mono8' is not supported"),
        ("color_info", fisheye(), "distortion model 'fisheye'"),
        ("cloud", ROS2.cloud(START, np.ones(4, [("x", "f4"), ("y", "f4")])), "lacks x, y and z"),
    ],
)
def test_a_topic_that_is_not_what_its_role_needs_is_refused(
    tmp_path: Path, role: str, message: Any, cause: str
) -> None:
    with pytest.raises(DataError, match=rf"drive\.bag: /mine cannot be the {role} topic: .*{cause}") as error:
        chosen(tmp_path, realsense() | {"/mine": message}, {role: "/mine"}, lidar=False)
    assert "\n" not in str(error.value)


def test_a_topic_whose_bytes_are_damaged_is_refused(tmp_path: Path) -> None:
    name, messages = "/camera/camera/color/image_raw", realsense()
    with Writer(tmp_path / "drive", version=8) as writer:
        for topic, message in messages.items():
            connection = writer.add_connection(topic, message.__msgtype__, typestore=ROS2.store)
            data = bytes(ROS2.store.serialize_cdr(message, message.__msgtype__))
            writer.write(connection, START, data[:-50] if topic == name else data)
    with (
        Recording(tmp_path / "drive") as recording,
        pytest.raises(DataError, match=f"drive: {name} cannot be the color topic: none of its messages"),
    ):
        choose_topics(recording, {"color": name}, lidar=False)


def test_a_first_image_that_was_cut_short_does_not_matter(tmp_path: Path) -> None:
    name = "/camera/camera/color/image_raw/compressed"
    messages = [(topic, START, message) for topic, message in realsense().items()]
    messages += [(name, START, image) for image in (ROS2.compressed(START, b"", "jpeg", "color"), jpeg())]
    with Recording(write_bag(tmp_path / "drive", messages)) as recording:
        assert choose_topics(recording, {"color": name}, lidar=False).color == name


def test_what_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    topics = {"/camera/color/image_raw": color(), "/imu": info()}
    topics["/imu"].header.frame_id = "imu"
    with pytest.raises(DataError) as error:
        chosen(tmp_path, topics)
    assert "no topic found for color_info, depth, depth_info, cloud" in str(error.value)
    assert "/camera/color/image_raw (sensor_msgs/msg/Image, 1)" in str(error.value)
    assert "--topic color_info=/name" in str(error.value)


@pytest.mark.parametrize(
    ("names", "kind", "cause"),
    [
        ({"colour": "/imu"}, ConfigError, "unknown role 'colour'"),
        ({"color": "/none"}, DataError, "no topic /none; it holds"),
        ({"color": "/velodyne_points"}, DataError, "PointCloud2 and cannot be the color topic"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, names: dict[str, str], kind: type, cause: str) -> None:
    with pytest.raises(kind, match=cause):
        chosen(tmp_path, realsense() | VLP16, names)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1"])
def test_messages_of_a_bag_are_decoded(tmp_path: Path, storage: str) -> None:
    ros = ROS1 if storage == "ros1" else ROS2
    odom_from_base = np.eye(4) + np.pad([[1.5], [2.5]], ((0, 2), (3, 0)))
    messages = {
        "/color": color(ros),
        "/color/compressed": ros.compressed(START, png(RGB[..., ::-1]), "rgb8; png compressed bgr8"),
        "/depth": depth(ros),
        "/depth/compressedDepth": ros.compressed(
            START, struct.pack("<iff", 0, 0.0, 0.0) + png(MILLIMETRES), "16UC1; compressedDepth png"
        ),
        "/info": info(ros=ros),
        "/odom": ros.odometry(START, odom_from_base),
        "/pose": ros.make(
            "geometry_msgs/msg/PoseStamped", header=ros.header(START, "map"), pose=ros.pose(odom_from_base)
        ),
    }
    bag = write_bag(
        tmp_path / "drive.bag", [(topic, START, message) for topic, message in messages.items()], storage
    )
    with Recording(bag) as recording:
        first = {topic: recording.first(topic) for topic in messages}
    for topic in ("/color", "/color/compressed"):
        np.testing.assert_array_equal(rgb_array(first[topic]), RGB)
    for topic in ("/depth", "/depth/compressedDepth"):
        expected = np.where(MILLIMETRES > 0, MILLIMETRES / 1000, np.nan)
        np.testing.assert_allclose(depth_array(first[topic]), expected, rtol=1e-6)
    camera = camera_from_info(first["/info"])
    assert (camera.fx, camera.fy, camera.cx, camera.cy, camera.width) == (100, 101, 4, 3, 8)
    assert camera.distortion == (0.1, -0.2, 0.001, 0.002, 0.05)
    for topic in ("/odom", "/pose"):
        np.testing.assert_allclose(frame_from_body(first[topic]), odom_from_base)
    transform = ros.tf(START, ("a", "b", odom_from_base)).transforms[0]
    np.testing.assert_allclose(frame_from_body(transform), odom_from_base)
