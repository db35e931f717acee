"""What a trained network can do, on the test set of its training.

Legend: B batch, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

import eisnn
from eisnn.analysis import LayerActivity, observe
from eisnn.analysis.confusion import ClassScore, class_scores, plot_confusion
from eisnn.analysis.figures import LABELS
from eisnn.data import DataSource, evaluation_transform, load_data
from eisnn.data.progress import progress
from eisnn.training.trained import Trained

__all__ = ["Evaluation", "describe", "evaluate", "write"]

OBSERVED = 256
"""Samples on which firing rates and divisors are measured, spread over the test set."""

_MOST_ROWS = 20
"""Classes that are printed, at most; the file has all of them."""


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a test set.

    Attributes:
        trained: the network.
        source: the data set.
        top1: share of samples, 0 to 1, whose class has the largest logit.
        top5: whose class is among the five largest; ``None`` for five classes or fewer.
        confusion: counts ``[K, K]``, true class by predicted class.
        scores: of each class.
        layers: what they did with ``observed`` samples.
        observed: the number of samples that the layers were observed on.
    """

    trained: Trained
    source: DataSource
    top1: float
    top5: float | None
    confusion: Tensor
    scores: list[ClassScore]
    layers: list[LayerActivity]
    observed: int

    @property
    def smallest_divisor(self) -> float | None:
        """Of all E-I layers, over the observed samples."""
        divisors = [d for layer in self.layers if (d := layer.smallest_divisor) is not None]
        return min(divisors, default=None)

    @property
    def title(self) -> str:
        return f"{self.trained.name}, {LABELS[self.trained.norm]}, on {self.source.name}"


def evaluate(
    trained: Trained,
    *,
    root: Path | str | None = None,
    batch_size: int = 128,
    show_progress: bool = False,
) -> Evaluation:
    """Run a network over the test set of the data set that it was trained on.

    Args:
        trained: the network.
        root: folder of the data sets; by default that of the training.
        batch_size: samples at a time.
        show_progress: on standard error.

    Raises:
        ValueError: the data do not fit the network, or its output is not finite.
        FileNotFoundError: the data are not there; the message says which file to put where.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    data, model = trained.data, trained.model
    source = load_data(data.name, root or data.root, **data.options)
    num_classes, test = source.num_classes, source.test
    if num_classes != len(trained.classes):
        raise ValueError(
            f"the network in {trained.folder} tells {len(trained.classes)} classes apart, and "
            f"{source.name} has {num_classes}. Is this the data that it was trained on?"
        )
    transform = evaluation_transform(data.augmentation)
    matrix = MulticlassConfusionMatrix(num_classes).to(trained.device)
    top5 = MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro")
    top5.to(trained.device)
    bar = progress("testing", len(test)) if show_progress else nullcontext(lambda _: None)
    with bar as advance:
        for start in range(0, len(test), batch_size):
            chosen = range(start, min(start + batch_size, len(test)))
            inputs, labels = test.batch(chosen, trained.device)
            logits = trained.logits(transform(inputs))  # [B, K]
            matrix.update(logits.argmax(1), labels)
            top5.update(logits, labels)
            advance(len(labels))
    confusion = matrix.compute().cpu()

    spread = torch.linspace(0, len(test) - 1, min(len(test), OBSERVED, batch_size)).long()
    layers = observe(model, transform(test.batch(spread, trained.device)[0]))
    return Evaluation(
        trained=trained,
        source=source,
        top1=int(confusion.trace()) / len(test),
        top5=top5.compute().item() if num_classes > 5 else None,
        confusion=confusion,
        scores=class_scores(confusion, source.classes),
        layers=layers,
        observed=len(spread),
    )


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write ``evaluation.json`` and ``confusion.png``, in place of older ones.

    Args:
        evaluation: what to write.
        folder: created with its parents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained, source = evaluation.trained, evaluation.source
    content = {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "model": {"folder": str(trained.folder), "name": trained.name, "norm": trained.norm},
        "data": {
            "name": source.name,
            "split": source.split,
            "test_samples": len(source.test),
            **source.provenance,
        },
        "selected_on_test": trained.selected_on_test,
        "classes": [
            {
                "class": score.name,
                "count": score.count,
                "precision": score.precision,
                "recall": score.recall,
            }
            for score in evaluation.scores
        ],
        "confusion": evaluation.confusion.tolist(),
        "rates": {layer.layer: layer.rate for layer in evaluation.layers},
        "smallest_divisor": evaluation.smallest_divisor,
        "observed_samples": evaluation.observed,
        "device": trained.device.type,
        "precision": trained.precision,
        "versions": {"eisnn": eisnn.__version__, "torch": torch.__version__},
    }
    (folder / "evaluation.json").write_text(json.dumps(content, indent=1) + "\n")
    title = f"{evaluation.title}: {100 * evaluation.top1:.2f} %"
    plot_confusion(folder / "confusion.png", evaluation.confusion, source.classes, title)


def describe(evaluation: Evaluation) -> str:
    """The evaluation for people."""
    source = evaluation.source
    lines = [
        f"{evaluation.title}: {len(source.test):,} test samples (split: {source.split})",
        "",
        f"top-1  {100 * evaluation.top1:6.2f} %",
    ]
    if evaluation.top5 is not None:
        lines.append(f"top-5  {100 * evaluation.top5:6.2f} %")
    if evaluation.trained.selected_on_test:
        lines.append("The epoch was chosen ON THE TEST SET, as in the published runs.")
    lines += ["", *_class_table(evaluation.scores), "", *_layer_table(evaluation.layers)]
    if evaluation.smallest_divisor is not None:
        lines.append(f"smallest divisor: {evaluation.smallest_divisor:.3g}")
    lines.append(f"(layers observed on {evaluation.observed} samples)")
    return "\n".join(lines)


def _class_table(scores: Sequence[ClassScore]) -> list[str]:
    width = max(5, *(len(score.name) for score in scores))
    lines = [f"{'class':<{width}}   count  precision    recall"]
    shown = scores
    if len(scores) > _MOST_ROWS:
        shown = sorted(scores, key=lambda score: score.recall or 0)[:_MOST_ROWS]
        lines.insert(0, f"The {_MOST_ROWS} of {len(scores)} classes with the lowest recall:")
    lines += [
        f"{score.name:<{width}}  {score.count:>6,}  {_percent(score.precision)}  "
        f"{_percent(score.recall)}"
        for score in shown
    ]
    return lines


def _layer_table(layers: Sequence[LayerActivity]) -> list[str]:
    width = max(5, *(len(layer.layer) for layer in layers))
    return [
        f"{'layer':<{width}}  spikes per neuron and step",
        *(f"{layer.layer:<{width}}  {layer.rate:.3f}" for layer in layers),
    ]


def _percent(share: float | None) -> str:
    """Nine characters."""
    return f"{'-':>9}" if share is None else f"{100 * share:7.1f} %"
