"""Are covariances honest? The shares of `make demo`'s test drives whose errors they cover, room by room.

The rooms' inflation was found in training, on frames held out of the drives that it learned from. Run
`make demo` first, then `.venv/bin/python scripts/covariance.py [CHECKPOINT DATA...]`.
"""

import sys
from pathlib import Path

from ofvl_core.checkpoint import load_manifest
from ofvl_core.datasets import find_scenes, load_scene
from ofvl_core.evaluation import evaluate_scene
from ofvl_core.localizer import Localizer

DEMO = Path(__file__).parents[1] / "out" / "demo"
BOUNDS = (0.85, 0.99)
"""Of the share of poses with a normalised error squared of at most 12.59, where 0.95 is exact."""


def main() -> None:
    checkpoint, *data = map(Path, sys.argv[1:] or (DEMO / "model", DEMO / "scenes"))
    scenes = [load_scene(path) for path in find_scenes(data)]
    known = load_manifest(checkpoint)
    localizer = Localizer(checkpoint)
    missed = []
    for scene in scenes:
        calibration = known.calibration(scene.name)
        summary = evaluate_scene(localizer, scene, "test").summary()
        share = summary["nees_within_95"]
        print(
            f"{scene.name}: covariances times {calibration.inflation:.2f} (of {calibration.poses} held-out "
            f"poses) cover {share:.1%} of {summary['poses']} poses"
        )
        if not BOUNDS[0] <= share <= BOUNDS[1]:
            missed.append(scene.name)
    if missed:
        raise SystemExit(f"outside {BOUNDS[0]:.0%} to {BOUNDS[1]:.0%}: {', '.join(missed)}")


if __name__ == "__main__":
    main()
