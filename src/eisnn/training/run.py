"""A training run from recipe to run folder.

A run folder holds::

    config.yaml              the resolved recipe; `eisnn train config.yaml` repeats the run
    metrics.csv              a row for each epoch
    curves.png               loss, accuracy, firing rates over epochs
    currents.png             integrated currents before and after training
    activity.json            the numbers in currents.png
    dynamics.jsonl           for each epoch, what every layer does; see analysis/dynamics.py
    weights.safetensors      the trained network, best epoch on the validation set
    summary.json             test accuracy, firing rates, smallest divisor, versions
    checkpoints/             of Lightning
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn

from eisnn.analysis import LayerActivity, observe
from eisnn.analysis.figures import LABELS, plot_comparison
from eisnn.data import DataSource, augmentation, data_options, load_data
from eisnn.initialise import ei_init_
from eisnn.models import create_model
from eisnn.nn import CircuitOptions, set_options
from eisnn.optim import add_homeostasis_
from eisnn.training.batches import DataModule
from eisnn.training.callbacks import History, RunProgress
from eisnn.training.checkpoint import AtomicCheckpointIO, read_checkpoint
from eisnn.training.dynamics import Dynamics
from eisnn.training.loggers import check_logger, run_logger
from eisnn.training.module import Classifier
from eisnn.training.recipe import Recipe, TrainingConfig, dump_recipe, load_recipe
from eisnn.training.result import ACTIVITY, RunResult, write_json, write_result, write_text
from eisnn.training.survival import NonFiniteWatch, Survival
from eisnn.training.trained import refuse_several

__all__ = [
    "build_model",
    "compare",
    "initialised_network",
    "is_first_process",
    "load_batches",
    "resume",
    "train",
]

PRECISION: dict[str, Any] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}

CONFIG = "config.yaml"
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")


def build_model(recipe: Recipe, source: DataSource, image_size: tuple[int, int]) -> nn.Module:
    """The network of a recipe for a data set; an E-I network is not initialised yet.

    Args:
        recipe: says which network.
        source: gives classes and channels.
        image_size: height and width of batches, as the transforms leave them.

    Raises:
        ValueError: they are too small for the network; the message names the field to change.
    """
    model = create_model(
        num_classes=source.num_classes,
        in_channels=source.in_channels,
        image_size=image_size,
        **recipe.model.arguments(),
    )
    if min(image_size) < (least := model.min_size):
        options = data_options(recipe.data.name)
        keys = [key for key in ("size", "pad_to") if key in options]
        change = f"Set data.options.{keys[0]}={least}, or t" if keys else "T"
        raise ValueError(
            f"{recipe.model.name} needs images of at least {least}x{least} pixels, and those of "
            f"{source.name} are {image_size[0]}x{image_size[1]}. {change}ake a network for small "
            "images, such as model.name=mlp4"
        )
    return model


def train(recipe: Recipe, folder: Path, *, progress: bool = True) -> RunResult:
    """Train one network and fill ``folder``, which must not hold a run yet.

    Args:
        recipe: what to do.
        folder: created with its parents.
        progress: show what is trained on, and a progress bar.

    Returns:
        the result, with the test set used once, for the kept weights.

    Raises:
        ValueError: the recipe does not fit the data set, the network or the machine.
        FileExistsError: ``folder`` holds files.
        Interrupted: a signal ended the run, after a checkpoint was written.
        NonFiniteError: the loss became NaN or infinite; the message names the layer.
    """
    return _train(recipe, folder, progress, announce=progress)


def _train(recipe: Recipe, folder: Path, progress: bool, announce: bool) -> RunResult:
    if is_first_process() and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty. Choose another folder for the run, or continue the run in it "
            f"with: eisnn train --resume {folder}"
        )
    model, data = initialised_network(recipe, announce)
    before = observe(model, data.probe())
    if is_first_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ACTIVITY, {"before": [asdict(layer) for layer in before]})
        write_text(folder / CONFIG, dump_recipe(recipe))  # last: with it the folder is a run
    return _fit(recipe, folder, data, model, before, None, progress)


def resume(folder: Path, *, progress: bool = True) -> RunResult:
    """Continue the run in ``folder`` from its last checkpoint, or from the start without one.

    On the CPU in float32 it ends with the same bits as a run that was never interrupted.

    Args:
        folder: of an interrupted run.
        progress: show what is trained on, and a progress bar.

    Raises:
        FileNotFoundError: ``folder`` holds no run.
        ValueError: ``folder`` holds several runs, the checkpoint is damaged, or the recipe does
            not fit.
        Interrupted, NonFiniteError: as :func:`train`.
    """
    return _resume(folder, progress, announce=progress)


def _resume(folder: Path, progress: bool, announce: bool) -> RunResult:
    if not (folder / CONFIG).is_file():
        refuse_several(folder)
        raise FileNotFoundError(
            f"{folder} holds no run: there is no {CONFIG} in it. Runs are in runs/, or where "
            "--out put them"
        )
    recipe = load_recipe(str(folder / CONFIG))
    data = load_batches(recipe, announce)
    images = data.initialisation_batch()
    model = build_model(recipe, data.source, (images.shape[-2], images.shape[-1]))
    last: Path | None = folder / LAST
    assert last is not None
    if last.is_file():
        read_checkpoint(last)  # a clear error before anything else happens
        _add_homeostasis(model, None, recipe)
    else:
        last = None
        _initialise(model, images, recipe)
    layers = json.loads((folder / ACTIVITY).read_text())["before"]
    before = [LayerActivity(**{**x, "density": tuple(x["density"])}) for x in layers]
    return _fit(recipe, folder, data, model, before, last, progress)


def initialised_network(recipe: Recipe, announce: bool = False) -> tuple[nn.Module, DataModule]:
    """The network with which a run of ``recipe`` begins, and its data.

    Args:
        recipe: of the run.
        announce: say what the data are.

    Raises:
        ValueError: the recipe does not fit the data set, the network or the machine.
    """
    data = load_batches(recipe, announce)
    images = data.initialisation_batch()
    model = build_model(recipe, data.source, (images.shape[-2], images.shape[-1]))
    _initialise(model, images, recipe)
    return model, data


def _initialise(model: nn.Module, images: Tensor, recipe: Recipe) -> None:
    """E-I Init; the twins have drawn their weights when they were made."""
    if recipe.model.norm == "ei":
        generator = torch.Generator().manual_seed(recipe.training.seed)
        options = recipe.model.arguments()["circuit"]
        set_options(model, CircuitOptions())  # all start from the weights of the full method
        ei_init_(model, images, generator=generator, scheme=recipe.model.init)
        set_options(model, options)
    _add_homeostasis(model, images, recipe)


def _add_homeostasis(model: nn.Module, images: Tensor | None, recipe: Recipe) -> None:
    if recipe.optimiser.homeostasis is not None:
        add_homeostasis_(model, images, tonic=recipe.optimiser.tonic)


def load_batches(recipe: Recipe, announce: bool = False) -> DataModule:
    """The data of a run, once it is clear that it can be done: preparing them may take hours."""
    _check_machine(recipe.training)
    _check_names(recipe)
    source = load_data(recipe.data.name, recipe.data.root, **recipe.data.options)
    if announce and is_first_process():
        print(source.describe())
    L.seed_everything(recipe.training.seed, verbose=False)
    return DataModule(
        source,
        recipe.training.batch_size,
        recipe.data.augmentation,
        recipe.data.validation,
        recipe.training.seed,
        recipe.data.train_samples,
        recipe.data.select_on_test,
    )


def _check_machine(settings: TrainingConfig) -> None:
    """Find what is missing here before data are read and a run folder is made.

    Raises:
        ValueError: the accelerator or so many devices of it, a library, or a GPU for float16.
    """
    _quieten()
    check_logger(settings.logger)
    try:
        trainer = L.Trainer(
            **_devices(settings),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
    except (MisconfigurationException, ValueError, ImportError) as error:
        raise ValueError(
            f"training.accelerator={settings.accelerator} with training.devices="
            f"{settings.devices} cannot be had on this machine. Use training.accelerator=auto, or "
            f"cpu ({' '.join(str(error).split())})"
        ) from None
    if settings.precision == "float16" and trainer.strategy.root_device.type == "cpu":
        raise ValueError(
            "training.precision=float16 needs a GPU, and this run would be on the CPU. Use "
            "training.precision=bfloat16, or leave it out"
        )


def _check_names(recipe: Recipe) -> None:
    """Find names that do not exist, and frames that are not the time steps.

    Raises:
        ValueError: the message names the field.
    """
    T = recipe.model.T
    frames = (data_options(recipe.data.name) | recipe.data.options).get("T", T)
    if frames != T:
        raise ValueError(
            f"model.T must be the number of frames of {recipe.data.name}, {frames}, got {T}. Set "
            f"model.T={frames}, or data.options.T={T} too"
        )
    augmentation(recipe.data.augmentation)
    with torch.device("meta"):
        create_model(num_classes=2, **recipe.model.arguments())


def _devices(settings: TrainingConfig) -> dict[str, Any]:
    """What the trainer is told about them."""
    return {
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": settings.nodes,
        "strategy": "ddp" if settings.devices * settings.nodes > 1 else "auto",
    }


def _fit(
    recipe: Recipe,
    folder: Path,
    data: DataModule,
    model: nn.Module,
    before: list[LayerActivity],
    last: Path | None,
    progress: bool,
) -> RunResult:
    """Train ``model``, initialised or to be loaded from the checkpoint ``last``, and report."""
    _quieten()
    settings = recipe.training
    history = History(folder / "metrics.csv", model, data.probe())
    selecting = data.val is not None
    callbacks: list[Callback] = [
        history,
        NonFiniteWatch(model),
        Survival(folder / LAST, settings.checkpoint_minutes),
    ]
    if settings.dynamics:
        callbacks.append(Dynamics(folder, model, data.labelled_probe()))
    if selecting:
        callbacks.append(_checkpoint(folder / BEST, monitor="val_accuracy", mode="max"))
    callbacks.append(_checkpoint(folder / LAST))  # after the best, whose score it records
    if progress:
        callbacks.append(RunProgress(LABELS[recipe.model.norm]))
    if settings.patience is not None:
        callbacks.append(
            EarlyStopping(
                "val_accuracy",
                mode="max",
                patience=settings.patience,
                check_on_train_epoch_end=True,
            )
        )
    steps = -(-data.batches_per_epoch // settings.accumulate) * settings.epochs
    module = Classifier(model, recipe.optimiser, steps, settings.epochs)
    with run_logger(recipe, folder, writes=is_first_process()) as logger:
        trainer = L.Trainer(
            **_devices(settings),
            max_epochs=settings.epochs,
            precision=PRECISION[settings.precision],
            gradient_clip_val=settings.gradient_clip,
            accumulate_grad_batches=settings.accumulate,
            logger=logger or False,
            log_every_n_steps=1,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if selecting else 0,
            reload_dataloaders_every_n_epochs=1,
            deterministic=True,
        )
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
        best = read_checkpoint(folder / (BEST if selecting else LAST))
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
        selected_on_test=recipe.data.select_on_test,
    )
    if trainer.is_global_zero:
        write_result(result, recipe, data.source, model)
    return result


def _checkpoint(path: Path, **which: Any) -> ModelCheckpoint:
    """Writes ``path`` at the end of an epoch: of every one, or of the best so far."""
    return ModelCheckpoint(
        path.parent,
        filename=path.stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        **which,
    )


def is_first_process() -> bool:
    """Whether this is the process that writes; the others are told their rank by a variable."""
    ranks = ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID")
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def compare(recipe: Recipe, folder: Path, *, progress: bool = True) -> list[RunResult]:
    """Train the recipe's network and its twins with the same data, budget and seed.

    Args:
        recipe: its ``twins`` say with which optimiser settings to train the other norms.
        folder: gets a run folder for each norm and ``comparison.png``. Runs that it holds
            already are continued, as :func:`resume` does.
        progress: show progress bars.

    Raises:
        ValueError: the recipe has no twins.
    """
    if not recipe.twins:
        raise ValueError(
            "the recipe has no twins to compare with. Add them: "
            "twins.bn.lr=0.1 twins.bn.weight_decay=1e-4 twins.none.lr=0.1"
        )
    recipes = {recipe.model.norm: recipe}
    for norm, optimiser in recipe.twins.items():
        if norm != recipe.model.norm:
            recompute = recipe.model.recompute and norm != "bn"
            model = replace(recipe.model, norm=norm, recompute=recompute)
            recipes[norm] = replace(recipe, model=model, optimiser=optimiser, twins={})
    results: list[RunResult] = []
    for norm, one in recipes.items():
        announce = progress and not results  # the data are the same for all
        if (folder / norm / CONFIG).is_file():
            results.append(_resume(folder / norm, progress, announce))
        else:
            results.append(_train(one, folder / norm, progress, announce))
    plot_comparison(
        folder / "comparison.png",
        {result.norm: result.history for result in results},
        {result.norm: result.after for result in results},
        f"{recipe.model.name} on {recipe.data.name}: {recipe.training.epochs} epochs each",
    )
    return results


def _quieten() -> None:
    """Silence Lightning's remarks about choices that are ours."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # its own use of torch
