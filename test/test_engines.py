"""What runs the network: every engine answers as the model does, in whatever scene is asked for."""

import ctypes
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from ofvl_core import engines
from ofvl_core.camera import Camera
from ofvl_core.checkpoint import Manifest, SceneRecord, TrainingRecord, save_checkpoint
from ofvl_core.engines import ENGINES, choose_engine, make_engine
from ofvl_core.engines.cpu import CpuEngine, torch_runner
from ofvl_core.engines.int8 import Quantisation, observed_ranges, quantise
from ofvl_core.engines.openvino import is_installed
from ofvl_core.engines.scene_network import SceneNetwork
from ofvl_core.errors import CheckpointError, ConfigError
from ofvl_core.localizer import Localizer
from ofvl_core.network import OFVLMS, Architecture
from ofvl_core.network.sharing import Sharing
from ofvl_core.resize import normalise
from ofvl_core.training.config import TrainConfig

needs_openvino = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed")

CPU = torch.device("cpu")
CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
SCENES = ("hall", "kitchen", "attic")
TINY = Architecture(
    depths=(1, 2, 1, 1), widths=(8, 8, 8, 16), stem_width=8, head_widths=(8,), branch_width=8, input_height=48
)
WITHIN = {
    "torch": 1e-5,
    "torch-bfloat16": 0.03,
    "openvino": 1e-4,
    "openvino-bfloat16": 0.05,
    "openvino-int8": 0.1,
}
"""How far from the model's an engine's coordinates may be, as a part of their spread: bfloat16 has 8 bits,
and so has int8, for values that all share one range."""


def lively(sharing: Sharing = "conv_scored", compact: bool = False) -> OFVLMS:
    """A model in which every normalisation does something, and every second scored layer is specific."""
    torch.manual_seed(0)
    model = OFVLMS(TINY.model_copy(update={"sharing": sharing}), SCENES)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(-1, 1.5)
                norm.bias.normal_()
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
        for number, score in enumerate(model.scores()):
            score.fill_(number % 2)
        for name in SCENES:
            model.set_scene_frame(name, torch.randn(3), torch.tensor(2.0))
    model.eval()
    if compact:
        model.compact()
    return model


@pytest.fixture(scope="module")
def model() -> OFVLMS:
    return lively()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Noise at several contrasts, as a camera's driver hands it out: not to be written to."""
    random = np.random.default_rng(0)
    noise = [random.integers(0, top, (48, 64, 3), np.uint8) for top in (256, 200, 120)]
    for image in noise:
        image.flags.writeable = False
    return noise


def rounding(model: OFVLMS, images: Sequence[np.ndarray], scene: str) -> Quantisation:
    ranges = observed_ranges(SceneNetwork(model, scene), [image.copy() for image in images])
    return Quantisation(ranges=ranges, frames=0, float32=(0.0, 0.0), int8=(0.0, 0.0))


@torch.inference_mode()
def expected(model: OFVLMS, image: np.ndarray, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """What the model itself says: coordinates (N, 3) and uncertainties (N,)."""
    prediction = model(normalise(torch.tensor(image).permute(2, 0, 1)[None]), scene)
    return prediction.coordinates[0].flatten(1).T.numpy(), prediction.log_uncertainty.exp().ravel().numpy()


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("sharing", ["conv_scored", "conv_norm_scored", "all_shared"])
def test_folding_a_normalisation_changes_nothing(sharing: Sharing, compact: bool, images) -> None:
    model = lively(sharing, compact)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for scene in SCENES:
        network = SceneNetwork(model, scene)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        with torch.inference_mode():
            found = network(torch.tensor(images[0])[None])
        points, uncertainties = expected(model, images[0], scene)
        assert np.allclose(found[0][0].flatten(1).T, points, atol=1e-5)
        assert np.allclose(found[1].ravel(), uncertainties, rtol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_openvino if "openvino" in name else ()) for name in ENGINES[1:]]
)
def test_an_engine_answers_as_the_model_does(name: str, model: OFVLMS, images) -> None:
    """Image after image and scene after scene: nothing of the one before is left in it."""
    prepared = {scene: rounding(model, images, scene) for scene in SCENES[:2]}
    engine = make_engine(name, model, CPU, prepared.get)
    for image in images:
        engine.put(image[None])
        for scene in (*SCENES[:2], SCENES[0]):
            points, uncertainties = engine.predict(scene)
            true_points, true_uncertainties = expected(model, image, scene)
            assert points.dtype == uncertainties.dtype == np.float64
            errors = np.abs(points - true_points) / true_points.std()
            assert np.median(errors) < WITHIN[name] / 2
            assert errors.max() < 4 * WITHIN[name]
            assert np.median(np.abs(uncertainties / true_uncertainties - 1)) < 4 * WITHIN[name]


@needs_openvino
def test_int8_is_the_rounding_that_pytorch_describes(model: OFVLMS, images) -> None:
    """OpenVINO computes with the integers that our fake quantisation rounds to."""
    prepared = rounding(model, images, "hall")
    network = SceneNetwork(model, "hall")
    quantise(network, prepared.ranges)
    with torch.inference_mode():
        rounded = network(torch.tensor(images[0])[None])[0][0].flatten(1).T.numpy()
    engine = make_engine("openvino-int8", model, CPU, lambda _: prepared)
    engine.put(images[0][None])
    points, _ = engine.predict("hall")
    exact, _ = expected(model, images[0], "hall")
    assert np.median(np.abs(points - rounded)) < 0.7 * np.median(np.abs(rounded - exact))


