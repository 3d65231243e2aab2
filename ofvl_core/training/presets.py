"""The paper's training runs (Sec. 4.2) by name, for `ofvl train --preset`."""

from typing import Any

SCENES = {"7scenes": 7, "12scenes": 12, "livl": 4}
"""Scenes of the data sets of Sec. 4; the paper's learning rates are 2e-4 times their number."""

PAPER: dict[str, Any] = {
    "iterations": 200_000,
    "batch_size": 4,
    "weight_decay": 0.05,
    "warmup": 0.0,
    "distance_warmup": 0.0,
    "reprojection": 1.0,
    "penalty_weight": 0.25,
    "sharing_decided": 1.0,
    "statistics_rest": 1.0,
    "gradient_clip": None,
    "holdout": 0.0,
    "keyframes": 0,
    "augmentation": "paper",
}

PRESETS: dict[str, dict[str, Any]] = {
    f"{data}_{network}": {**PAPER, "network": network, "learning_rate": 2e-4 * scenes}
    for data, scenes in SCENES.items()
    for network in ("ofvl_ms18", "ofvl_ms34", "ofvl_ms50")
}
"""Settings that differ from the defaults, by data set and network."""
