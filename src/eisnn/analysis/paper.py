"""The paper's figures for any network. Every function writes one picture and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eisnn.analysis.figures import COLOURS, finish, save, spread
from eisnn.analysis.theory import LayerTheory

__all__ = ["animate_distributions", "plot_distributions", "plot_gradients", "plot_theory"]

KINDS = {
    "weight_ee": ("W_EE", "#0072b2", "o"),
    "weight_ie": ("W_IE", "#56b4e9", "s"),
    "weight_ei": ("W_EI", "#d55e00", "D"),
    "gain_i": ("g_I", "#cc79a7", "^"),
    "gain_e": ("g_E", "#009e73", "v"),
    "bias": ("b_E", "#777777", "x"),
    "weight": ("weight", "#0072b2", "o"),
    "norm_weight": ("BatchNorm weight", "#d55e00", "D"),
    "norm_bias": ("BatchNorm bias", "#cc79a7", "^"),
}
"""Kind of parameter to its symbol, colour and marker."""
_EXCESS = 1.6
"""Densities are drawn up to here: a layer with few values at all has a single high peak."""

_NARROW = 6.0
"""Up to here N(0, 1) is in the picture for comparison."""
_ROUNDING = 1e-6
"""Gradients below this share of the largest are zero but for rounding, such as that of the
output layer's ``W_IE`` while ``W_EI`` is the same for all classes."""

Record = Mapping[str, Any]


def plot_distributions(
    path: Path, before: Record, after: Record, title: str, threshold: float = 1
) -> None:
    """The paper's Figure 4: integrated current before and after training, in three layers.

    The first, the middle and the last hidden layer, so layers 1, 3 and 5 of VGG-8.

    Args:
        path: of the PNG.
        before: the record of ``dynamics.jsonl`` of the initialised network.
        after: that of the trained one.
        title: above the picture.
        threshold: at which neurons fire.
    """
    shown = _three(before)
    figure = Figure(figsize=(3.4 * len(shown), 3.3), layout="constrained")
    for axis, i in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        old, new = before["layers"][i], after["layers"][i]
        x, y = _steps(new)
        axis.fill_between(x, y, color=COLOURS["ei"], alpha=0.35, lw=0)
        axis.plot(x, y, color=COLOURS["ei"], lw=1.2, label="after training")
        narrow, wide = axis, _current(new)["edges"][1] > _NARROW
        if wide:  # a distribution that has spread by far: the other one in a window of its own
            narrow = axis.inset_axes((0.66, 0.6, 0.34, 0.34))
        x, y = _steps(old)
        narrow.plot(x, y, color="black", lw=1.2, label="before training")
        narrow.plot(x, list(map(_normal, x)), color="black", lw=0.9, ls=":", label="N(0, 1)")
        if wide:
            _density_axis(narrow, old)
            narrow.locator_params(nbins=3)
            narrow.tick_params(labelsize=7)
        axis.axvline(threshold, color="#d55e00", lw=0.9, label="threshold")
        name = f"layer {i + 1} of {len(_hidden(before))} ({new['name']})"
        width = " \N{RIGHTWARDS ARROW} ".join(_short(_current(i)["std"]) for i in (old, new))
        modes = " \N{RIGHTWARDS ARROW} ".join(_short(i["bimodality"], ".2f") for i in (old, new))
        axis.set_title(f"{name}\ndeviation {width}, bimodality {modes}", fontsize=9)
        _density_axis(axis, new, *([] if wide else [old]))
    lines = {
        line.get_label(): line
        for axis in figure.axes
        for part in (*axis.child_axes, axis)
        for line in part.get_lines()
    }
    figure.legend(
        handles=list(lines.values()),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
        title="integrated current",
        title_fontsize=9,
    )
    save(figure, path, title)


def plot_gradients(path: Path, norms: Mapping[str, Mapping[str, float]], title: str) -> None:
    """The paper's Figure 5: gradient norms of each kind of parameter along the layers.

    Args:
        path: of the PNG.
        norms: what :func:`eisnn.analysis.gradient_norms` gives, for the figure without scaling.
        title: above the picture.
    """
    layers = list(norms)
    kinds = list(dict.fromkeys(kind for layer in norms.values() for kind in layer))
    least = _ROUNDING * max(value for layer in norms.values() for value in layer.values())
    figure = Figure(figsize=(min(12.0, 3.6 + 0.45 * len(layers)), 3.8), layout="constrained")
    axis = figure.subplots()
    for kind in kinds:
        label, colour, marker = KINDS.get(kind, (kind, "black", "."))
        at = [i for i, name in enumerate(layers) if norms[name].get(kind, 0) > least]
        values = [norms[layers[i]][kind] for i in at]
        axis.plot(at, values, color=colour, marker=marker, ms=5, lw=1.4, label=label)
    axis.set_yscale("log")
    finish(axis, "", "norm of the gradient", "")
    axis.set_xticks(
        range(len(layers)), layers, rotation=45 if len(layers) > 6 else 0, fontsize=8,
        ha="right" if len(layers) > 6 else "center",
    )  # fmt: skip
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False)
    save(figure, path, title)


