"""Files for other programs: what they say is enough to use them, and they answer as PyTorch does."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ofvl_core import export
from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.checkpoint import Manifest, SceneRecord, TrainingRecord, save_checkpoint
from ofvl_core.cli import app
from ofvl_core.errors import ConfigError
from ofvl_core.localizer import Localizer
from ofvl_core.network import OFVLMS, Architecture
from ofvl_core.training.config import TrainConfig

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CAMERA = Camera(128, 96, 120.0, 118.0, 63.0, 48.0, (-0.1, 0.02, 0.0, 0.0))
TINY = Architecture(
    depths=(1, 1, 1, 1), widths=(8, 8, 8, 16), stem_width=8, head_widths=(8,), branch_width=8, input_height=48
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export") / "model"
    model = OFVLMS(TINY, ["hall", "kitchen"])
    records = [
        SceneRecord(name=name, camera=CAMERA, input_focal=59.0, frames=9) for name in ("hall", "kitchen")
    ]
    record = TrainingRecord(scenes=["hall", "kitchen"], config=TrainConfig(network=TINY), finished=True)
    save_checkpoint(folder, Manifest(architecture=TINY, scenes=records, trainings=[record]), model)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """What the command wrote for one scene of two."""
    out = tmp_path_factory.mktemp("exported")
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--out", str(out), "--scene", "hall"])
    assert result.exception is None, result.exception
    assert "hall.onnx" in result.stdout
    return out


def test_one_file_a_scene(exported) -> None:
    assert [path.name for path in exported.iterdir()] == ["hall.onnx"]


def test_the_file_is_of_the_stated_opset(exported) -> None:
    content = onnx.load(exported / "hall.onnx")
    onnx.checker.check_model(content)
    assert [opset.version for opset in content.opset_import if not opset.domain] == [export.OPSET]


def test_a_stranger_gets_what_the_localizer_sees(exported, checkpoint) -> None:
    """By the file and its metadata alone."""
    session = onnxruntime.InferenceSession(str(exported / "hall.onnx"))
    told = json.loads(session.get_modelmeta().custom_metadata_map[export.ENTRY])
    camera = Camera(**told["camera"] | {"distortion": tuple(told["camera"]["distortion"])})
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == (
        "image",
        "tensor(uint8)",
        [1, camera.height, camera.width, 3],
    )
    pixels = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    coordinates, uncertainty = session.run(["coordinates", "uncertainty"], {"image": pixels})

    record = SceneRecord(name="hall", camera=camera, input_focal=camera.fy, frames=1)
    cells = Localizer(checkpoint, "cpu").localize(pixels[0], record.camera, "hall").cells
    assert coordinates.shape[2:] == (len(cells.pixels) // cells.columns, cells.columns)
    assert np.allclose(coordinates[0].reshape(3, -1).T, cells.scene_coordinates, atol=1e-4)
    assert np.allclose(uncertainty.ravel(), cells.uncertainties, rtol=1e-3)
    cell = told["cells"]
    rows, columns = np.indices(coordinates.shape[2:]).reshape(2, -1)
    u, v = (
        cell["stride"] * columns + cell["first_pixel"][0],
        cell["stride"] * rows + cell["first_pixel"][1],
    )
    assert np.array_equal(np.stack([u, v], axis=1), cell_pixels(camera.width, camera.height, cell["stride"]))


def test_a_file_that_answers_otherwise_is_not_left(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--out", str(tmp_path), "--scene", "hall"])
    assert isinstance(result.exception, ConfigError)
    assert "mm from PyTorch in hall" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "NEEDED", ("onnx", "onnx_of_tomorrow"))
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "exporting needs onnx_of_tomorrow: pip install onnx onnx_of_tomorrow"
    assert not (tmp_path / "out").exists()
