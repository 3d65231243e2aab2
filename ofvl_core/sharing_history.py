"""How the layers came to be shared or specific over training: in numbers and as a picture.

A history is a list of [iteration, score of each scored layer from input to output], as a checkpoint's
training record holds it.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from ofvl_core.network.sharing import THRESHOLD

SCENES_IN_LEGEND = 12

Array = NDArray[Any]


class LayerHistory(NamedTuple):
    """How often a layer changed between shared and specific, and the first recorded iteration from which it
    kept its last state.
    """

    flips: int
    since: int


def layer_histories(history: Sequence[Sequence[float]]) -> list[LayerHistory]:
    """The history of each layer; empty where nothing is recorded."""
    if not history:
        return []
    iterations, scores = _columns(history)
    histories = []
    for row in scores < THRESHOLD:
        changes = np.flatnonzero(row[1:] != row[:-1]) + 1
        histories.append(LayerHistory(len(changes), int(iterations[changes[-1] if len(changes) else 0])))
    return histories


def readable_name(layer: str) -> str:
    """A scored layer's name for people: "backbone.blocks.0.layers.1.conv" is "block 1 conv 2"."""
    words = layer.removeprefix("backbone.")
    words = re.sub(r"blocks\.(\d+)\.", lambda block: f"block {int(block[1]) + 1} ", words)
    words = re.sub(r"layers\.(\d+)\.(\w+)", lambda part: f"{part[2]} {int(part[1]) + 1}", words)
    return words.replace(".", " ")


def plot_sharing(
    names: Sequence[str],
    sizes: Sequence[int],
    history: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    scenes: Sequence[str],
) -> Figure:
    """Draw the scores of all layers over training, and below them what they share and the scenes' losses.

    `names` and `sizes` (parameters of one copy) of the scored layers are in the order of `history`, which
    is not empty; `losses` are rows of [iteration, loss of each of `scenes`]. Specific layers are hatched, so
    that the state shows without colour too.
    """
    iterations, scores = _columns(history)
    height = 0.17 * len(names)
    figure = Figure(figsize=(9, height + 4), layout="constrained")
    layers, course = figure.subplots(2, sharex=True, gridspec_kw={"height_ratios": [height + 1, 2.6]})
    _draw_layers(layers, [readable_name(name) for name in names], sizes, iterations, scores)
    _draw_course(course, sizes, iterations, scores < THRESHOLD, losses, scenes)
    course.set_xlim(_edges(iterations)[[0, -1]])
    return figure


def _columns(history: Sequence[Sequence[float]]) -> tuple[Array, Array]:
    """Iterations (T,) and scores (layers, T)."""
    iterations, *scores = np.array(history, dtype=float).T
    return iterations, np.array(scores)


def _edges(iterations: Array) -> Array:
    """Borders (T + 1,) between recorded iterations, each halfway to the next."""
    if len(iterations) == 1:
        return iterations[0] + np.array([-0.5, 0.5])
    return np.concatenate([iterations[:1], (iterations[1:] + iterations[:-1]) / 2, iterations[-1:]])


def _draw_layers(
    axes: Axes, names: Sequence[str], sizes: Sequence[int], iterations: Array, scores: Array
) -> None:
    edges = _edges(iterations)
    reach = max(0.5, float(np.abs(scores - THRESHOLD).max()))
    mesh = axes.pcolormesh(
        edges,
        np.arange(len(names) + 1) - 0.5,
        scores,
        norm=CenteredNorm(THRESHOLD, reach),
        cmap="RdYlBu_r",
        rasterized=True,
    )
    for row, specific in enumerate(scores >= THRESHOLD):
        starts, ends = np.flatnonzero(np.diff(specific, prepend=False, append=False)).reshape(-1, 2).T
        axes.broken_barh(
            list(zip(edges[starts], edges[ends] - edges[starts], strict=True)),
            (row - 0.5, 1),
            facecolor="none",
            edgecolor="black",
            hatch="////",
            linewidth=0.6,
        )
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(left=False)
    weights = axes.secondary_yaxis("right")
    weights.set_yticks(range(len(names)), [f"{size:,}" for size in sizes], fontsize=7)
    weights.tick_params(right=False)
    weights.set_ylabel("parameters", fontsize=8)
    bar = axes.figure.colorbar(mesh, ax=axes, location="top", aspect=50, fraction=0.02)
    bar.set_label(f"score: shared below {THRESHOLD:g}, specific (hatched) from {THRESHOLD:g} on")


def _draw_course(
    axes: Axes,
    sizes: Sequence[int],
    iterations: Array,
    shared: Array,
    losses: Sequence[Sequence[float]],
    scenes: Sequence[str],
) -> None:
    share = np.array(sizes, dtype=float) @ shared / sum(sizes)
    handles: list[Artist] = [
        axes.stairs(share, _edges(iterations), fill=True, color="0.85", label="parameters shared")
    ]
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("parameters shared (grey)")
    axes.set_xlabel("iteration")
    if not losses:
        return
    right = axes.twinx()
    right.set_ylabel("loss (lines)")
    at, values = _columns(losses)
    styles = ("-", "--", "-.", ":")
    for number, (scene, loss) in enumerate(zip(scenes, values, strict=True)):
        handles += right.plot(at, loss, styles[number % len(styles)], linewidth=1, label=scene)
    if len(scenes) <= SCENES_IN_LEGEND:
        axes.legend(handles=handles, fontsize=7, ncol=6, loc="upper center", bbox_to_anchor=(0.5, -0.2))