def plot_theory(path: Path, layers: Sequence[LayerTheory], title: str) -> None:
    """Predictions of docs/theory.md beside measurements: mean, variance, ratio of gradients.

    Args:
        path: of the PNG.
        layers: what :func:`eisnn.analysis.theory.check_theory` gives.
        title: above the picture.
    """
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    mean, variance, ratio = figure.subplots(1, 3)
    hidden = [layer for layer in layers if layer.mean is not None]
    x = range(1, len(hidden) + 1)
    measured: dict[str, Any] = {"color": COLOURS["ei"], "marker": "o", "lw": 0, "zorder": 3}
    predicted: dict[str, Any] = {"color": "black", "marker": "_", "ms": 14, "mew": 2, "lw": 0}
    band: dict[str, Any] = {"color": "black", "alpha": 0.13, "lw": 0}

    centre = [layer.mean_predicted or 0.0 for layer in hidden]
    sd = [layer.mean_deviation or 0.0 for layer in hidden]
    for i, (middle, deviation) in enumerate(zip(centre, sd, strict=True), 1):
        label = "two standard deviations\nover draws of the weights" if i == 1 else None
        mean.bar(i, 4 * deviation, 0.6, middle - 2 * deviation, label=label, **band)
    mean.plot(x, centre, label="predicted", **predicted)
    mean.plot(x, [layer.mean for layer in hidden], label="measured", **measured)
    largest = max(2.2 * max(sd), 1.2 * max(abs(layer.mean or 0.0) for layer in hidden))
    mean.set_ylim(-largest, largest)

    variance.plot(x, [layer.variance_predicted for layer in hidden], label="predicted", **predicted)
    ideal = [layer.variance_ideal for layer in hidden]
    variance.plot(x, ideal, color="black", ls=":", lw=1.2, label="q / (q + v)")
    variance.plot(x, [layer.variance for layer in hidden], label="measured", **measured)
    variance.set_ylim(0, 1.1 * variance.get_ylim()[1])

    x = range(1, len(layers) + 1)
    for i, layer in enumerate(layers, 1):
        low, high = layer.gradient_ratio_bounds
        label = "from incoherent to\ncoherent gradients" if i == 1 else None
        ratio.bar(i, high - low, 0.6, low, label=label, **band)
    expected = [layer.gradient_ratio_predicted for layer in layers]
    ratio.plot(x, expected, label="predicted", **predicted)
    ratio.plot(x, [layer.gradient_ratio for layer in layers], label="measured", **measured)
    ratio.set_ylim(bottom=0)

    finish(mean, "mean of the integrated current", "units of the threshold", "")
    finish(variance, "variance of the integrated current", "units of the threshold, squared", "")
    finish(ratio, "|grad W_EI| / |grad W_EE|, scaling off", "", "")
    names = [layer.layer for layer in layers]
    for axis, count in ((mean, len(hidden)), (variance, len(hidden)), (ratio, len(layers))):
        step = -(-count // 12)
        at = range(1, count + 1, step)
        axis.set_xticks(at, names[:count:step], rotation=45, ha="right", fontsize=8)
        axis.legend(
            frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22)
        )
    save(figure, path, title)


def animate_distributions(
    path: Path, records: Sequence[Record], title: str, threshold: float = 1
) -> None:
    """Integrated current of up to four layers, epoch by epoch, as an animated GIF.

    Args:
        path: of the GIF.
        records: of ``dynamics.jsonl``; of a long run at most 60 are shown.
        title: above the picture.
        threshold: at which neurons fire.
    """
    shown = spread(len(_hidden(records[0])), 4)
    frames = [records[i] for i in spread(len(records), 60)]
    figure = Figure(figsize=(2.7 * len(shown) + 0.3, 2.9), layout="constrained")
    axes = list(figure.subplots(1, len(shown), squeeze=False).flat)

    def draw(frame: int) -> list[Any]:
        record = frames[frame]
        for axis, i in zip(axes, shown, strict=True):
            axis.clear()
            layer = record["layers"][i]
            x, y = _steps(layer)
            axis.fill_between(x, y, color=COLOURS["ei"], alpha=0.45, lw=0)
            axis.plot(x, y, color=COLOURS["ei"], lw=1)
            axis.plot(*_steps(records[0]["layers"][i]), color="black", lw=0.8)
            axis.axvline(threshold, color="#d55e00", lw=0.9)
            rate = sum(layer["rate"]) / len(layer["rate"])
            axis.set_title(f"{layer['name']}: {rate:.2f} spikes per step", fontsize=9)
            _density_axis(axis, layer, records[0]["layers"][i])
        figure.suptitle(
            f"{title}\nepoch {record['epoch']}: integrated current (black: at the start; "
            "red: threshold)",
            fontsize=10,
        )
        return axes

    order = [*range(len(frames)), *[len(frames) - 1] * 6]  # the end is held
    animation = FuncAnimation(figure, draw, order, interval=200)
    animation.save(path, PillowWriter(fps=5), dpi=90)


def _hidden(record: Record) -> list[Any]:
    """The layers with neurons, which come first in a record of eisnn's networks."""
    return [layer for layer in record["layers"] if layer["rate"] is not None]


def _three(record: Record) -> list[int]:
    return spread(len(_hidden(record)), 3)


def _current(layer: Any) -> Any:
    return layer["currents"]["i_int"]


def _steps(layer: Any) -> tuple[list[float], list[float]]:
    """Centres of the bins and densities."""
    current = _current(layer)
    low, high, bins = current["edges"]
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    return [(a + b) / 2 for a, b in pairwise(edges)], [d or 0.0 for d in current["density"]]


def _density_axis(axis: Axes, layer: Any, *others: Any) -> None:
    """Limits of this layer's current and of all densities; a peak may leave the picture."""
    low, high, _ = _current(layer)["edges"]
    highest = [max(_steps(shown)[1]) for shown in (layer, *others)]
    tallest = max(*highest, 0.4 if high <= _NARROW else 0.0)
    axis.set_xlim(low, high)
    axis.set_ylim(0, 1.1 * min(tallest, _EXCESS))
    axis.set_yticks([])
    axis.xaxis.set_major_locator(MaxNLocator(5, prune="both"))  # none to meet the next picture's
    axis.spines[["top", "right", "left"]].set_visible(False)


def _short(figure: float | None, form: str = ".3g") -> str:
    return "-" if figure is None else format(figure, form)


def _normal(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