@needs_openvino
def test_auto_is_int8_where_a_scene_was_prepared(model: OFVLMS, images) -> None:
    prepared = {"hall": rounding(model, images, "hall")}
    answers = {}
    for name in ("auto", "torch", "openvino-int8"):
        engine = make_engine(name, model, CPU, prepared.get)
        engine.put(images[0][None])
        answers[name, "hall"] = engine.predict("hall")[0]
        if name != "openvino-int8":
            answers[name, "attic"] = engine.predict("attic")[0]
    assert np.array_equal(answers["auto", "hall"], answers["openvino-int8", "hall"])
    assert not np.array_equal(answers["auto", "hall"], answers["torch", "hall"])
    assert np.array_equal(answers["auto", "attic"], answers["torch", "attic"])


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_images_together_are_as_one_by_one(name: str, model: OFVLMS, images) -> None:
    engine = make_engine(name, model, CPU, lambda _: None)
    engine.put(np.stack(images))
    points, uncertainties = engine.predict("hall")
    alone = [expected(model, image, "hall") for image in images]
    assert np.allclose(points, np.concatenate([one for one, _ in alone]), atol=1e-4)
    assert np.allclose(uncertainties, np.concatenate([one for _, one in alone]), rtol=1e-3)


def test_few_networks_are_kept_and_the_rest_made_anew(model: OFVLMS, images) -> None:
    made = []

    def load(scene, shape):
        made.append((scene, shape))
        return torch_runner(model, scene)

    engine = CpuEngine(load, kept=2)
    engine.put(images[0][None])
    first = {scene: engine.predict(scene)[0] for scene in SCENES}
    for scene in (*SCENES[1:], *SCENES[1:]):
        assert np.array_equal(engine.predict(scene)[0], first[scene])
    assert [scene for scene, _ in made] == list(SCENES)
    assert np.array_equal(engine.predict(SCENES[0])[0], first[SCENES[0]])
    assert made[-1] == (SCENES[0], (1, 48, 64, 3))


@needs_openvino
def test_openvino_reports_to_nobody(model: OFVLMS, images) -> None:
    engine = make_engine("openvino", model, CPU, lambda _: None)
    engine.put(images[0][None])
    engine.predict("hall")
    assert sys.modules["openvino_telemetry"] is None
    assert sys.modules["openvino.tools.ovc"].telemetry.__class__.__module__.endswith("telemetry_stub")


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int, int]:
    """Where this thread handles signals, and the size of it."""
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.size


@needs_openvino
def test_openvino_leaves_signals_alone(model: OFVLMS, images) -> None:
    """Else Ctrl-C is a segmentation fault once the memory that it put there has gone."""
    before = signal_stack()
    engine = make_engine("openvino", model, CPU, lambda _: None)
    engine.put(images[0][None])
    engine.predict("hall")
    assert signal_stack() == before


# ------------------------------------------------------------------------------------ what is refused


@pytest.fixture(scope="module")
def checkpoint(model: OFVLMS, images, tmp_path_factory):
    """The model as a folder, 'hall' prepared for int8."""
    folder = tmp_path_factory.mktemp("engines") / "model"
    records = [SceneRecord(name=name, camera=CAMERA, input_focal=60.0, frames=9) for name in SCENES]
    records[0].quantisation = rounding(model, images, "hall")
    record = TrainingRecord(
        scenes=list(SCENES), config=TrainConfig(network=model.architecture), finished=True
    )
    save_checkpoint(
        folder, Manifest(architecture=model.architecture, scenes=records, trainings=[record]), model
    )
    return folder


def test_an_unknown_engine_is_refused(checkpoint) -> None:
    with pytest.raises(ConfigError, match="unknown engine 'tensorrt'; choose one of auto, torch"):
        Localizer(checkpoint, "cpu", engine="tensorrt")


def test_openvino_that_is_not_there_is_refused_and_not_missed(checkpoint, images, monkeypatch) -> None:
    monkeypatch.setattr(engines, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match="needs OpenVINO: pip install openvino, or choose engine torch"):
        Localizer(checkpoint, "cpu", engine="openvino")
    cells = [
        Localizer(checkpoint, "cpu", engine=engine).localize(images[0], CAMERA, "hall").cells
        for engine in ("auto", "torch")
    ]
    assert np.array_equal(cells[0].scene_coordinates, cells[1].scene_coordinates)


@needs_openvino
def test_openvino_is_for_the_cpu(checkpoint) -> None:
    assert choose_engine("openvino", "auto")[1] == CPU
    with pytest.raises(ConfigError, match="openvino computes on the CPU; choose device cpu, or engine torch"):
        Localizer(checkpoint, "cuda", engine="openvino")


@needs_openvino
def test_int8_is_refused_in_a_scene_that_was_not_prepared(checkpoint, images) -> None:
    localizer = Localizer(checkpoint, engine="openvino-int8")
    localizer.localize(images[0], CAMERA, "hall")
    with pytest.raises(ConfigError, match="scene 'kitchen' was not prepared for int8: run ofvl quantise"):
        localizer.localize(images[0], CAMERA, "kitchen")


@needs_openvino
def test_ranges_of_another_network_are_refused(checkpoint, images) -> None:
    localizer = Localizer(checkpoint, "cpu", engine="openvino-int8")
    prepared = localizer.manifest.scene("hall").quantisation
    assert prepared is not None
    localizer.manifest.scene("hall").quantisation = prepared.model_copy(
        update={"ranges": prepared.ranges[1:]}
    )
    with pytest.raises(CheckpointError, match="int8 ranges are not this network's; run ofvl quantise again"):
        localizer.localize(images[0], CAMERA, "hall")
