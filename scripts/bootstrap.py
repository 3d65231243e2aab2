"""Makes .venv hold all that the pip home needs, ROS 2 included. Run by make; needs only Python itself.

Running it again costs a moment when nothing changed, and resumes after a failure or an interruption:
the stamp that says "finished" is removed first and written last.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OVERLAY = ROOT / "overlay"
STAMP = VENV / "bootstrap.stamp"
WHEELS = VENV / "bootstrap.wheels"
LOG = VENV / "bootstrap.log"

OLDEST_PYTHON = (3, 10)
# What real ROS 2 computes for tf2_msgs/msg/TFMessage: with another hash no other node would be heard.
TF_MESSAGE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
# A sourced ROS 2, another environment or a parent with these wheels would leak in through these.
FOREIGN_VARIABLES = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
)


class BootstrapError(Exception):
    """One sentence with cause and remedy."""


def main() -> int:
    try:
        if STAMP.is_file() and STAMP.read_text() == fingerprint():
            return 0
        check_machine()
        bootstrap()
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nerror: interrupted; run the same command again to resume.", file=sys.stderr)
        return 130
    return 0


def bootstrap() -> None:
    STAMP.unlink(missing_ok=True)
    origin = f"{ROOT}\n{sys.version}\n"
    if not WHEELS.is_file() or WHEELS.read_text() != origin:
        # Half made, moved here from elsewhere, or made by another Python: none of these can be mended.
        shutil.rmtree(VENV, ignore_errors=True)
        base_python = getattr(sys, "_base_executable", sys.executable)
        step("creating .venv", [base_python, "-m", "venv", str(VENV)])
    # A pip that is cut off can leave packages that only look installed. Its cache makes the next try quick.
    WHEELS.unlink(missing_ok=True)
    torch = torch_requirement()
    index = os.environ.get("TORCH_INDEX")
    step(f"installing {torch}", pip_install(*(["--index-url", index] if index else []), torch))
    step("installing ROS 2 and the other requirements", pip_install("-r", str(ROOT / "requirements.txt")))
    WHEELS.write_text(origin)
    build_tf2_msgs()
    # Appended to the path by its .pth file, so that a real tf2_ros comes first wherever there is one.
    site_packages = VENV / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (site_packages / "ofvl_overlay.pth").write_text(f"{OVERLAY / 'tf2_ros'}\n", encoding="utf-8")
    step(
        "installing ofvl_ros",
        pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT)),
    )
    step(
        "checking that ROS 2 and torch load together",
        [str(PYTHON), "-c", "import torch, rclpy, cv2, tf2_msgs.msg, tf2_ros"],
    )
    partial = STAMP.with_suffix(".partial")
    partial.write_text(fingerprint())
    partial.replace(STAMP)


def check_machine() -> None:
    """Raises BootstrapError naming everything this machine lacks."""
    if sys.version_info < OLDEST_PYTHON:
        raise BootstrapError(
            f"Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed and {sys.executable} is "
            f"{platform.python_version()}; name a newer one, as in `make demo PYTHON=python3.11`."
        )
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BootstrapError(
            f"the ROS 2 wheels exist for Linux on x86-64 only and this is {platform.system()} on "
            f"{platform.machine()}; use ROS 2 from apt or the Dockerfile instead, see docs/install.md."
        )
    missing = {
        "python3-venv": importlib.util.find_spec("ensurepip") is None,
        "g++": shutil.which("c++") is None,
        "make": shutil.which("make") is None,
        "python3-dev": not Path(sysconfig.get_paths()["include"], "Python.h").is_file(),
    }
    packages = " ".join(package for package, lacking in missing.items() if lacking)
    if packages:
        raise BootstrapError(
            f"this machine lacks {packages}; run `sudo apt install {packages}` and try again."
        )


def fingerprint() -> str:
    """Changes whenever .venv would have to be brought up to date."""
    sources = [
        *sorted(ROOT.glob("requirements*.txt")),
        ROOT / "package.xml",
        ROOT / "setup.py",
        ROOT / "setup.cfg",
        *sorted(path for path in (OVERLAY / "tf2_msgs").rglob("*") if path.is_file()),
        Path(__file__),
    ]
    digest = hashlib.sha256(f"{ROOT}\n{sys.version}\n".encode())
    for source in sources:
        digest.update(f"{source.relative_to(ROOT)}\n".encode() + source.read_bytes())
    return digest.hexdigest()


def torch_requirement() -> str:
    lines = (ROOT / "requirements-common.txt").read_text().splitlines()
    return next(line.split()[0] for line in lines if line.startswith("torch=="))


def pip_install(*arguments: str) -> list[str]:
    return [str(PYTHON), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]


def build_tf2_msgs() -> None:
    """Builds the interface into the environment's own prefix, where the other ROS packages are."""
    point_wheels_at_this_python()
    build = VENV / "build" / "tf2_msgs"
    cmake = str(VENV / "bin" / "cmake")
    prefix = {"AMENT_PREFIX_PATH": str(VENV), "CMAKE_PREFIX_PATH": str(VENV)}
    configure = [
        cmake,
        *("-S", str(OVERLAY / "tf2_msgs")),
        *("-B", str(build)),
        f"-DCMAKE_INSTALL_PREFIX={VENV}",
        f"-DPython3_EXECUTABLE={PYTHON}",
        "-DBUILD_TESTING=OFF",
    ]
    step("configuring tf2_msgs", configure, prefix)
    step("building tf2_msgs", [cmake, "--build", str(build), "--parallel", "--target", "install"], prefix)
    description = json.loads((VENV / "share/tf2_msgs/msg/TFMessage.json").read_text())
    if description["type_hashes"][0]["hash_string"] != TF_MESSAGE_HASH:
        raise BootstrapError(
            "tf2_msgs came out different from that of ROS 2; run `make clean` and try again."
        )


def point_wheels_at_this_python() -> None:
    """The wheels' cmake files name include folders of the machine that built them."""
    numpy_include = subprocess.run(
        [str(PYTHON), "-c", "import numpy; print(numpy.get_include())"],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    ).stdout.strip()
    python_include = sysconfig.get_paths()["include"]
    built_elsewhere = re.compile(r"/opt/python/cp\d+-cp\d+/(include/python|lib/python)3\.\d+[\w./-]*")
    for path in (VENV / "share").rglob("*.cmake"):
        text = path.read_text()
        mended = built_elsewhere.sub(
            lambda match: python_include if match[1] == "include/python" else numpy_include, text
        )
        if mended != text:
            path.write_text(mended)


def step(what: str, command: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs one command with its output in a log, and shows what it is and how long it takes.

    Raises BootstrapError with the log's last lines when the command fails.
    """
    start = time.monotonic()
    live = sys.stderr.isatty()
    VENV.mkdir(exist_ok=True)
    log = LOG.open("wb")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**clean_environment(), **(environment or {})},
    )
    try:
        while process.poll() is None:
            if live:
                print(f"\r{what} ... {time.monotonic() - start:.0f} s", end="", file=sys.stderr, flush=True)
            time.sleep(0.2)
    finally:
        process.kill()
        log.close()
    clear_line = "\r\033[K" if live else ""
    print(f"{clear_line}{what}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    if process.returncode:
        last_lines = LOG.read_text(errors="replace").splitlines()[-15:]
        print("\n".join(last_lines), file=sys.stderr)
        raise BootstrapError(
            f"{what} failed for the reason above; the whole output is in .venv/{LOG.name}. "
            "Run the same command again to resume."
        )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}


if __name__ == "__main__":
    sys.exit(main())
