"""The repository is one ROS package that colcon installs whole, and needs only what rosdep knows."""

import ast
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package_string

ROOT = Path(__file__).resolve().parent.parent
SHARED_FOLDERS = ("launch", "config", "rviz")
EXECUTABLES = {"ofvl", "localizer", "bag_player", "recorder", "visual_odometry"}
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "build", "install", "log", "out", "*.egg-info")


@pytest.fixture(scope="module")
def manifest():
    warnings = []
    package = parse_package_string((ROOT / "package.xml").read_text(), warnings=warnings)
    # A manifest with a fault makes colcon take the repository for plain Python without a word.
    assert not warnings
    return package


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The prefix that `colcon build` installed, from a copy of the sources in a path with a space."""
    workspace = tmp_path_factory.mktemp("work space")
    source = workspace / "src" / "ofvl"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    run_colcon(workspace, "build", "--event-handlers", "console_direct+")
    return source, workspace / "install" / "ofvl_ros"


def run_colcon(folder, *arguments):
    # As a module: the colcon of apt would otherwise leave this environment's Python out of the executables.
    command = [sys.executable, "-m", "colcon", "--log-base", str(folder / "log"), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def known_keys():
    lines = (ROOT / "test/rosdep_keys.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def imported_packages():
    """Top names of everything the package's modules and launch files import."""
    names = set()
    for folder in ("ofvl_core", "ofvl_ros", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    return names


def files_below(folder):
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_colcon_sees_one_package_of_the_right_type(tmp_path):
    # The interface package in overlay/ must stay out of sight: real ROS brings its own.
    listed = run_colcon(tmp_path, "list", "--base-paths", str(ROOT))
    assert listed.split("\t")[0] == "ofvl_ros"
    assert listed.splitlines()[0].endswith("(ros.ament_python)")
    assert len(listed.splitlines()) == 1


@pytest.mark.parametrize("folder", SHARED_FOLDERS)
def test_every_file_is_installed(built, folder):
    source, prefix = built
    assert files_below(source / folder)
    assert files_below(prefix / "share/ofvl_ros" / folder) == files_below(source / folder)


def test_manifest_and_index_entry_are_installed(built):
    _, prefix = built
    assert (prefix / "share/ofvl_ros/package.xml").is_file()
    assert (prefix / "share/ament_index/resource_index/packages/ofvl_ros").is_file()


@pytest.mark.parametrize("package", ["ofvl_core", "ofvl_ros"])
def test_every_module_is_installed(built, package):
    source, prefix = built
    (installed,) = (prefix / "lib").glob(f"python*/site-packages/{package}")
    assert files_below(installed) == files_below(source / package)


def test_overlay_is_not_installed(built):
    _, prefix = built
    assert not [path for path in files_below(prefix) if "tf2_ros" in path.parts or "tf2_msgs" in path.parts]


def test_executables_are_where_ros_looks_and_run_with_the_python_that_built_them(built):
    _, prefix = built
    executables = prefix / "lib/ofvl_ros"
    assert {path.name for path in executables.iterdir()} == EXECUTABLES
    for path in executables.iterdir():
        assert path.stat().st_mode & 0o111
        assert str(Path(sys.executable).parent) in path.read_text().splitlines()[0]


def test_entry_points_lead_to_functions():
    scripts = distribution("ofvl_ros").entry_points.select(group="console_scripts")
    assert {script.name for script in scripts} == EXECUTABLES
    assert all(callable(script.load()) for script in scripts)


def test_manifest_names_only_what_rosdep_knows(manifest):
    needed = {dependency.name for dependency in [*manifest.exec_depends, *manifest.test_depends]}
    assert needed
    assert not needed - known_keys()
    # ament_python asks for nothing at build time, and rosdep knows no key of that name.
    assert not [*manifest.build_depends, *manifest.buildtool_depends]


def test_manifest_names_every_ros_package_that_is_imported(manifest):
    needed = {dependency.name for dependency in manifest.exec_depends}
    # The Python part of tf2_ros is a package of its own.
    imported = {name.replace("tf2_ros", "tf2_ros_py") for name in imported_packages() & known_keys()}
    assert imported
    assert not imported - needed


def test_changelog_describes_this_version(manifest):
    assert f"## [{manifest.version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert distribution("ofvl_ros").version == manifest.version
