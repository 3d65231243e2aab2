"""Which device computes."""

import torch

from ofvl_core.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """'cpu', 'cuda', or with 'auto' CUDA where there is one. Raises ConfigError."""
    if name not in DEVICES:
        raise ConfigError(f"unknown device '{name}'; choose one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "CUDA was asked for but torch sees none; use device 'auto' or install a CUDA build of torch"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
