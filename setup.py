from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

MANIFEST = ElementTree.parse("package.xml")
PACKAGE = MANIFEST.findtext("name")


def installed_folder(name: str) -> list[tuple[str, list[str]]]:
    """Every file below a folder, of whatever type, goes to the same place below share/."""
    folders: dict[str, list[str]] = {}
    for path in sorted(Path(name).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            folders.setdefault(f"share/{PACKAGE}/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(folders.items())


setup(
    name=PACKAGE,
    version=MANIFEST.findtext("version"),
    description=" ".join(MANIFEST.findtext("description").split()),
    license=MANIFEST.findtext("license"),
    python_requires=">=3.10",
    packages=find_packages(include=["ofvl_core", "ofvl_core.*", "ofvl_ros", "ofvl_ros.*"]),
    package_data={"ofvl_core": ["pretrained/*.safetensors"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *installed_folder("launch"),
        *installed_folder("config"),
        *installed_folder("rviz"),
    ],
    entry_points={
        "console_scripts": [
            "ofvl = ofvl_core.cli:main",
            "localizer = ofvl_ros.commands:localizer",
            "bag_player = ofvl_ros.commands:bag_player",
            "recorder = ofvl_ros.commands:recorder",
            "visual_odometry = ofvl_ros.commands:visual_odometry",
        ]
    },
    extras_require={
        # Without it `colcon test` runs unittest, finds nothing and calls that a success.
        "test": ["pytest"],
        "openvino": ["openvino"],
        "export": ["onnx", "onnxscript", "onnxruntime"],
    },
    zip_safe=False,
)
