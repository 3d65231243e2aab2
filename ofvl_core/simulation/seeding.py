"""One random stream a purpose, so that no result depends on the order in which others are made."""

import numpy as np

# What a stream is for; the numbers are part of what a seed means.
LAYOUT, PAINT, LIGHT, MOTION, ODOMETRY, CAMERA, LOOSE, LIDAR, LATENCY, CALIBRATION = range(10)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random generator of a key such as (scene, purpose, item) under a seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
