"""LIVL (the paper's Sec. 4.8): a RealSense D435 on a wheeled robot, depth aligned to colour.

Its files' layout is not published in full. `DESCRIPTION` is what this project assumes; a dataset.yaml in
the scene's folder takes its place.
"""

from pathlib import Path

from ofvl_core.datasets.described import Description, load_described
from ofvl_core.datasets.layout import Layout, folder_name
from ofvl_core.datasets.scene import SceneData

SCENES = ("K544", "Floor5", "Parking_lot1", "Parking_lot2")

DESCRIPTION = Description.model_validate(
    {
        "camera": {"width": 640, "height": 480, "fx": 615.0, "fy": 615.0, "cx": 320.0, "cy": 240.0},
        "color": "frame-*.color.png",
        "depth": "frame-*.depth.png",
        "stamp_unit": 1 / 30,
        "poses": {"file": "frame-*.pose.txt", "format": "matrix"},
        "sequences": {"train": ("seq-01", "seq-02", "seq-03"), "test": ("seq-04",)},
    }
)


def _sign(root: Path) -> str | None:
    if folder_name(root) in SCENES and (root / DESCRIPTION.sequences.train[0]).is_dir():
        return "it bears the name of a LIVL scene"
    return None


def _load(root: Path, register_depth: bool) -> SceneData:
    return load_described(root, DESCRIPTION)


LAYOUT = Layout("LIVL, as this project assumes it", _sign, _load)
