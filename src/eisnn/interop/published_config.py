"""``config.json`` of a published checkpoint: which network it describes.

==================  ==========================================================================
field               value
==================  ==========================================================================
type                ``"EI-SNN"`` or ``"BN-SNN"``
arch                ``"MLP"``, ``"VGG"`` or ``"ResNet"``
num_layers          depth, as in the names of :func:`eisnn.list_models`
T                   time steps
dataset             a key of :data:`DATASETS`; decides channels, classes and an MLP's input
neuron              ``{"tau": ...}``, and ``"v_threshold"`` where it is not 1
ei_ratio            of EI-SNN: excitatory units per inhibitory one
light_classifier    of VGG: whether the output layer follows the convolutions directly
==================  ==========================================================================

All other fields (training, paths, ``dropout``, ``zero_init_residual``) do not change what
the network computes: they are kept, and not looked at.
"""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.models import SpikingNetwork, create_model
from eisnn.models.mlp import MLP_WIDTHS
from eisnn.models.resnet import RESNET_BLOCKS
from eisnn.models.vgg import VGG_STAGES
from eisnn.nn import LIF, EIModule

__all__ = ["DATASETS", "PublishedNetwork", "describe", "read_config"]


class Dataset(NamedTuple):
    """What a network must know of its data."""

    in_channels: int
    num_classes: int
    mlp_side: int | None
    """Side of the images that the MLPs take; no MLP takes event frames."""


DATASETS = {
    "MNIST": Dataset(1, 10, 28),
    "CIFAR10": Dataset(3, 10, 32),
    "CIFAR100": Dataset(3, 100, 32),
    "TinyImageNet200": Dataset(3, 200, 64),
    "CIFAR10DVS": Dataset(2, 10, None),
    "DVSGesture": Dataset(2, 11, None),
}
"""The data of the published networks."""

NORMS = {"EI-SNN": "ei", "BN-SNN": "bn"}
"""``type`` in ``config.json``, and ``norm`` of :func:`eisnn.create_model`."""

DEPTHS = {
    "MLP": [int(name.removeprefix("mlp")) for name in MLP_WIDTHS],
    "VGG": [int(name.removeprefix("vgg")) for name in VGG_STAGES],
    "ResNet": [int(name.removeprefix("resnet")) for name in RESNET_BLOCKS],
}
"""``arch`` in ``config.json``, and its ``num_layers``."""


@dataclass(frozen=True)
class PublishedNetwork:
    """The network that a ``config.json`` describes; fields as there."""

    type: str
    arch: str
    num_layers: int
    T: int
    dataset: str
    tau: float
    v_threshold: float
    ei_ratio: int
    light_classifier: bool

    def __str__(self) -> str:
        return f"{self.type} {self.name} for {self.dataset}"

    @property
    def name(self) -> str:
        """As :func:`eisnn.create_model` calls it."""
        return f"{self.arch.lower()}{self.num_layers}"

    @property
    def norm(self) -> str:
        """As :func:`eisnn.create_model` calls it."""
        return NORMS[self.type]

    @property
    def classifier(self) -> str:
        """As :func:`eisnn.create_model` calls it."""
        return "light" if self.light_classifier else "full"

    @property
    def events(self) -> bool:
        """Whether the data bring their own time axis."""
        return "DVS" in self.dataset

    def skeleton(self) -> SpikingNetwork:
        """The network on the ``meta`` device: shapes without values or random draws."""
        data = DATASETS[self.dataset]
        with torch.device("meta"):
            return create_model(
                self.name,
                num_classes=data.num_classes,
                in_channels=data.in_channels,
                image_size=data.mlp_side or 32,
                T=self.T,
                norm=self.norm,
                ei_ratio=self.ei_ratio,
                tau=self.tau,
                v_threshold=self.v_threshold,
                classifier=self.classifier,
            )


class _Fields:
    """Takes fields out of a JSON object and collects what is wrong with them."""

    def __init__(self, values: Mapping[str, Any], problems: list[str], prefix: str = "") -> None:
        self.values = values
        self.problems = problems
        self.prefix = prefix

    def take(self, name: str, rule: str, allowed: Callable[[Any], bool]) -> Any:
        """The value of a field; ``None``, and one more problem, if it is not allowed."""
        if name not in self.values:
            self.problems.append(f"{self.prefix}{name} is missing: it must be {rule}")
        elif not allowed(self.values[name]):
            got = reprlib.repr(self.values[name])
            self.problems.append(f"{self.prefix}{name} must be {rule}, got {got}")
        else:
            return self.values[name]
        return None

    def choice(self, name: str, options: Iterable[Any], where: str = "") -> Any:
        """One of ``options``, of the same type (``true`` is not 1)."""
        known = [(type(option), option) for option in options]
        rule = f"one of {', '.join(json.dumps(option) for _, option in known)}{where}"
        return self.take(name, rule, lambda value: (type(value), value) in known)

    def count(self, name: str) -> Any:
        """A positive whole number."""
        return self.take(name, "a whole number >= 1", lambda v: type(v) is int and v >= 1)

    def number(self, name: str, rule: str, allowed: Callable[[float], bool]) -> Any:
        """A finite number."""
        return self.take(
            name,
            f"a number {rule}",
            lambda v: type(v) in (int, float) and v <= sys.float_info.max and allowed(v),
        )


