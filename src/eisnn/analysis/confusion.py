"""Which classes a network tells apart: precision and recall of each class, and the picture.

A confusion matrix ``[K, K]`` counts samples: rows are the true classes, columns the predicted.

Legend: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["ClassScore", "class_scores", "plot_confusion"]

_MOST_NAMED = 20
"""Classes, beyond which cells and axes are too small for text."""


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised."""

    name: str
    count: int
    """Samples of this class."""
    precision: float | None
    """Share, 0 to 1, that is right among the samples taken for this class; ``None`` if no
    sample was."""
    recall: float | None
    """Share, 0 to 1, that is recognised among the samples of this class; ``None`` if there is no
    sample."""


def class_scores(confusion: Tensor, classes: Sequence[str]) -> list[ClassScore]:
    """Precision and recall of each class.

    Args:
        confusion: counts, ``[K, K]``.
        classes: their names.

    Raises:
        ValueError: the matrix has another shape.
    """
    if confusion.shape != (len(classes), len(classes)):
        raise ValueError(
            f"a confusion matrix of {len(classes)} classes has shape "
            f"{[len(classes), len(classes)]}, got {list(confusion.shape)}"
        )
    right = confusion.diagonal().tolist()
    of_class, taken_for = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return [
        ClassScore(name, of_class[i], _share(right[i], taken_for[i]), _share(right[i], of_class[i]))
        for i, name in enumerate(classes)
    ]


def plot_confusion(path: Path, confusion: Tensor, classes: Sequence[str], title: str) -> None:
    """The confusion matrix as a picture, each row in % of its class; numbers up to 20 classes.

    Args:
        path: of the PNG.
        confusion: counts, ``[K, K]``.
        classes: their names.
        title: above the picture.
    """
    count = len(classes)
    shares = 100 * confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    side = 1.9 + 0.42 * count if count <= _MOST_NAMED else 7.5
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    if count <= _MOST_NAMED:
        axis.set_xticks(range(count), classes, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(count), classes)
        for row, column in confusion.nonzero().tolist():
            share = shares[row, column].item()
            colour = "white" if share > 50 else "black"
            text = f"{share:.0f}" if share >= 0.5 else "<1"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, shrink=0.8, label="% of the true class")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
