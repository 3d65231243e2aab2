"""A new scene in minutes.

Each recorded scene in turn is added (`ofvl add-scene`) to a model that has never seen it: one of the other
scenes, trained with the settings of a joint model of all, or the package's pretrained model, which knows
simulated rooms alone. Goal: within 20 % of the median error of the joint model, in at most 15 minutes on two
CPU cores (5 minutes on a data-centre GPU for OFVL-MS34), and at most 4 MB a scene on disk.

The minutes are those of the new scene's training alone; the base's come before, once for all scenes that are
added to it. The ratio is of the two medians on the same frames, which are resampled in pairs. The megabytes
are of what is the scene's own in the file of `ofvl deploy --half`.

Keyframes refine the poses of both. Of the results, each scene learned on one core alone, which is less than
two do in that time, and hololens_office for 9 minutes; the joint model learned on two, longer than that of
the accuracy table. What is added was trained before there were keyframes, and has them from `ofvl keyframes`,
120 a scene; now there are up to 200.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from harness import ROOT, Array, Table, bootstrap, is_finished, recordings, require_end, write

from ofvl_core.checkpoint import load_keyframes, load_manifest, load_model, save_deployment
from ofvl_core.datasets import SceneData, find_scenes, load_scene
from ofvl_core.deployment import read_tensors
from ofvl_core.device import choose_device
from ofvl_core.evaluation import evaluate_scene
from ofvl_core.localizer import Localizer
from ofvl_core.network.sharing import scene_key
from ofvl_core.pretrained import pretrained as pretrained_file
from ofvl_core.training.add_scene import add_scene
from ofvl_core.training.config import TrainConfig, make_config
from ofvl_core.training.loop import Surroundings
from ofvl_core.training.run import train

OUT = ROOT / "out" / "new_scene"
RATIO_GOAL, MEGABYTES_GOAL = 1.2, 4.0
ITERATIONS = 100_000
"""More than there is time for: minutes end a training."""


@dataclass(frozen=True)
class Addition:
    """A scene that was added: `errors` (frames, 4), metres and degrees of the added scene, then the same of
    the joint model; how long both learned, and the scene's size."""

    scene: str
    errors: Array
    minutes: float
    joint_minutes: float
    megabytes: float

    @property
    def ratio(self) -> tuple[float, float, float]:
        """The added scene's median position error over the joint model's, and the ends of its interval."""
        return _ratio_of_medians(self.errors), *bootstrap(self.errors, _ratio_of_medians)

    def row(self) -> list[str | float | int | None]:
        """Of the table."""
        added_m, added_deg, joint_m, joint_deg = np.median(self.errors, axis=0)
        ratio, low, high = self.ratio
        return [
            self.scene,
            len(self.errors),
            self.minutes,
            f"{100 * added_m:.3g} cm, {added_deg:.3g} deg",
            self.joint_minutes,
            f"{100 * joint_m:.3g} cm, {joint_deg:.3g} deg",
            f"{ratio:.3g} [{low:.3g}, {high:.3g}]",
            "yes" if ratio <= RATIO_GOAL else f"no, by {ratio - RATIO_GOAL:.2g}",
            self.megabytes,
            "yes" if self.megabytes <= MEGABYTES_GOAL else "no",
        ]


COLUMNS = [
    "scene", "frames", "minutes", "added", "joint minutes", "joint", "ratio", "within 1.2", "MB", "within 4",
]  # fmt: skip


def trained_without(
    scene: SceneData, scenes: list[SceneData], config: TrainConfig, around: Surroundings
) -> Path:
    """A model of the other scenes; one that is there already is taken."""
    out = OUT / f"without_{scene.name}"
    if not is_finished(out):
        others = [other for other in scenes if other is not scene]
        require_end(train(others, config, out, around, resume=out.exists()))
    return out


def scene_megabytes(model: Path, scene: str) -> float:
    """What is the scene's own in the model's deployment file of half precision, its keyframes included."""
    manifest = load_manifest(model)
    albums = load_keyframes(model, manifest)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_deployment(file, manifest, load_model(model, manifest, torch.device("cpu")), half=True)
        tensors = read_tensors(file)
    own = sum(tensor.nbytes for name, tensor in tensors.items() if scene_key(scene) in name.split("."))
    return (own + (albums[scene].size if scene in albums else 0)) / 1e6


def main(
    joint: Annotated[Path, typer.Option(help="Model of all scenes; its settings are everybody's.")],
    minutes: Annotated[float, typer.Option(help="For each new scene.")] = 15.0,
    base_minutes: Annotated[float, typer.Option(help="For each model of the others.")] = 5.0,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Add to the package's pretrained model instead.")
    ] = False,
    split: str = "test",
) -> None:
    """Add each recorded scene, compare with JOINT; results go to new_scene.json.

    With --pretrained they go to new_scene_pretrained.json. What was trained before in out/new_scene is taken
    as it is.
    """
    manifest = load_manifest(joint)
    known = {record.name for record in manifest.scenes}
    scenes = [load_scene(path) for path in find_scenes([recordings("scenes")])]
    if unknown := [scene.name for scene in scenes if scene.name not in known]:
        raise SystemExit(f"{joint} lacks {', '.join(unknown)}; give a joint model of all recorded scenes")
    settings = manifest.trainings[0].config.model_dump() | {"iterations": ITERATIONS}
    of_base, of_new = (make_config(settings, {"max_minutes": most}) for most in (base_minutes, minutes))
    around = Surroundings(choose_device("auto"), cache=OUT / "frames")
    localizer = Localizer(joint)
    joint_minutes = sum(training.seconds for training in manifest.trainings) / 60
    additions = []
    for scene in scenes:
        base = pretrained_file() if pretrained else trained_without(scene, scenes, of_base, around)
        out = OUT / f"{'pretrained' if pretrained else 'added'}_{scene.name}"
        if not is_finished(out):
            require_end(add_scene(base, scene, of_new, out, around, alone=pretrained, resume=out.exists()))
        errors = [evaluate_scene(asked, scene, split).errors for asked in (Localizer(out), localizer)]
        taken = load_manifest(out).training.seconds / 60
        size = scene_megabytes(out, scene.name)
        additions.append(Addition(scene.name, np.hstack(errors), taken, joint_minutes, size))
    start = "the pretrained model" if pretrained else "a model of the other two"
    write(
        "new_scene_pretrained" if pretrained else "new_scene",
        " ".join(["benchmarks/new_scene.py", *sys.argv[1:]]),
        [Table(f"Each scene added to {start}", COLUMNS, [addition.row() for addition in additions])],
        {
            addition.scene: {
                "ratio": addition.ratio,
                "medians": np.median(addition.errors, axis=0).tolist(),
                "minutes": addition.minutes,
                "megabytes": addition.megabytes,
            }
            for addition in additions
        },
    )


def _ratio_of_medians(errors: Array) -> float:
    added, joint = np.median(errors[:, 0]), np.median(errors[:, 2])
    if np.isinf(joint):
        return np.nan
    return float(added / joint)


if __name__ == "__main__":
    typer.run(main)
