"""Training watched in TensorBoard: curves, and what the network sees and says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ofvl_core.errors import ConfigError
from ofvl_core.network import Prediction
from ofvl_core.training.augmentation import Batch

UNCERTAINTIES = (0.01, 1.0)
"""Metres shown darkest and brightest, on a logarithmic scale that all pictures share."""


class Monitor:
    """Event files in `folder`, to be seen with `tensorboard --logdir`.

    A run resumed in the same folder takes the place of what its forerunner wrote after iteration `done`.
    """

    def __init__(self, folder: Path, done: int = 0):
        """Raises ConfigError when the tensorboard package is missing or `folder` cannot be written."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "the tensorboard package is missing; install it (pip install tensorboard) "
                "or train without the monitor"
            ) from None
        self.folder = folder
        with self._writing():
            self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def close(self) -> None:
        """Write what is still held back."""
        with self._writing():
            self._writer.close()

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Points of the curves named by the keys; a/b is curve b of group a."""
        with self._writing():
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)

    def scores(self, iteration: int, scores: Mapping[str, float]) -> None:
        """Scores of the layers (Eq. 1), a curve each."""
        self.scalars(iteration, {f"score/{layer}": score for layer, score in scores.items()})

    def prediction(self, iteration: int, scene: str, batch: Batch, prediction: Prediction) -> None:
        """A picture of the first image of a scene's batch, as `picture` draws it."""
        with self._writing():
            self._writer.add_image(
                f"prediction/{scene}", picture(batch, prediction), iteration, dataformats="HWC"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: cannot be written ({error.strerror}); free space there, choose another "
                "folder or train without the monitor"
            ) from None


def picture(batch: Batch, prediction: Prediction) -> NDArray[np.uint8]:
    """The batch's first image above its predicted coordinates, left; true ones above uncertainty, right.

    RGB (2 H, 2 W, 3). Coordinates are coloured x red, y green, z blue from their least to their greatest true
    value, black where no truth is known; uncertainty from dark to bright over `UNCERTAINTIES`.
    """
    image = _first(batch.images) * 127.5 + 127.5
    height, width = image.shape[:2]
    true, known = _first(batch.coordinates), _first(batch.valid)[..., 0] > 0
    predicted, log_uncertainty = _first(prediction.coordinates), _first(prediction.log_uncertainty)
    scale = true[known] if known.any() else predicted.reshape(-1, 3)
    least, greatest = scale.min(axis=0), scale.max(axis=0)

    def coloured(coordinates: NDArray) -> NDArray:
        return 255 * (coordinates - least) / np.maximum(greatest - least, 1e-6)

    darkest, brightest = np.log(UNCERTAINTIES)
    level = _to_bytes(255 * (log_uncertainty - darkest) / (brightest - darkest))
    uncertainty = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    cells = (coloured(predicted), np.where(known[..., None], coloured(true), 0), uncertainty)
    below, right, corner = (
        cv2.resize(_to_bytes(cell), (width, height), interpolation=cv2.INTER_NEAREST) for cell in cells
    )
    rows = np.hstack([_to_bytes(image), right]), np.hstack([below, corner])
    return np.asarray(np.vstack(rows), np.uint8)


def _first(batch: Tensor) -> NDArray[np.float64]:
    """The first of a batch (B, C, H, W) as (H, W, C)."""
    return batch[0].detach().movedim(0, -1).double().cpu().numpy()


def _to_bytes(values: NDArray) -> NDArray[np.uint8]:
    return np.rint(values).clip(0, 255).astype(np.uint8)
