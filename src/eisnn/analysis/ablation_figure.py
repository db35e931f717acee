"""The picture of an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure

__all__ = ["AblationRow", "plot_ablation"]


class AblationRow(Protocol):
    """What the picture shows of one variant."""

    @property
    def variant(self) -> str: ...

    @property
    def mean(self) -> float | None: ...

    @property
    def accuracies(self) -> tuple[float, ...]: ...

    @property
    def problems(self) -> str: ...


def plot_ablation(
    path: Path,
    rows: Sequence[AblationRow],
    costs: Sequence[tuple[float, float, float, float]],
    title: str,
) -> None:
    """Accuracy of each variant, what went wrong, and what a step costs.

    Args:
        path: of the PNG.
        rows: the full method first, accuracies in %.
        costs: of each row, relative to the full method: time as run, time with nothing fused,
            memory as run, memory with nothing fused.
        title: above the picture.
    """
    figure = Figure(figsize=(10.5, 0.36 * len(rows) + 1.6), layout="constrained")
    axis, *others = figure.subplots(1, 3, sharey=True, width_ratios=(3.2, 1, 1))
    for place, row in enumerate(rows):
        colour = "#0072b2" if place == 0 else "#56b4e9"
        axis.barh(place, row.mean or 0, color=colour, height=0.62, alpha=0.75)
        axis.plot(row.accuracies, [place] * len(row.accuracies), "o", color="black", ms=3.5)
        shown = "" if row.mean is None else f"{row.mean:.1f}"
        text = "  ".join(part for part in (shown, row.problems) if part)
        end = max(row.accuracies, default=0)
        axis.text(
            end + 1.5,
            place,
            text,
            va="center",
            fontsize=8,
            color="#d55e00" if row.problems else "k",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the dotted line
        )
    if rows[0].mean is not None:
        axis.axvline(rows[0].mean, color="#0072b2", lw=0.8, ls=":")
    axis.set_yticks(range(len(rows)), [row.variant for row in rows], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 118)
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel("test accuracy, %; dots are single runs")
    for column, (other, what) in enumerate(zip(others, ("time", "memory"), strict=True)):
        for offset, style, label in ((0, "o", "as run"), (1, "x", "nothing fused")):
            values = [cost[2 * column + offset] for cost in costs]
            other.plot(values, range(len(rows)), style, color="black", ms=4, label=label)
        other.axvline(1, color="#0072b2", lw=0.8, ls=":")
        other.set_xlim(left=0)
        other.set_xlabel(f"{what} (full = 1)")
        other.grid(axis="x", alpha=0.25)
    handles, labels = others[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower right",
        ncols=2,
        frameon=False,
        fontsize=8,
        title="cost of a training step",
        title_fontsize=8,
    )
    for each in (axis, *others):
        each.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