def read_config(fields: Mapping[str, Any]) -> PublishedNetwork:
    """The network that the fields of a ``config.json`` describe.

    Raises:
        ValueError: lists every field that is missing or has a value that is not allowed.
    """
    problems: list[str] = []
    top = _Fields(fields, problems)
    kind = top.choice("type", NORMS)
    arch = top.choice("arch", DEPTHS)
    depth = top.choice("num_layers", DEPTHS[arch], f" for {arch}") if arch else 0
    T = top.count("T")
    if arch == "MLP":
        images = [name for name, data in DATASETS.items() if data.mlp_side]
        dataset = top.choice("dataset", images, " for MLP")
    else:
        dataset = top.choice("dataset", DATASETS)
    neuron = top.take("neuron", 'an object such as {"tau": 2.0}', lambda v: isinstance(v, dict))
    tau, v_threshold = _read_neuron(neuron, problems) if neuron is not None else (0, 0)
    ei_ratio = top.count("ei_ratio") if kind == "EI-SNN" else 1
    light = top.choice("light_classifier", (True, False)) if arch == "VGG" else True
    if problems:
        raise ValueError("; ".join(problems))
    return PublishedNetwork(kind, arch, depth, T, dataset, tau, v_threshold, ei_ratio, light)


def _read_neuron(fields: Mapping[str, Any], problems: list[str]) -> tuple[Any, Any]:
    neuron = _Fields({"v_threshold": 1.0, **fields}, problems, "neuron.")
    problems += [
        f"neuron.{name} is not known: a neuron has tau and v_threshold"
        for name in fields
        if name not in ("tau", "v_threshold")
    ]
    tau = neuron.number("tau", ">= 1", lambda v: v >= 1)
    return tau, neuron.number("v_threshold", "> 0", lambda v: v > 0)


def describe(model: SpikingNetwork) -> dict[str, Any]:
    """The fields of a ``config.json`` that can be read off a model: all but ``dataset``.

    Raises:
        ValueError: the model has neither E-I circuits nor BatchNorm.
    """
    modules = dict(model.body.named_modules())
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, EIModule | nn.Conv2d | nn.Linear)
    }
    circuits = [layer for layer in layers.values() if isinstance(layer, EIModule)]
    if not circuits and not any(isinstance(m, _BatchNorm) for m in modules.values()):
        raise ValueError(
            "a published network has E-I circuits or BatchNorm, this one has neither. Build it "
            "with create_model(..., norm='ei') or norm='bn'"
        )
    arch = "ResNet" if "stage1_1" in modules else "VGG" if "conv1" in modules else "MLP"
    light = arch == "VGG" and "linear1" not in modules
    depth = sum("shortcut" not in name for name in layers)  # a light VGG counts two more
    fields: dict[str, Any] = {
        "type": "EI-SNN" if circuits else "BN-SNN",
        "arch": arch,
        "num_layers": depth + 2 * light,
        "T": model.T,
        "neuron": _describe_neuron(modules.values()),
    }
    if circuits:
        fields["ei_ratio"] = _ei_ratio(circuits)
    if arch == "VGG":
        fields |= {"light_classifier": light, "dropout": 0.0}
    if arch == "ResNet":
        fields["zero_init_residual"] = False
    return fields


def _describe_neuron(modules: Iterable[nn.Module]) -> dict[str, float]:
    lif = next((module for module in modules if isinstance(module, LIF)), LIF())
    threshold = {} if lif.v_threshold == 1 else {"v_threshold": lif.v_threshold}
    return {"tau": lif.tau, **threshold}


def _ei_ratio(circuits: Iterable[EIModule]) -> int:
    """The smallest ratio that gives each circuit the inhibitory units that it has."""
    sizes = {tuple(circuit.weight_ei.shape) for circuit in circuits}
    for ratio in range(1, max(n_e for n_e, _ in sizes) + 1):
        if all(n_i == max(1, n_e // ratio) for n_e, n_i in sizes):
            return ratio
    raise ValueError(
        "the circuits of a published network share one ei_ratio, those of this one do not: "
        f"(excitatory, inhibitory) units are {sorted(sizes)}"
    )
