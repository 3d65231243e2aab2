"""A scene's network as an ONNX file, for whoever runs it without this package.

The file takes the resized image as a camera gives it and answers in metres; its metadata say all else that
a pose needs. It is checked against PyTorch before it is there.
"""

import importlib.util
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofvl_core.camera import Camera, cell_pixels
from ofvl_core.checkpoint import SceneRecord
from ofvl_core.engines.cpu import torch_runner
from ofvl_core.engines.scene_network import SceneNetwork
from ofvl_core.errors import ConfigError
from ofvl_core.files import atomic_path
from ofvl_core.network import OFVLMS
from ofvl_core.resize import input_camera

OPSET = 18
"""Version of ONNX's operators in the files, old enough for TensorRT, OpenVINO and ONNX Runtime in use."""

ENTRY = "ofvl"
"""The key of the file's metadata under which all is that `description` says, as JSON."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")

TOLERANCE = 1e-3
"""Metres, of coordinates; and the part of itself by which an uncertainty may differ."""


def export_scene(path: Path, model: OFVLMS, record: SceneRecord) -> None:
    """Write the network of a scene of `model`, in evaluation mode on the CPU, to `path`, atomically.

    Raises ConfigError where a package of `NEEDED` is not installed, and when the file's answers are not
    PyTorch's.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"exporting needs {package}: pip install {' '.join(NEEDED)}")
    camera = input_camera(record.camera, record.input_focal, model.architecture.stride)
    with atomic_path(path) as temporary:
        _write(temporary, model, record, camera)
        _check(temporary, model, record.name, camera)


def description(record: SceneRecord, camera: Camera, stride: int) -> dict[str, Any]:
    """What the file's metadata say: what goes in and comes out, and the geometry of both.

    `camera` is that of the network's input.
    """
    return {
        "scene": record.name,
        "input": "image: uint8 (1, height, width, 3), RGB, of the camera below: the original image resized, "
        "averaging where it shrinks, distorted as it is",
        "output": "coordinates: float32 (1, 3, rows, columns), metres in the scene's frame; uncertainty: "
        "float32 (1, 1, rows, columns), metres, standard deviation along each axis",
        "camera": asdict(camera),
        "original_size": [record.camera.width, record.camera.height],
        "cells": {
            "stride": stride,
            "first_pixel": cell_pixels(camera.width, camera.height, stride)[0].tolist(),
            "meaning": "row i, column j is seen at first_pixel + stride (j, i) of this camera, (u, v), whose "
            "pixels have integer centres as in OpenCV",
        },
        "pose": "PnP with RANSAC of cells' coordinates and pixels, the camera's matrix and distortion",
    }


def _write(path: Path, model: OFVLMS, record: SceneRecord, camera: Camera) -> None:
    import onnx

    image = torch.zeros((1, camera.height, camera.width, 3), dtype=torch.uint8)
    network = SceneNetwork(model, record.name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (image,),
            input_names=["image"],
            output_names=["coordinates", "uncertainty"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content = program.model_proto
    entry = content.metadata_props.add()
    entry.key = ENTRY
    entry.value = json.dumps(description(record, camera, model.architecture.stride))
    onnx.save(content, path)


def _check(path: Path, model: OFVLMS, scene: str, camera: Camera) -> None:
    """Raises ConfigError when ONNX Runtime does not answer as PyTorch does, for noise, bright and dark."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    reference = torch_runner(model, scene)
    random = np.random.default_rng(0)
    for brightest in (256, 64):
        image = random.integers(0, brightest, (1, camera.height, camera.width, 3), np.uint8)
        expected, found = reference(image), session.run(["coordinates", "uncertainty"], {"image": image})
        coordinates = np.abs(found[0] - expected[0]).max()
        uncertainty = np.abs(found[1] / expected[1] - 1).max()
        if not max(coordinates, uncertainty) <= TOLERANCE:
            raise ConfigError(
                f"ONNX Runtime answers {1000 * coordinates:.1f} mm from PyTorch in {scene}; "
                "use the versions of onnx, onnxscript and onnxruntime that requirements.txt names"
            )
