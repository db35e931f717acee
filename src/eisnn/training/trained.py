"""Trained networks, from the folder that holds them: a run of ours or a published checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eisnn.interop import load_published
from eisnn.interop.published_config import DATASETS, read_config
from eisnn.models import SpikingNetwork, create_model
from eisnn.optim import add_homeostasis_
from eisnn.training.checkpoint import read_checkpoint
from eisnn.training.recipe import DataConfig, Recipe, load_recipe
from eisnn.training.samples import SampleFormat, sample_format

__all__ = ["Trained", "choose_device", "load_trained", "refuse_several"]

_RUN, _WEIGHTS, _PUBLISHED = "config.yaml", "weights.safetensors", "config.json"

_DATA_SETS = {
    "MNIST": "mnist",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "TinyImageNet200": "tiny-imagenet",
    "CIFAR10DVS": "cifar10-dvs",
    "DVSGesture": "dvs-gesture",
}
"""``dataset`` of a published checkpoint, and the name of :func:`eisnn.data.load_data`."""

_LOW_PRECISION = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Trained:
    """A trained network and what it was trained on.

    Attributes:
        folder: where it came from.
        model: the network, in evaluation mode.
        name: of the network, as :func:`eisnn.create_model` calls it.
        norm: ``"ei"``, ``"bn"`` or ``"none"``.
        data: the data set, with its options and its augmentation.
        format: of its samples.
        classes: a name for each logit; numbers where no name is known.
        precision: as in training.
        selected_on_test: whether its epoch was chosen on the test set; ``None`` if not known.
        device: where the network is.
    """

    folder: Path
    model: nn.Module
    name: str
    norm: str
    data: DataConfig
    format: SampleFormat
    classes: tuple[str, ...]
    precision: str
    selected_on_test: bool | None
    device: torch.device

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """``[B, num_classes]``, float32, in the precision of the training.

        Raises:
            ValueError: they are not finite, or the network cannot take the inputs.
        """
        low = _LOW_PRECISION.get(self.precision)
        if low == torch.float16 and self.device.type == "cpu":
            low = None  # it is for GPUs
        with torch.autocast(self.device.type, low, enabled=low is not None):
            logits: Tensor = self.model(inputs.to(self.device)).float()
        if not bool(logits.isfinite().all()):
            raise ValueError(
                f"the network in {self.folder} answers with NaN or infinite values: its training "
                "diverged. Train it anew, with a lower learning rate"
            )
        return logits


def choose_device(name: str) -> torch.device:
    """``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: another name, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch finds no GPU here. Use cpu or auto")
    return torch.device(name)


def load_trained(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """Read a run folder of ``eisnn train``, one of its checkpoints, or a published checkpoint.

    Args:
        folder: with ``config.yaml`` and ``weights.safetensors``, or with ``config.json`` and
            ``model.safetensors``; or a file ``RUN/checkpoints/NAME.ckpt``.
        device: where the network is wanted.

    Raises:
        FileNotFoundError: no such folder, or the run is not finished.
        ValueError: a folder of another kind, or files that are damaged or do not belong together.
    """
    device = torch.device(device)
    run = folder.parent.parent  # if it is a checkpoint
    if folder.is_file() and folder.suffix == ".ckpt" and (run / _RUN).is_file():
        state = read_checkpoint(folder)["state_dict"]
        return _run(run, folder, {k.removeprefix("model."): v for k, v in state.items()}, device)
    if folder.is_file():
        raise ValueError(f"{folder} is a file. Give the folder that holds it: {folder.parent}")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}. Give a run folder of eisnn train, such as "
            "runs/digits/ei, or the folder of a published checkpoint"
        )
    if (folder / _RUN).is_file():
        return _run(folder, folder / _WEIGHTS, _weights(folder), device)
    if (folder / _PUBLISHED).is_file():
        return _published(folder, device)
    refuse_several(folder)
    raise ValueError(
        f"{folder} is neither a run folder (with {_RUN}) nor a published checkpoint (with "
        f"{_PUBLISHED})"
    )


def refuse_several(folder: Path) -> None:
    """Raise an error that lists the runs below ``folder``, those of comparisons too, if any.

    Raises:
        ValueError: there are some.
    """
    configs = [*folder.glob(f"*/{_RUN}"), *folder.glob(f"*/*/{_RUN}")]
    if runs := sorted(str(config.parent) for config in configs):
        raise ValueError(f"{folder} holds several runs. Choose one of: {', '.join(runs)}")


def _weights(folder: Path) -> dict[str, Tensor]:
    """Those of a run that is finished."""
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_WEIGHTS}: its training is not finished. Continue it with "
            f"eisnn train --resume {folder}"
        )
    try:
        return load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is damaged or not a safetensors file ({error})") from None


def _run(folder: Path, weights: Path, state: dict[str, Tensor], device: torch.device) -> Trained:
    """The network of a run, with the ``state`` that is in ``weights``."""
    recipe = load_recipe(str(folder / _RUN))
    if broken := [key for key, tensor in state.items() if not bool(tensor.isfinite().all())]:
        raise ValueError(
            f"{weights} holds NaN or infinite values, in {broken[0]} and {len(broken) - 1} others: "
            "the training diverged. Train anew, with a lower learning rate"
        )
    form = sample_format(recipe.data)
    model, num_classes = _network(recipe, form, state, weights)
    return Trained(
        folder=folder,
        model=model.to(device).eval(),
        name=recipe.model.name,
        norm=recipe.model.norm,
        data=recipe.data,
        format=form,
        classes=_class_names(folder, form, num_classes),
        precision=recipe.training.precision,
        selected_on_test=recipe.data.select_on_test,
        device=device,
    )


def _network(
    recipe: Recipe, form: SampleFormat, state: dict[str, Tensor], weights: Path
) -> tuple[SpikingNetwork, int]:
    """The network of a recipe with its weights, and the number of its classes."""
    outputs = (state.get(f"body.output.{key}") for key in ("weight_ee", "weight"))
    num_classes = next((len(weight) for weight in outputs if weight is not None), 1)
    with torch.device("meta"):  # no memory, no random draws
        model = create_model(
            num_classes=num_classes,
            in_channels=form.channels,
            image_size=form.input_size,
            **recipe.model.arguments(),
        )
        if recipe.optimiser.homeostasis is not None:
            add_homeostasis_(model, tonic=recipe.optimiser.tonic)
    try:
        model.load_state_dict({k: v.clone() for k, v in state.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{weights} does not fit the network that {_RUN} describes: {error}"
        ) from None
    return model, num_classes


def _published(folder: Path, device: torch.device) -> Trained:
    model = load_published(folder)
    network = read_config(json.loads((folder / _PUBLISHED).read_bytes()))
    name = _DATA_SETS[network.dataset]
    small = network.events or (name == "tiny-imagenet" and network.arch != "MLP")
    data = DataConfig(
        name,
        options={"T": network.T} if network.events else {},
        augmentation=name if small else "none",
    )
    form = sample_format(data)
    return Trained(
        folder=folder,
        model=model.float().to(device),
        name=network.name,
        norm=network.norm,
        data=data,
        format=form,
        classes=_class_names(folder, form, DATASETS[network.dataset].num_classes),
        precision="float32",
        selected_on_test=None,
        device=device,
    )


def _class_names(folder: Path, form: SampleFormat, num_classes: int) -> tuple[str, ...]:
    """Of the data set; else as the run recorded them; else numbers."""
    names = form.classes or _recorded(folder / "summary.json")
    return names if len(names) == num_classes else tuple(map(str, range(num_classes)))


def _recorded(summary: Path) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(summary.read_bytes())["data"]["classes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
