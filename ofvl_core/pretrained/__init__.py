"""The model that comes with the package, from which a first scene starts.

`scripts/pretrain.py` makes it: `ofvl_ms_lite`, trained on simulated rooms.
"""

from pathlib import Path

from ofvl_core.errors import CheckpointError

PRETRAINED = Path("pretrained")
"""What stands for the model where a checkpoint is to be given."""

FILE = Path(__file__).parent / "ofvl_ms_lite.safetensors"


def is_pretrained(checkpoint: Path) -> bool:
    """Whether the word is meant, rather than a file or folder of that name."""
    return checkpoint == PRETRAINED and not checkpoint.exists()


def pretrained() -> Path:
    """The model's deployment file. Raises CheckpointError when the package was installed without it."""
    if not FILE.is_file():
        raise CheckpointError(
            f"{FILE} is missing, the pretrained model of this package; make it with scripts/pretrain.py, "
            "or give a checkpoint of your own"
        )
    return FILE
