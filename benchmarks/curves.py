"""How the time of a training step grows with T, batch and width."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from benchmarks.cases import Case
from benchmarks.contenders import Network
from benchmarks.literal import literal
from benchmarks.timing import Budget, Effort, Timing, race

__all__ = ["Curve", "measure_curve", "plot_curves"]

LINEAR = 1.1
"""Exponents up to this count as linear growth."""

COLOURS = {"eisnn": "#0072b2", "literal": "#777777", "bn twin": "#e69f00"}
LABELS = {"T": "time steps T", "batch": "batch size", "width": "width, relative to the paper's"}


@dataclass(frozen=True)
class Curve:
    """Times of training steps along one setting."""

    case: Case
    setting: str
    values: Sequence[float]
    times: Mapping[str, Sequence[Timing]]
    """By contender, one for each value."""

    def exponent(self, name: str) -> float:
        """The slope of log time over log setting, by least squares."""
        x = [math.log(value) for value in self.values]
        y = [math.log(timing.median) for timing in self.times[name]]
        return statistics.linear_regression(x, y).slope

    def record(self) -> dict[str, object]:
        """For the JSON file."""
        exponents = {name: self.exponent(name) for name in self.times}
        return {
            "settings": asdict(self.case),
            "values": list(self.values),
            "training": {k: [t.summary() for t in timings] for k, timings in self.times.items()},
            "exponent": exponents,
            "at_most_linear": {name: value <= LINEAR for name, value in exponents.items()},
        }


def measure_curve(
    case: Case,
    setting: str,
    values: Sequence[float],
    device: torch.device,
    effort: Effort,
    budget: Budget,
) -> Curve:
    """Time the points of a curve, all in turns.

    Args:
        case: of which one setting is varied.
        setting: a field of it.
        values: of the field.
        device: where.
        effort: how often and how long.
        budget: gives the deadline.
    """
    steps: dict[tuple[str, float], Callable[[], None]] = {}
    for value in values:
        changed: dict[str, Any] = {setting: value}
        point = replace(case, **changed)
        batch, labels = point.inputs(device)
        ei = point.network("ei", batch)
        models = {"eisnn": copy.deepcopy(ei), "literal": literal(ei)}
        models["bn twin"] = point.network("bn", batch)
        for name, model in models.items():
            steps[name, value] = Network(model, batch, labels).training_step
    times = race(steps, device, effort, budget.next_part())
    return Curve(
        case, setting, values, {name: [times[name, v] for v in values] for name in COLOURS}
    )


def plot_curves(path: Path, curves: Sequence[Curve], title: str) -> None:
    """One panel for each curve, with logarithmic axes."""
    figure = Figure(figsize=(3.7 * len(curves), 3.4), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False).flat
    for axis, curve in zip(axes, curves, strict=True):
        for name, timings in curve.times.items():
            axis.loglog(
                curve.values,
                [1000 * timing.median for timing in timings],
                color=COLOURS[name],
                marker=".",
                label=f"{name} (exponent {curve.exponent(name):.2f})",
            )
        axis.set_xlabel(LABELS[curve.setting])
        axis.set_ylabel("training step, ms")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(curve.values)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.grid(alpha=0.25, which="both")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
