"""Tables and pictures of the study of optimisation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["table", "write_report"]

Row = dict[str, Any]

TUNING = 9
COLOURS = {"bn": "#e69f00", "plain": "#777777", "fit": "#0072b2"}
NAMES = {"bn": "BatchNorm twin", "plain": "E-I, plain SGD", "fit": "E-I, fitted"}
DEPTHS = ("vgg8", "vgg11", "vgg16", "vgg19")


def table(rows: Sequence[Row]) -> str:
    """Mean accuracy and its spread over seeds, for everything but the grids, as Markdown."""
    lines = [
        "| network | data | samples | epochs | contender | lr | accuracy, % (seeds) | final loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    settings: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        run = row["run"]
        if run["seed"] != TUNING:
            key = tuple(run[k] for k in ("model", "data", "samples", "epochs", "contender", "lr"))
            settings.setdefault(key, []).append(row)
    for (model, data, samples, epochs, contender, lr), group in sorted(settings.items()):
        accuracy = _spread([row["accuracy"] for row in group])
        loss = statistics.mean(row["final_loss"] for row in group)
        lines.append(
            f"| {model} | {data} | {samples} | {epochs} | {contender} | {lr} | "
            f"{accuracy} ({len(group)}) | {loss:.3f} |"
        )
    return "\n".join(lines)


def grid_table(rows: Sequence[Row]) -> str:
    """Accuracy by learning rate, of the tuning seed, as Markdown."""
    lines = ["| network | contender | lr | accuracy, % |", "| --- | --- | --- | --- |"]
    found = {
        tuple(row["run"][key] for key in ("model", "contender", "lr")): row["accuracy"]
        for row in rows
        if row["run"]["seed"] == TUNING
    }
    for (model, contender, lr), accuracy in sorted(found.items()):
        lines.append(f"| {model} | {contender} | {lr} | {accuracy:.1f} |")
    return "\n".join(lines)


def write_report(out: Path, scale: str, rows: Sequence[Row]) -> None:
    """Write ``SCALE-study.md`` and ``SCALE-study.png``."""
    text = f"{table(rows)}\n\nLearning rates, one seed that is not among the above:\n\n"
    (out / f"{scale}-study.md").write_text(text + grid_table(rows) + "\n")
    rows = _at_best_rates(rows)
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    found = [row["run"]["model"] for row in rows if row["run"]["model"] in DEPTHS]
    deepest = max(found, key=_layers, default=DEPTHS[0])
    panels: list[tuple[Callable[..., None], str]] = [
        (_learning_rates, "accuracy over learning rate, VGG-8, %"),
        (_depths, "accuracy over depth, one epoch, %"),
        (_losses, "training loss by epoch, VGG-8"),
        (_ablation, "accuracy without a rule, VGG-8, %"),
        (_gradients, f"|g| / |w| at the first step, {deepest}"),
        (_rates, f"firing rates after training, {deepest}"),
    ]
    for axis, (draw, title) in zip(axes.flat, panels, strict=True):
        draw(axis, rows, deepest)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(out / f"{scale}-study.png", dpi=110)


def _at_best_rates(rows: Sequence[Row]) -> list[Row]:
    """The grids, and of other runs those at the learning rate that served the contender best."""
    groups: dict[tuple[Any, ...], dict[float, list[Row]]] = {}
    for row in rows:
        run = row["run"]
        if run["seed"] != TUNING:
            key = tuple(run[k] for k in ("model", "data", "samples", "epochs", "contender"))
            groups.setdefault(key, {}).setdefault(run["lr"], []).append(row)

    def mean(group: list[Row]) -> float:
        return statistics.mean(row["accuracy"] for row in group)

    chosen = [row for rates in groups.values() for row in max(rates.values(), key=mean)]
    return [*chosen, *(row for row in rows if row["run"]["seed"] == TUNING)]


def _learning_rates(axis: Axes, rows: Sequence[Row], _: str) -> None:
    for name, colour in COLOURS.items():
        grid = sorted(
            (row["run"]["lr"], row["accuracy"])
            for row in rows
            if row["run"]["seed"] == TUNING
            and row["run"]["model"] == "vgg8"
            and row["run"]["contender"] == name
        )
        if grid:
            axis.semilogx(*zip(*grid, strict=True), marker="o", color=colour, label=NAMES[name])
    axis.set_xlabel("learning rate")


def _depths(axis: Axes, rows: Sequence[Row], _: str) -> None:
    shortest = min((row["run"]["epochs"] for row in rows), default=1)
    for name, colour in COLOURS.items():
        points: dict[int, list[float]] = {}
        for row in rows:
            run = row["run"]
            comparable = run["model"] in DEPTHS and run["epochs"] == shortest
            if comparable and run["contender"] == name and run["seed"] != TUNING:
                points.setdefault(_layers(run["model"]), []).append(row["accuracy"])
        if points:
            x = sorted(points)
            axis.plot(x, [statistics.mean(points[n]) for n in x], color=colour, label=NAMES[name])
            for n in x:
                axis.plot([n] * len(points[n]), points[n], ".", color=colour)
    axis.set_xlabel("layers with weights")


def _losses(axis: Axes, rows: Sequence[Row], _: str) -> None:
    shown = [row for row in rows if row["run"]["model"] == "vgg8"]
    longest = max((row["run"]["epochs"] for row in shown), default=1)
    for row in shown:
        run = row["run"]
        name = run["contender"]
        if run["epochs"] == longest > 1 and name in COLOURS:
            epochs = range(1, longest + 1)
            label = NAMES[name] if run["seed"] == 0 else None
            axis.plot(epochs, row["epoch_losses"], color=COLOURS[name], label=label)
    axis.set_xlabel("epoch")


def _ablation(axis: Axes, rows: Sequence[Row], _: str) -> None:
    shortest = min((row["run"]["epochs"] for row in rows), default=1)
    found = {
        row["run"]["contender"]: row["accuracy"]
        for row in rows
        if row["run"]["model"] == "vgg8"
        and row["run"]["epochs"] == shortest
        and row["run"]["seed"] == 0
    }
    names = sorted(found, key=lambda name: found[name])
    colours = [COLOURS.get(name, "#8fbcd8") for name in names]
    axis.barh(names, [found[name] for name in names], color=colours)


def _gradients(axis: Axes, rows: Sequence[Row], deepest: str) -> None:
    for name, row in _one_each(rows, deepest).items():
        ratios = row["gradient_ratios"]
        layers = range(1, len(ratios) + 1)
        axis.semilogy(layers, ratios, marker=".", color=COLOURS[name], label=NAMES[name])
    axis.set_xlabel("layer")


def _rates(axis: Axes, rows: Sequence[Row], deepest: str) -> None:
    for name, row in _one_each(rows, deepest).items():
        layers = range(1, len(row["rates"]) + 1)
        axis.plot(layers, row["rates"], marker=".", color=COLOURS[name], label=NAMES[name])
    axis.set_xlabel("layer")
    axis.set_ylim(bottom=0)


def _one_each(rows: Sequence[Row], model: str) -> dict[str, Row]:
    return {
        row["run"]["contender"]: row
        for row in reversed(rows)
        if row["run"]["model"] == model and row["run"]["contender"] in COLOURS
    }


def _layers(model: str) -> int:
    return int(model.removeprefix("vgg"))


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
