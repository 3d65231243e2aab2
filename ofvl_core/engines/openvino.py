"""OpenVINO on the CPU: a scene's network compiled for one shape of images.

It is converted in memory from the checkpoint's own weights, which takes seconds: there is one model on disk
and nothing to keep in step with it.
"""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from ofvl_core.engines.cpu import Runner
from ofvl_core.engines.int8 import Quantisation, quantise
from ofvl_core.engines.scene_network import SceneNetwork
from ofvl_core.network import OFVLMS

KEPT_COMPILED = 8
"""Compiled networks that are kept: compiling takes seconds, and each holds all its weights."""


def is_installed() -> bool:
    """Whether there is an OpenVINO."""
    return importlib.util.find_spec("openvino") is not None


def openvino_runner(
    model: OFVLMS,
    scene: str,
    shape: tuple[int, ...],
    precision: str = "f32",
    quantisation: Quantisation | None = None,
) -> Runner:
    """OpenVINO for input of a `shape` (K, H, W, 3), in f32 or bf16; convolutions rounded if so told."""
    openvino = _openvino()
    network = SceneNetwork(model, scene)
    if quantisation is not None:
        quantise(network, quantisation.ranges)
    example = torch.zeros(shape, dtype=torch.uint8)
    with torch.no_grad():
        graph = openvino.convert_model(
            network, example_input=example, input=[(list(example.shape), openvino.Type.u8)]
        )
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    with ThreadPoolExecutor(1) as thread:  # OpenVINO leaves a signal stack there that outlives its memory
        compiled = thread.submit(openvino.Core().compile_model, graph, "CPU", settings).result()
    request = compiled.create_infer_request()

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = request.infer([images], share_inputs=True, share_outputs=True)
        return found[0], found[1]

    return run


def _openvino() -> ModuleType:
    """The package without its telemetry: else importing it reports the use to a server, unasked."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
