"""What computed a result: code, versions and machine, in one line to stand beside the numbers."""

import functools
import os
import platform
import subprocess
from pathlib import Path

import cv2
import numpy as np
import torch

from ofvl_core import __version__

SOURCE = Path(__file__).parents[1]


def provenance(device: torch.device) -> str:
    """Version and commit of this package, of what it computes with, and the processor of `device`."""
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, "
        f"OpenCV {cv2.__version__}"
    )
    return f"ofvl_ros {__version__} ({_commit()}), {versions}; {_processor(device)}"


@functools.cache
def _commit() -> str:
    """The commit of a source checkout, with a mark where files differ from it.

    Asked once: what is checked out later is not what this process runs.
    """
    if not (SOURCE / ".git").exists():
        return "installed"
    command = ["git", "-C", str(SOURCE), "describe", "--always", "--dirty=, changed", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "commit unknown"
    return f"commit {found.stdout.strip()}"


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
