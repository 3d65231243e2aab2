"""Which device computes."""

import torch
from torch import nn

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


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, its convolutions in the memory layout that is fast there."""
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32: on GPUs and CPUs with instructions for it."""
    if device.type == "cuda":  # older ones compute it too, in float32; torch calls that supported
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, ask, lambda: False)() for ask in asks)


def trains_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a network learns in bfloat16 with that setting: 'float32', 'bfloat16' or what is faster."""
    return precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
