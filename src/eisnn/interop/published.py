"""Checkpoints in the format of the paper's published ones.

A checkpoint is a folder with ``config.json`` (:mod:`eisnn.interop.published_config`) and
``model.safetensors`` (:mod:`eisnn.interop.published_layout`). Pickled weights are not read:
they can run code.

>>> model = eisnn.interop.load_published("checkpoints/cifar10-vgg8")
>>> logits = model(images)                             # [B, C, H, W] in [0, 1]
>>> eisnn.interop.save_published(model, "checkpoints/fine-tuned")

(Networks of Liu, Ding & Yu, ICLR 2026, arXiv 2509.23253.)
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eisnn.initialise import is_initialised
from eisnn.interop.published_config import PublishedNetwork, describe, read_config
from eisnn.interop.published_layout import entries
from eisnn.models import SpikingNetwork
from eisnn.nn import LIF, EIModule, nonnegative_parameters, project_

try:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
except ImportError as error:
    raise ImportError(
        "published checkpoints are safetensors files, and the package that reads them is not "
        "installed. Run: pip install 'eisnn[interop]'"
    ) from error

__all__ = ["Origin", "load_published", "published_state_dict", "save_published"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_ORIGIN = "published"  # the attribute of a loaded model

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass
class Origin:
    """What a checkpoint holds beyond the network: the attribute ``published`` of a loaded model."""

    config: dict[str, Any]
    """All fields of ``config.json``."""
    unused: dict[str, Tensor]
    """The tensors that no computation uses, in their official shapes, by the key that they
    would have in our ``state_dict``."""


def load_published(path: str | os.PathLike[str]) -> SpikingNetwork:
    """Read a published checkpoint.

    Negative entries of weights under Dale's law become zero, as the published code makes them
    in its forward pass. The network has the dtype of the file and is in evaluation mode.
    Event networks take ``[B, T, 2, H, W]``, as all of ours do; the published ResNets took
    ``[T, B, ...]``.

    The model's attribute ``published`` (an :class:`Origin`) keeps the configuration and the
    gains and bias of the output layer, which nothing uses, for :func:`save_published`.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors``.

    Returns:
        a network as :func:`eisnn.create_model` builds it, on the CPU.

    Raises:
        FileNotFoundError: no such folder, or a file is missing.
        ValueError: a file is damaged; ``config.json`` lacks a field or has a value that is not
            allowed; the tensors are not those of the network it describes. The message lists
            every such field, or every key that is missing, extra, of another shape or dtype,
            or that holds NaN or infinite values.
    """
    folder = Path(path)
    config = _read_json(_existing(folder, CONFIG))
    try:
        network = read_config(config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} does not describe a network: {error}") from None
    file = _existing(folder, WEIGHTS)
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"{file} is not a complete safetensors file ({error}). Fetch it again"
        ) from error
    table = list(entries(network))
    problems = list(_mismatches({entry.official: entry.like for entry in table}, found))
    if problems:
        raise ValueError(
            f"{file} does not hold the tensors of {network}, which {CONFIG} describes. Check "
            f"that the two files belong together:{_listed(problems)}"
        )

    model = network.skeleton()
    # Clones, because the tensors of load_file are views of the mapped file.
    unused = {entry.ours: found[entry.official].clone() for entry in table}
    state = {k: unused.pop(k).reshape(like.shape) for k, like in model.state_dict().items()}
    broken = _not_finite(state)
    if broken:
        official = {entry.ours: entry.official for entry in table}
        raise ValueError(
            f"{file} holds NaN or infinite values: the training of this network diverged. "
            f"They are in:{_listed(official[key] for key in broken)}"
        )
    model.load_state_dict(state, assign=True)
    project_(model)
    setattr(model, _ORIGIN, Origin(config, unused))
    return model.eval()


def published_state_dict(
    model: SpikingNetwork, *, config: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The tensors of a model under their official names and in official order and shape.

    Args:
        model: as for :func:`save_published`.
        config: as for :func:`save_published`.

    Returns:
        tensors on the CPU, which may share memory with the model's.

    Raises:
        as :func:`save_published`.
    """
    _, network = _resolve(model, config)
    return _official_state(model, network)


