"""How good a depth image is, in the numbers the field quotes.

The protocol of Eigen et al. (NeurIPS 2014) as monodepth2 (Godard et al., ICCV 2019) carries it out: the
predicted disparity is resized to the true image, each prediction is scaled to the truth's median, since one
camera does not know how large the world is, both have the same limits, and a number is the mean over images.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import ConfigError, DataError

NEAREST = 1e-3
"""Metres below which no depth is compared."""

GARG_ROWS = (0.40810811, 0.99189189)
GARG_COLUMNS = (0.03594771, 0.96405229)
"""Shares of height and width between which KITTI's LiDAR reaches (Garg et al., ECCV 2016)."""

DELTA = 1.25


@dataclass(frozen=True)
class DepthProtocol:
    """Which pixels count: those with a true depth below `farthest` metres, of the Garg crop or everywhere."""

    farthest: float
    garg_crop: bool


KITTI = DepthProtocol(farthest=80.0, garg_crop=True)
INDOORS = DepthProtocol(farthest=10.0, garg_crop=False)
PROTOCOLS = {"indoors": INDOORS, "kitti": KITTI}


@dataclass(frozen=True)
class DepthErrors:
    """Errors of one depth image, or their mean over several. `sq_rel` and `rmse` are in metres.

    `delta_N` is the share of pixels whose ratio to the truth is below 1.25 to the power of N, and `scale` the
    truth's median over the prediction's, by which the prediction was multiplied.
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    delta_1: float
    delta_2: float
    delta_3: float
    scale: float


def protocol_named(name: str) -> DepthProtocol:
    """One of `PROTOCOLS`. Raises ConfigError for another name."""
    if name not in PROTOCOLS:
        raise ConfigError(f"no depth protocol is called '{name}'; choose {' or '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def depth_errors(
    predicted: NDArray[np.floating], true: NDArray[np.floating], protocol: DepthProtocol
) -> DepthErrors | None:
    """Errors of a `predicted` depth image (h, w) against the `true` one (H, W) of the same view, in metres.

    A true depth of 0 or NaN is unknown. None where no pixel can be compared.
    Raises DataError for a prediction that is not positive and finite everywhere.
    """
    if not (np.isfinite(predicted).all() and (predicted > 0).all()):
        raise DataError(
            "a predicted depth image holds values that are no depth; make it positive and finite everywhere"
        )
    height, width = true.shape
    counted = (true > NEAREST) & (true < protocol.farthest)
    if protocol.garg_crop:
        rows, columns = (
            (np.array(GARG_ROWS) * height).astype(int),
            (np.array(GARG_COLUMNS) * width).astype(int),
        )
        inside = np.zeros_like(counted)
        inside[slice(*rows), slice(*columns)] = True
        counted &= inside
    if not counted.any():
        return None
    disparity = cv2.resize(1.0 / predicted.astype(float), (width, height), interpolation=cv2.INTER_LINEAR)
    truth, depth = true[counted].astype(float), 1.0 / np.asarray(disparity, float)[counted]
    scale = float(np.median(truth) / np.median(depth))
    depth = (scale * depth).clip(NEAREST, protocol.farthest)
    squared, ratio = np.square(truth - depth), np.maximum(truth / depth, depth / truth)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(truth - depth) / truth)),
        sq_rel=float(np.mean(squared / truth)),
        rmse=float(np.sqrt(np.mean(squared))),
        rmse_log=float(np.sqrt(np.mean(np.square(np.log(truth / depth))))),
        delta_1=float(np.mean(ratio < DELTA)),
        delta_2=float(np.mean(ratio < DELTA**2)),
        delta_3=float(np.mean(ratio < DELTA**3)),
        scale=scale,
    )


def mean_errors(errors: Sequence[DepthErrors]) -> DepthErrors:
    """The mean over images, at least one, of every number."""
    return DepthErrors(*np.mean([astuple(each) for each in errors], axis=0).tolist())
