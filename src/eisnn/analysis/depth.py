"""How activity and gradients travel through VGGs of growing depth, before any training.

A VGG-n has ``n - 3`` hidden convolutions. Beyond the published ones, VGG-35 and VGG-67 have two
and four times the convolutions of VGG-19.

Legend: B batch.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from eisnn.analysis.figures import LABELS, finish, save, viridis
from eisnn.analysis.gradients import gradient_norms
from eisnn.analysis.probes import Probe
from eisnn.initialise import ei_init_
from eisnn.models.layers import Layers
from eisnn.models.network import SpikingNetwork
from eisnn.models.vgg import MIN_SIZE, VGG_STAGES, vgg_body

__all__ = ["DEPTHS", "DepthRow", "plot_depth", "study_depth", "write_depth"]

DEPTHS: dict[int, tuple[tuple[int, ...], ...]] = {
    **{int(name.removeprefix("vgg")): stages for name, stages in VGG_STAGES.items()},
    35: tuple(stage * 2 for stage in VGG_STAGES["vgg19"]),
    67: tuple(stage * 4 for stage in VGG_STAGES["vgg19"]),
}
"""Depth to channels of the convolutions of each stage."""


@dataclass(frozen=True)
class DepthRow:
    """One hidden layer of one network at initialisation."""

    norm: str
    depth: int
    """Of the network, as in its name."""
    layer: int
    """From 1."""
    mean: float
    """Of the integrated current."""
    variance: float
    rate: float
    """Spikes per neuron and time step."""
    gradient: float
    """Norm of the gradient of ``W_EE``, or of the signed weight, as used in training."""


def study_depth(
    batch: Tensor,
    labels: Tensor,
    *,
    depths: Iterable[int] = tuple(DEPTHS),
    norms: Sequence[str] = ("ei", "bn", "none"),
    T: int = 4,
    width: float = 1.0,
    seed: int = 0,
) -> list[DepthRow]:
    """Initialise VGGs on ``batch`` and follow it forward and its gradient backward.

    Everything is measured in training mode: BatchNorm uses the statistics of the batch.

    Args:
        batch: images ``[B, C, H, W]`` or event frames ``[B, T, C, H, W]``, at least 32x32.
        labels: ``[B]``.
        depths: which of :data:`DEPTHS`.
        norms: which kinds of network.
        T: time steps of static images.
        width: multiplies the channels.
        seed: of the weights.

    Returns:
        a row for each hidden layer. Layers that E-I Init does not reach, because one before them
        is silent, are missing.

    Raises:
        ValueError: no such depth.
    """
    rows: list[DepthRow] = []
    for depth in depths:
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        for norm in norms:
            rows += _network(batch, labels, norm, depth, T, width, seed)
    return rows


def _network(
    batch: Tensor, labels: Tensor, norm: str, depth: int, T: int, width: float, seed: int
) -> list[DepthRow]:
    stages = [[max(1, round(w * width)) for w in stage] for stage in DEPTHS[depth]]
    classes = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = vgg_body(Layers(norm), stages, batch.shape[-3], classes)
        model = SpikingNetwork(body, T=T, in_channels=batch.shape[-3], min_size=MIN_SIZE)
        ei_init_(model, batch)
    model.to(batch.device).train()
    with Probe(model) as probe:
        gradients = gradient_norms(model, batch, labels)
    rows: list[DepthRow] = []
    for name, layer in probe.layers.items():
        if layer.rate is None:
            continue
        current, kinds = layer.distributions["i_int"], gradients[name]
        rows.append(
            DepthRow(
                norm=norm,
                depth=depth,
                layer=len(rows) + 1,
                mean=current.mean,
                variance=current.variance,
                rate=sum(layer.rate) / len(layer.rate),
                gradient=kinds.get("weight_ee", kinds.get("weight", 0.0)),
            )
        )
    return rows


def write_depth(path: Path, rows: Sequence[DepthRow]) -> None:
    """The rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(DepthRow)])
        writer.writeheader()
        for row in rows:
            values = asdict(row)
            writer.writerow(
                {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in values.items()}
            )


def plot_depth(path: Path, rows: Sequence[DepthRow], title: str) -> None:
    """Mean, variance, firing rate and gradient along the layers, a row for each kind of network.

    Args:
        path: of the PNG.
        rows: what :func:`study_depth` gives.
        title: above the picture.
    """
    norms = list(dict.fromkeys(row.norm for row in rows))
    depths = sorted({row.depth for row in rows})
    panels = {
        "mean": "mean of the integrated current",
        "variance": "variance of the integrated current",
        "rate": "spikes per neuron and step",
        "gradient": "norm of the weight's gradient",
    }
    figure = Figure(figsize=(12.5, 2.5 * len(norms) + 0.8), layout="constrained")
    grid = figure.subplots(len(norms), len(panels), squeeze=False, sharex=True, sharey="col")
    for axes, norm in zip(grid, norms, strict=True):
        for axis, (figure_name, text) in zip(axes, panels.items(), strict=True):
            for i, depth in enumerate(depths):
                chosen = [row for row in rows if row.norm == norm and row.depth == depth]
                style: dict[str, Any] = {"color": viridis(0.9 * i / max(1, len(depths) - 1))}
                values = [getattr(row, figure_name) for row in chosen]
                if figure_name in ("variance", "gradient"):  # a silent layer has none: a gap
                    values = [value if value > 1e-12 else float("nan") for value in values]
                axis.plot(
                    [row.layer for row in chosen],
                    values,
                    marker=".",
                    ms=4,
                    lw=1.1,
                    label=f"VGG-{depth}",
                    zorder=len(depths) - i,
                    **style,
                )
            finish(axis, text if norm == norms[0] else "", "", "layer")
            axis.set_xscale("log", base=2)
            ticks = [2**n for n in range(8) if 2**n <= max(row.layer for row in rows)]
            axis.set_xticks(ticks, list(map(str, ticks)))
            if figure_name in ("variance", "gradient"):
                axis.set_yscale("log")
            if figure_name == "gradient":
                axis.set_ylim(bottom=1e-4)
                if not any(row.gradient > 1e-4 for row in rows if row.norm == norm):
                    text = "silent: no gradient\nor hardly any"
                    axis.text(0.5, 0.5, text, ha="center", transform=axis.transAxes, fontsize=9)
            if norm != norms[-1]:
                axis.set_xlabel("")
        axes[0].set_ylabel(LABELS[norm], fontsize=11)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(depths), frameon=False)
    save(figure, path, title)
