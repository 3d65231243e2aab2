"""What is written for TensorBoard, read back with its own reader."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ofvl_core.errors import ConfigError
from ofvl_core.network import Prediction
from ofvl_core.training.augmentation import Batch
from ofvl_core.training.monitor import UNCERTAINTIES, Monitor, picture

STRIDE, ROWS, COLUMNS = 8, 4, 6


@pytest.fixture
def batch():
    """Coordinates of a large world; the first row of cells is unknown and holds what must not be seen."""
    torch.manual_seed(0)
    coordinates = 500 + 10 * torch.rand(2, 3, ROWS, COLUMNS)
    valid = torch.ones(2, 1, ROWS, COLUMNS, dtype=torch.bool)
    valid[:, :, 0] = False
    coordinates[:, :, 0] = -1e6
    images = 2 * torch.rand(2, 3, ROWS * STRIDE, COLUMNS * STRIDE) - 1
    rays, camera_from_world = torch.zeros(2, 2, ROWS, COLUMNS), torch.eye(4).repeat(2, 1, 1)
    return Batch(images, coordinates, valid, rays, valid, camera_from_world)


@pytest.fixture
def perfect(batch):
    """The truth as predicted by a network that trains, sure on the left half."""
    log_uncertainty = torch.full((2, 1, ROWS, COLUMNS), float(np.log(UNCERTAINTIES[1])))
    log_uncertainty[..., : COLUMNS // 2] = float(np.log(UNCERTAINTIES[0]))
    return Prediction(batch.coordinates.clone().requires_grad_(), log_uncertainty.requires_grad_())


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def curve(folder, name):
    return [(point.step, pytest.approx(point.value)) for point in read(folder).Scalars(name)]


def test_scalars_and_scores_are_read_back(tmp_path):
    monitor = Monitor(tmp_path / "events")
    for iteration in (0, 10, 20):
        monitor.scalars(iteration, {"loss/chess": 2.0 / (1 + iteration), "rate": 1e-3})
        monitor.scores(iteration, {"stem": 0.25 + iteration})
    monitor.close()
    assert curve(tmp_path / "events", "loss/chess") == [(0, 2.0), (10, 2.0 / 11), (20, 2.0 / 21)]
    assert curve(tmp_path / "events", "rate") == [(0, 1e-3), (10, 1e-3), (20, 1e-3)]
    assert curve(tmp_path / "events", "score/stem") == [(0, 0.25), (10, 10.25), (20, 20.25)]


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path, batch, perfect):
    first = Monitor(tmp_path)
    for iteration in range(5):
        first.scalars(iteration, {"loss": 1.0})
        first.prediction(iteration, "chess", batch, perfect)
    first.close()
    resumed = Monitor(tmp_path, done=2)
    resumed.scalars(3, {"loss": 2.0})
    resumed.close()
    assert curve(tmp_path, "loss") == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]
    assert [image.step for image in read(tmp_path).Images("prediction/chess")] == [0, 1, 2]


def test_pictures_are_read_back(tmp_path, batch, perfect):
    monitor = Monitor(tmp_path)
    monitor.prediction(7, "chess", batch, perfect)
    monitor.prediction(7, "fire", batch, perfect)
    monitor.close()
    events = read(tmp_path)
    assert events.Tags()["images"] == ["prediction/chess", "prediction/fire"]
    [image] = events.Images("prediction/fire")
    assert (image.step, image.width, image.height) == (7, 2 * COLUMNS * STRIDE, 2 * ROWS * STRIDE)
    stored = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert (cv2.cvtColor(stored, cv2.COLOR_BGR2RGB) == picture(batch, perfect)).all()


def test_a_picture_shows_image_truth_prediction_and_uncertainty(batch, perfect):
    drawn = picture(batch, perfect)
    height, width = ROWS * STRIDE, COLUMNS * STRIDE
    image = (batch.images[0].movedim(0, -1) + 1) * 127.5
    assert np.abs(drawn[:height, :width] - image.numpy()).max() <= 0.51
    true, predicted, uncertainty = drawn[:height, width:], drawn[height:, :width], drawn[height:, width:]
    assert (true[:STRIDE] == 0).all()
    assert (true[STRIDE:] == predicted[STRIDE:]).all()
    assert (true[STRIDE:].min(axis=(0, 1)) == 0).all()
    assert (true[STRIDE:].max(axis=(0, 1)) == 255).all()
    x = batch.coordinates[0, 0]
    row, column = divmod(int(torch.where(batch.valid[0, 0], x, -torch.inf).argmax()), COLUMNS)
    assert (true[row * STRIDE : (row + 1) * STRIDE, column * STRIDE : (column + 1) * STRIDE, 0] == 255).all()
    sure, unsure = uncertainty[:, : width // 2], uncertainty[:, width // 2 :]
    assert (sure == sure[0, 0]).all()
    assert (unsure == unsure[0, 0]).all()
    assert unsure[0, 0].sum(dtype=int) > sure[0, 0].sum(dtype=int)


def test_a_picture_without_truth_still_shows_the_prediction(batch, perfect):
    nothing = batch._replace(valid=torch.zeros_like(batch.valid))
    drawn = picture(nothing, perfect)
    height, width = ROWS * STRIDE, COLUMNS * STRIDE
    assert (drawn[:height, width:] == 0).all()
    assert drawn[height:, :width].max() == 255


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.events: cannot be written \(Not a directory\)"):
        Monitor(tmp_path / "file" / "events")


def test_a_missing_tensorboard_is_one_sentence(tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.modules["tensorboard"] = None  # as where the package is not installed
from ofvl_core.errors import ConfigError
from ofvl_core.training.monitor import Monitor
try:
    Monitor(Path({str(tmp_path)!r}) / "events")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tensorboard package is missing" in done.stdout
    assert not (tmp_path / "events").exists()
