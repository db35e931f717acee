"""What a trained network takes a file of one's own for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eisnn.training.trained import Trained

__all__ = ["Prediction", "as_json", "as_text", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The classes that a network thinks most likely.

    Attributes:
        sample: the file, and which part of it, if it holds several samples.
        classes: names with their probabilities, 0 to 1, the likeliest first.
    """

    sample: str
    classes: tuple[tuple[str, float], ...]


def predict(trained: Trained, path: Path, *, top: int = 3) -> list[Prediction]:
    """Classify the samples in one file.

    Args:
        trained: the network.
        path: a picture, or a recording; see :meth:`SampleFormat.read`.
        top: how many classes to give.

    Returns:
        one prediction; for a DVS-Gesture recording with its table of labels beside it, one for
        each labelled gesture. Probabilities are the softmax of the logits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, of another kind, or without events.
    """
    predictions = []
    for sample, inputs in trained.format.read(path):
        chances = trained.logits(inputs)[0].softmax(0)
        values, indices = chances.topk(min(top, len(chances)))
        names = (trained.classes[i] for i in indices.tolist())
        predictions.append(Prediction(sample, tuple(zip(names, values.tolist(), strict=True))))
    return predictions


def as_text(predictions: Sequence[Prediction]) -> str:
    """A line for each sample: what it is taken for, and how likely."""
    width = max(len(prediction.sample) for prediction in predictions)
    return "\n".join(
        f"{prediction.sample:<{width}}  "
        + ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in prediction.classes)
        for prediction in predictions
    )


def as_json(predictions: Sequence[Prediction]) -> str:
    """A list with an object for each sample."""
    content = [
        {
            "sample": prediction.sample,
            "classes": [{"class": name, "probability": p} for name, p in prediction.classes],
        }
        for prediction in predictions
    ]
    return json.dumps(content, indent=1)
