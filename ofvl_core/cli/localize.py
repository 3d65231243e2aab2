"""`ofvl localize`: poses of single images, no ground truth needed."""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ofvl_core.camera import Camera
from ofvl_core.cli.console import DeviceOption, EngineOption
from ofvl_core.datasets.images import read_color
from ofvl_core.datasets.posed import read_intrinsics
from ofvl_core.errors import ConfigError
from ofvl_core.geometry import quaternion_xyzw
from ofvl_core.localizer import Localizer
from ofvl_core.trajectory import write_tum


def localize(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of `ofvl train`, or file of `ofvl deploy`.")],
    images: Annotated[list[Path], typer.Argument(help="Colour images, PNG or JPEG.")],
    scene: Annotated[str, typer.Option(help="Scene the images were taken in.")],
    intrinsics: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="3x3 matrix in pixels; default: the scene's training camera."),
    ] = None,
    tum: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the poses there, stamped with the image's place."),
    ] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Print one JSON line an image: pose of the optical frame in the scene's frame, and its covariance.

    The covariance is of x, y, z, metres, and rotations about the scene's axes, radians, as in ROS.
    """
    localizer = Localizer(checkpoint, device, engine=engine)
    trained = localizer.manifest.scene(scene).camera
    matrix = None if intrinsics is None else read_intrinsics(intrinsics)
    found = []
    for number, path in enumerate(images):
        image = read_color(path)
        height, width = image.shape[:2]
        if matrix is not None:
            camera = Camera(width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        elif (width, height) == (trained.width, trained.height):
            camera = trained
        else:
            raise ConfigError(
                f"{path} is {width}x{height} but scene '{scene}' is {trained.width}x{trained.height}; "
                "give the camera's --intrinsics"
            )
        result = localizer.localize(image, camera, scene, search="always")
        line = {"image": str(path), "scene": scene, "found": result.world_from_camera is not None}
        if result.world_from_camera is not None and result.covariance is not None:
            found.append((float(number), result.world_from_camera))
            deviations = np.sqrt(result.covariance.diagonal())
            line["position"] = result.world_from_camera[:3, 3].tolist()
            line["quaternion_xyzw"] = quaternion_xyzw(result.world_from_camera).tolist()
            line["position_std_m"] = deviations[:3].tolist()
            line["rotation_std_deg"] = np.degrees(deviations[3:]).tolist()
            line["covariance"] = result.covariance.tolist()
        line |= {
            "inliers": result.inlier_count,
            "cells": len(result.cells.inliers),
            "landmarks": 0 if result.landmarks is None else int(result.landmarks.inliers.sum()),
            "reason": result.reason,
        }
        sys.stdout.write(json.dumps(line) + "\n")
    if tum is not None:
        write_tum(tum, found)
