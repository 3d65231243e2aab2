"""The paper's training run, for `ofvl collab train --preset`, and ladders of what it compares."""

from typing import Any

PRETRAINING_EPOCHS, COLLABORATION_EPOCHS, FULL_RATE_EPOCHS = 20, 50, 10
"""The second and third are the paper's; the first it does not say, and 20 are monodepth2's."""

KITTI_TRIPLETS = 20_000
"""About as many as sequences 00 to 08 of KITTI odometry have."""

_PRETRAINING, _COLLABORATION = (
    epochs * KITTI_TRIPLETS // batch
    for epochs, batch in ((PRETRAINING_EPOCHS, 12), (COLLABORATION_EPOCHS, 4))
)

PRESETS: dict[str, dict[str, Any]] = {
    "kitti": {
        "network": "collab18",
        "iterations": _PRETRAINING + _COLLABORATION,
        "pretraining_share": round(_PRETRAINING / (_PRETRAINING + _COLLABORATION), 4),
        "learning_rate": 1e-4,
        "step_down": FULL_RATE_EPOCHS / COLLABORATION_EPOCHS,
        "warmup": 0.0,
        "weight_decay": 0.0,
        "gradient_clip": None,
        "warp_at_full_size": True,
        "masked_from": 0.0,
        "pretraining": {
            "batch_size": 12,
            "input_pixels": 640 * 192,
            "weights": {"photometric": 1.0, "smoothness": 0.05, "motion": 0.0},
        },
        "collaboration": {"batch_size": 4, "input_pixels": 1024 * 320, "weights": {"motion": 0.0}},
    },
}
"""Settings that differ from the defaults: the paper's, at its two resolutions."""
