"""A training run from recipe to run folder.

A run folder holds::

    config.yaml              the resolved recipe; `eisnn train config.yaml` repeats the run
    metrics.csv              a row for each epoch
    curves.png               loss, accuracy, firing rates over epochs
    currents.png             integrated currents before and after training
    activity.json            the numbers in currents.png
    weights.safetensors      the trained network, best epoch on the validation set
    summary.json             test accuracy, firing rates, smallest divisor, versions
    checkpoints/             of Lightning
"""

from __future__ import annotations

import json
import logging
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch import nn

import eisnn
from eisnn.analysis import LayerActivity, observe
from eisnn.analysis.figures import LABELS, plot_comparison, plot_currents, plot_curves
from eisnn.data import DataSource, load_data
from eisnn.initialise import ei_init_
from eisnn.models import create_model
from eisnn.training.batches import DataModule
from eisnn.training.callbacks import History, RunProgress
from eisnn.training.module import Classifier
from eisnn.training.recipe import Recipe, dump_recipe

__all__ = ["RunResult", "build_model", "compare", "free_folder", "train"]

PRECISION: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


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


def build_model(recipe: Recipe, source: DataSource, image_size: tuple[int, int]) -> nn.Module:
    """The network of a recipe for a data set; an E-I network is not initialised yet.

    Args:
        recipe: says which network.
        source: gives classes and channels.
        image_size: height and width of batches, as the transforms leave them.
    """
    model = asdict(recipe.model)
    return create_model(
        model.pop("name"),
        num_classes=source.num_classes,
        in_channels=source.in_channels,
        image_size=image_size,
        **model,
    )


def train(recipe: Recipe, folder: Path, *, progress: bool = True) -> RunResult:
    """Train one network and fill ``folder``, which must not hold a run yet.

    Args:
        recipe: what to do.
        folder: created with its parents.
        progress: show a progress bar.

    Returns:
        the result, with the test set used once, for the kept weights.

    Raises:
        ValueError: the recipe does not fit the data set or the network.
        FileExistsError: ``folder`` holds files.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty. Choose another folder for the run")
    _quieten()
    source = load_data(recipe.data.name, recipe.data.root, **recipe.data.options)
    seed = recipe.training.seed
    L.seed_everything(seed, verbose=False)
    data = DataModule(
        source, recipe.training.batch_size, recipe.data.augmentation, recipe.data.validation, seed
    )
    images, _ = next(iter(data.training_batches(0, torch.device("cpu"))))
    model = build_model(recipe, source, (images.shape[-2], images.shape[-1]))
    ei_init_(model, images, generator=torch.Generator().manual_seed(seed))
    before = observe(model, data.probe())

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_recipe(recipe))
    history = History(folder / "metrics.csv", model, data.probe())
    checkpoint = ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor="val_accuracy" if data.val is not None else None,
        mode="max",
        save_last=True,
    )
    trainer = L.Trainer(
        max_epochs=recipe.training.epochs,
        precision=PRECISION[recipe.training.precision],
        accelerator="auto",
        devices=1,
        logger=False,
        callbacks=[
            history,
            checkpoint,
            *([RunProgress(LABELS[recipe.model.norm])] if progress else []),
        ],
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if data.val is None else 1.0,
        reload_dataloaders_every_n_epochs=1,
        deterministic=True,
    )
    module = Classifier(model, recipe.optimiser)
    trainer.fit(module, data)
    best = torch.load(checkpoint.best_model_path, weights_only=True, map_location="cpu")
    module.load_state_dict(best["state_dict"])
    (tested,) = trainer.test(module, data, verbose=False)

    model.cpu()
    after = observe(model, data.probe())
    divisors = [row["smallest_divisor"] for row in history.rows if "smallest_divisor" in row]
    result = RunResult(
        folder=folder,
        norm=recipe.model.norm,
        test_accuracy=tested["test_accuracy"],
        epoch=best["epoch"] + 1,
        seconds=sum(row["seconds"] for row in history.rows),
        parameters=sum(p.numel() for p in model.parameters()),
        history=history.rows,
        before=before,
        after=after,
        smallest_divisor=min(divisors, default=None),
    )
    _write(result, recipe, source, model)
    return result


def compare(recipe: Recipe, folder: Path, *, progress: bool = True) -> list[RunResult]:
    """Train the recipe's network and its twins with the same data, budget and seed.

    Args:
        recipe: its ``twins`` say with which optimiser settings to train the other norms.
        folder: gets a run folder for each norm and ``comparison.png``.
        progress: show progress bars.

    Raises:
        ValueError: the recipe has no twins.
    """
    if not recipe.twins:
        raise ValueError(
            "the recipe has no twins to compare with. Add them: "
            "twins.bn.lr=0.1 twins.bn.weight_decay=1e-4 twins.none.lr=0.1"
        )
    results = [train(recipe, folder / recipe.model.norm, progress=progress)]
    for norm, optimiser in recipe.twins.items():
        if norm != recipe.model.norm:
            twin = replace(
                recipe, model=replace(recipe.model, norm=norm), optimiser=optimiser, twins={}
            )
            results.append(train(twin, folder / norm, progress=progress))
    plot_comparison(
        folder / "comparison.png",
        {result.norm: result.history for result in results},
        {result.norm: result.after for result in results},
        f"{recipe.model.name} on {recipe.data.name}: {recipe.training.epochs} epochs each",
    )
    return results


def free_folder(wanted: Path) -> Path:
    """``wanted``, or ``wanted-2``, ``wanted-3``, ... if it is taken."""
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _write(result: RunResult, recipe: Recipe, source: DataSource, model: nn.Module) -> None:
    folder = result.folder
    save_file(model.state_dict(), folder / "weights.safetensors")
    layers = {"before": result.before, "after": result.after}
    _write_json(folder / "activity.json", {k: [asdict(x) for x in v] for k, v in layers.items()})
    title = f"{recipe.model.name}, {LABELS[result.norm]}, on {recipe.data.name}"
    plot_curves(folder / "curves.png", result.history, title)
    plot_currents(folder / "currents.png", result.before, result.after, title)
    _write_json(
        folder / "summary.json",
        {
            "test_accuracy": result.test_accuracy,
            "epoch": result.epoch,
            "seconds": result.seconds,
            "parameters": result.parameters,
            "smallest_divisor": result.smallest_divisor,
            "rates": {layer.layer: layer.rate for layer in result.after},
            "data": {
                "name": source.name,
                "split": source.split,
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


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _quieten() -> None:
    """Silence Lightning's remarks about choices that are ours."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # its own use of torch


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
    if quiet:
        text += f" Silent: {', '.join(quiet)}."
    if result.smallest_divisor is not None:
        text += f" The smallest divisor seen was {result.smallest_divisor:.2g}."
    return f"{text} Everything is in {result.folder}"
