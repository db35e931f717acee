"""What comes out of a run, and how it is written down."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import save_file
from torch import nn

import eisnn
from eisnn.analysis import LayerActivity
from eisnn.analysis.figures import LABELS, plot_currents, plot_curves
from eisnn.data import DataSource
from eisnn.training.recipe import Recipe

__all__ = ["ACTIVITY", "RunResult", "describe", "write_json", "write_result", "write_text"]

ACTIVITY = "activity.json"


@dataclass(frozen=True)
class RunResult:
    """What came out of a run."""

    folder: Path
    norm: str
    test_accuracy: float
    """0 to 1, of the weights that are kept."""
    epoch: int
    """The epoch, from 1, after which the kept weights were taken."""
    seconds: float
    """Time spent in training and validation."""
    parameters: int
    history: list[dict[str, float]]
    before: list[LayerActivity]
    after: list[LayerActivity]
    smallest_divisor: float | None
    """Smallest divisor seen at the end of any epoch, on the probe batch."""
    selected_on_test: bool
    """Whether the epoch was chosen on the test set, as in the published runs."""


def write_result(result: RunResult, recipe: Recipe, source: DataSource, model: nn.Module) -> None:
    """Write weights, pictures, numbers and summary into the run folder."""
    folder = result.folder
    part = folder / ".weights.part"
    save_file(model.state_dict(), part)
    os.replace(part, folder / "weights.safetensors")
    layers = {"before": result.before, "after": result.after}
    write_json(folder / ACTIVITY, {k: [asdict(x) for x in v] for k, v in layers.items()})
    title = f"{recipe.model.name}, {LABELS[result.norm]}, on {recipe.data.name}"
    plot_curves(folder / "curves.png", result.history, title)
    plot_currents(folder / "currents.png", result.before, result.after, title)
    write_json(
        folder / "summary.json",
        {
            "test_accuracy": result.test_accuracy,
            "selected_on_test": result.selected_on_test,
            "epoch": result.epoch,
            "seconds": result.seconds,
            "parameters": result.parameters,
            "smallest_divisor": result.smallest_divisor,
            "rates": {layer.layer: layer.rate for layer in result.after},
            "data": {
                "name": source.name,
                "split": source.split,
                "classes": list(source.classes),
                "training_samples": len(source.train),
                "test_samples": len(source.test),
                **source.provenance,
            },
            "versions": {
                "eisnn": eisnn.__version__,
                "torch": torch.__version__,
                "lightning": L.__version__,
                "python": platform.python_version(),
            },
        },
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def describe(results: Sequence[RunResult]) -> str:
    """Each result as a paragraph for people."""
    return "\n\n".join(map(_paragraph, results))


def _paragraph(result: RunResult) -> str:
    rates = [layer.rate for layer in result.after]
    quiet = [layer.layer for layer in result.after if layer.silent > 0.99]
    text = (
        f"{LABELS[result.norm]}: {100 * result.test_accuracy:.2f} % of the test set after "
        f"{len(result.history)} epochs in {result.seconds:.0f} s (weights of epoch "
        f"{result.epoch}, {result.parameters:,} parameters). Neurons fire at {min(rates):.2f} to "
        f"{max(rates):.2f} spikes per step, by layer."
    )
    if result.selected_on_test:
        text += " The epoch was chosen ON THE TEST SET, as in the published runs."
    if quiet:
        text += f" Silent: {', '.join(quiet)}."
    if result.smallest_divisor is not None:
        text += f" The smallest divisor seen was {result.smallest_divisor:.2g}."
    return f"{text} Everything is in {result.folder}"