def save_published(
    model: SpikingNetwork,
    folder: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a published checkpoint.

    What :func:`load_published` read is written back bit for bit, negative weights excepted.
    For a network that was never loaded, the unused tensors of the output layer are one (gains)
    and zero (bias), and the configuration is read off the model; only ``dataset`` cannot be:

    >>> save_published(model, "mine", config={"dataset": "CIFAR10"})

    The format has no field for the surrogate gradient: a loaded network has the default one.

    Args:
        model: a network of :func:`eisnn.create_model` with ``norm="ei"`` or ``"bn"`` and
            ``width=1``, for one of the published data sets; initialised.
        folder: created if need be. Both files are complete before they replace older ones.
        config: fields of ``config.json`` to add to, or to put in place of, those that the
            model was loaded with or that were read off it.

    Raises:
        ValueError: the network is not a published one, or not the one that ``config``
            describes; or it holds NaN, infinite or, against Dale's law, negative weights.
            Nothing is written then.
        RuntimeError: the network is not initialised.
    """
    fields, network = _resolve(model, config)
    text = json.dumps(fields, indent=4) + "\n"
    state = _official_state(model, network)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
        save_file(state, Path(temporary, WEIGHTS), metadata={"format": "pt"})
        Path(temporary, CONFIG).write_text(text, encoding="utf-8")
        shutil.copymode(Path(temporary, CONFIG), Path(temporary, WEIGHTS))  # as the umask says
        for name in (WEIGHTS, CONFIG):
            os.replace(Path(temporary, name), folder / name)


def _origin(model: SpikingNetwork) -> Origin | None:
    origin: Origin | None = getattr(model, _ORIGIN, None)
    return origin


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"a published checkpoint is a folder with {CONFIG} and {WEIGHTS}; there is no "
            f"folder {str(folder)!r}"
        )
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"a published checkpoint is a folder with {CONFIG} and {WEIGHTS}; {str(folder)!r} "
            f"has no file {name}. (Pickled weights, .pt or .bin, are not read: they can run "
            "code. Convert them with safetensors first)"
        )
    return folder / name


def _read_json(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}. Fetch it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(config).__name__}")
    return config


def _resolve(
    model: SpikingNetwork, config: Mapping[str, Any] | None
) -> tuple[dict[str, Any], PublishedNetwork]:
    """The configuration of a model and the network that it describes, checked to be the same."""
    if not isinstance(model, SpikingNetwork):
        raise ValueError(
            f"only networks of create_model can be published ones, got {type(model).__name__}. "
            "Pass the network itself, without a wrapper (model.module)"
        )
    if not is_initialised(model):
        raise RuntimeError(
            "the network has no weights yet. Call eisnn.ei_init_(model, batch) with a batch of "
            "training data and train it, or load a state_dict"
        )
    origin = _origin(model)
    fields = {**(origin.config if origin else describe(model)), **(config or {})}
    try:
        network = read_config(fields)
    except ValueError as error:
        raise ValueError(
            f"the configuration does not describe a published network: {error}. Pass fields "
            'that are missing or differ, as in config={"dataset": "CIFAR10"}'
        ) from None
    problems = list(_settings(model, network))
    problems += _mismatches(network.skeleton().state_dict(), model.state_dict())
    if problems:
        raise ValueError(
            f"the model is not {network}, which the configuration describes. Published networks "
            "have width 1 and the channels and classes of their data set; pass fields that "
            f"differ as config={{...}}:{_listed(problems)}"
        )
    return fields, network


def _settings(model: SpikingNetwork, network: PublishedNetwork) -> Iterator[str]:
    """Where the model differs from the configuration in what its tensors do not show."""
    if model.T != network.T:
        yield f"T must be {network.T}, the model has {model.T}"
    neurons = {(m.tau, m.v_threshold) for m in model.modules() if isinstance(m, LIF)}
    for tau, v_threshold in sorted(neurons - {(network.tau, network.v_threshold)}):
        yield (
            f"neurons must have tau {network.tau} and v_threshold {network.v_threshold}, the "
            f"model has some with tau {tau} and v_threshold {v_threshold}"
        )
    for name, layer in model.named_modules():
        if isinstance(layer, EIModule) and not layer.options.fused:
            yield f"circuits must compute the published method, {name} has {layer.options}"


def _official_state(model: SpikingNetwork, network: PublishedNetwork) -> dict[str, Tensor]:
    ours = model.state_dict()
    broken = _not_finite(ours)
    if broken:
        raise ValueError(
            "the model holds NaN or infinite values: its training diverged. They are in:"
            f"{_listed(broken)}"
        )
    negative = [name for name, p in nonnegative_parameters(model) if bool((p < 0).any())]
    if negative:
        raise ValueError(
            "these weights are under Dale's law (>= 0) and hold negative values, which a "
            f"reader would set to zero. Call eisnn.project_(model) first:{_listed(negative)}"
        )
    origin = _origin(model)
    unused = origin.unused if origin else {}
    dtype = next(tensor.dtype for tensor in ours.values())
    state = {}
    for entry in entries(network):
        if entry.ours in ours:
            tensor = ours[entry.ours].reshape(entry.like.shape)
        elif entry.ours in unused:
            tensor = unused[entry.ours].to(dtype)
        else:
            value = 0.0 if entry.ours.endswith("bias") else 1.0
            tensor = torch.full(entry.like.shape, value, dtype=dtype)
        state[entry.official] = tensor.cpu().contiguous()
    return state


def _mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    """Every key that is missing, extra, of another shape or dtype.

    Floating-point tensors may have any one dtype of ``FLOATS``, all the same.
    """
    usable = (found[key].dtype for key in expected if key in found)
    common = next((dtype for dtype in usable if dtype in FLOATS), torch.float32)
    for key, like in expected.items():
        if key not in found:
            yield f"{key} {list(like.shape)} is missing"
            continue
        tensor = found[key]
        dtype = common if like.is_floating_point() else like.dtype
        if tensor.shape != like.shape:
            yield f"{key} must have shape {list(like.shape)}, got {list(tensor.shape)}"
        if tensor.dtype != dtype:
            yield f"{key} must be {dtype}, got {tensor.dtype}"
    for key, tensor in found.items():
        if key not in expected:
            yield f"{key} {list(tensor.shape)} does not belong there"


def _not_finite(state: Mapping[str, Tensor]) -> list[str]:
    return [key for key, tensor in state.items() if not bool(tensor.isfinite().all())]


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)
