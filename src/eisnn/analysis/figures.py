"""Pictures of training runs: every ``plot_`` function writes one PNG; and our style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eisnn.analysis.activity import HISTOGRAM_EDGES, LayerActivity

__all__ = [
    "finish",
    "plot_comparison",
    "plot_currents",
    "plot_curves",
    "save",
    "spread",
    "viridis",
]

COLOURS = {"ei": "#0072b2", "bn": "#e69f00", "none": "#777777"}
LABELS = {"ei": "E-I circuit", "bn": "BatchNorm", "none": "no normalisation"}
History = Sequence[Mapping[str, float]]


def plot_curves(path: Path, history: History, title: str) -> None:
    """Loss, accuracy and firing rates over the epochs of one run.

    Args:
        path: of the PNG.
        history: a row for each epoch, with ``epoch``, ``train_loss``, ``train_accuracy``, perhaps
            ``val_loss`` and ``val_accuracy``, and ``rate/LAYER`` for each layer.
        title: above the picture.
    """
    figure, (loss, accuracy, rates) = _row(3)
    epochs = [row["epoch"] for row in history]
    for part, style in (("train", "--"), ("val", "-")):
        name = {"train": "training", "val": "validation"}[part]
        if f"{part}_loss" in history[0]:
            values = [row[f"{part}_loss"] for row in history]
            loss.plot(epochs, values, style, color=COLOURS["ei"], marker=".", label=name)
            values = [100 * row[f"{part}_accuracy"] for row in history]
            accuracy.plot(epochs, values, style, color=COLOURS["ei"], marker=".", label=name)
    layers = [key for key in history[0] if key.startswith("rate/")]
    for i, key in enumerate(layers):
        shade = 0.15 + 0.7 * i / max(1, len(layers) - 1)
        rates.plot(
            epochs,
            [row[key] for row in history],
            color=viridis(shade),
            marker=".",
            label=key.removeprefix("rate/"),
        )
    finish(loss, "loss", "cross-entropy")
    finish(accuracy, "accuracy", "%")
    finish(rates, "firing rate of each layer", "spikes per neuron and step")
    rates.set_ylim(bottom=0)
    loss.legend(frameon=False)
    if len(layers) <= 10:
        rates.legend(frameon=False, fontsize=7, ncols=2)
    save(figure, path, title)


def plot_currents(
    path: Path, before: Sequence[LayerActivity], after: Sequence[LayerActivity], title: str
) -> None:
    """Distributions of the integrated current of each layer before and after training.

    Args:
        path: of the PNG.
        before: the layers of the initialised network.
        after: the same layers of the trained one.
        title: above the picture.
    """
    shown = spread(len(before), 8)
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.3 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    centres = [(a + b) / 2 for a, b in pairwise(HISTOGRAM_EDGES)]
    normal = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in centres]
    for axis, i in zip(axes, shown, strict=False):
        axis.fill_between(centres, after[i].density, color=COLOURS["ei"], alpha=0.35, lw=0)
        axis.plot(centres, after[i].density, color=COLOURS["ei"], lw=1, label="after training")
        axis.plot(centres, before[i].density, color="black", lw=1, label="before training")
        axis.plot(centres, normal, color="black", lw=0.8, ls=":", label="N(0, 1)")
        axis.axvline(1, color="#d55e00", lw=0.8, label="threshold")
        axis.set_title(f"{after[i].layer}: {after[i].rate:.2f} spikes per step", fontsize=9)
        axis.set_ylim(0, min(1.5, 1.05 * max(*after[i].density, *before[i].density, 0.4)))
        axis.set_yticks([])
        axis.set_xticks([-2, 0, 2])  # none at the ends, where two pictures meet
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in axes[len(shown) - columns : len(shown)]:
        axis.tick_params(labelbottom=True)  # the lowest of its column
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
        title="integrated current, in units of the threshold",
        title_fontsize=9,
    )
    save(figure, path, title)


def plot_comparison(
    path: Path,
    histories: Mapping[str, History],
    activities: Mapping[str, Sequence[LayerActivity]],
    title: str,
) -> None:
    """Networks with different norms side by side: loss, accuracy, firing rate by depth.

    Args:
        path: of the PNG.
        histories: norm to the rows of :func:`plot_curves`.
        activities: norm to the layers of the trained network.
        title: above the picture.
    """
    figure, (loss, accuracy, rates) = _row(3)
    for norm, history in histories.items():
        part = "val" if "val_loss" in history[0] else "train"
        style: dict[str, Any] = {"color": COLOURS[norm], "label": LABELS[norm], "marker": "."}
        epochs = [row["epoch"] for row in history]
        loss.plot(epochs, [row[f"{part}_loss"] for row in history], **style)
        accuracy.plot(epochs, [100 * row[f"{part}_accuracy"] for row in history], **style)
        layers = activities[norm]
        rates.plot(range(1, len(layers) + 1), [layer.rate for layer in layers], **style)
    finish(loss, "loss", "cross-entropy")
    finish(accuracy, "accuracy", "%")
    accuracy.set_ylim(0, 100)
    finish(rates, "firing rate after training", "spikes per neuron and step", "layer")
    rates.set_ylim(bottom=0)
    accuracy.legend(frameon=False, loc="center right")
    save(figure, path, title)


def _row(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.7 * count, 3.1), layout="constrained")
    return figure, list(figure.subplots(1, count))


def finish(axis: Axes, title: str, unit: str, x: str = "epoch") -> None:
    """Title, labels of both axes and our style."""
    axis.set_title(title, fontsize=10)
    axis.set_ylabel(unit)
    axis.set_xlabel(x)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices below ``count``, evenly spread, first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def viridis(position: float) -> tuple[float, float, float, float]:
    """A colour between dark blue, 0, and yellow, 1."""
    colour: tuple[float, float, float, float] = colormaps["viridis"](position)
    return colour


def save(figure: Figure, path: Path, title: str) -> None:
    """Write the PNG with its title."""
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
