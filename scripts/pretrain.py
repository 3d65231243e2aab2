"""Makes the package's pretrained model: `.venv/bin/python scripts/pretrain.py [--minutes 60]`.

One ofvl_ms_lite learns simulated rooms jointly, none of them that of a demo or a benchmark: `ofvl simulate`
makes them of nothing but seeds, so no licence but this package's is on the model. Of its scenes the first few
stay, since a new one takes its start from one of them; the whole becomes ofvl_core/pretrained/
ofvl_ms_lite.safetensors. What was simulated before is not made again.
"""

import shutil
from typing import Annotated

import typer
from through_ros import ROOT, console, ofvl

from ofvl_core.pretrained import FILE

OUT = ROOT / "out" / "pretrain"
ROOMS, FRAMES = 12, 120
SEED = 700
KEPT = 4
"""Scenes that stay: each is a start for others, and takes up to half a megabyte."""
LOOKS = 5
"""At an image, of every scene that starts here: what it costs in time, it brings in accuracy."""


def main(minutes: Annotated[float, typer.Option(help="Of training.")] = 60.0, rooms: int = ROOMS) -> None:
    """Simulate, train, and write the model into the package."""
    data, model, kept = OUT / f"rooms_{rooms}", OUT / "model", OUT / "kept"
    if not data.is_dir():
        ofvl("simulate", data, "--scenes", rooms, "--frames", FRAMES, "--seed", SEED)
        for room in sorted(data.iterdir()):  # a user's scene may be called room_1
            room.rename(room.with_name(f"pretrained_{room.name}"))
    for folder in (model, kept):
        shutil.rmtree(folder, ignore_errors=True)
    ofvl(
        "train", data, "--model", FILE.stem, "--out", model, "--iterations", 100_000,
        "--max-minutes", minutes, "--set", "holdout=0", "--set", f"network.looks={LOOKS}",
        "--cache", OUT / "frames",
    )  # fmt: skip
    names = [f"pretrained_room_{number}" for number in range(1, rooms + 1)]
    if names[KEPT:]:
        ofvl("remove-scene", model, *names[KEPT:], "--out", kept)
    ofvl("deploy", kept if names[KEPT:] else model, "--half", "--out", FILE)
    console.print(f"{FILE}: {FILE.stat().st_size / 1e6:.2f} MB", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
