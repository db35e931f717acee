"""Where the published code keeps each tensor: our names and the official ones, side by side.

An official E-I layer is two modules, the weights and the "norm" that inhibits and integrates;
ours is one circuit. The official gains and biases have axes of size one, ``[n, 1, 1]`` for
convolutions and ``[1, n]`` for linear layers; ours are ``[n]``. The official output layer
carries gains and a bias that nothing uses; ours has none.

In ``layers.N`` every module of the official network counts, also those without tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from eisnn.interop.published_config import PublishedNetwork
from eisnn.models.mlp import MLP_WIDTHS
from eisnn.models.resnet import RESNET_BLOCKS
from eisnn.models.vgg import CLASSIFIERS, VGG_STAGES
from eisnn.nn import EIConv2d, EIModule, TimeWise

__all__ = ["Entry", "Place", "entries", "places"]


class Place(NamedTuple):
    """Where one layer is."""

    ours: str
    """Name of our module."""
    weights: str
    """Official module with the weights."""
    norm: str
    """Official module after it; an output layer without inhibition has none of that name."""


def places(network: PublishedNetwork) -> Iterator[Place]:
    """All layers with tensors, in official order, which is the order of ours."""
    return {"MLP": _mlp, "VGG": _vgg, "ResNet": _resnet}[network.arch](network)


def _mlp(network: PublishedNetwork) -> Iterator[Place]:
    n = 2  # add time, flatten and merge
    for i, _ in enumerate(MLP_WIDTHS[network.name], 1):
        yield Place(f"body.linear{i}", f"layers.{n}", f"layers.{n + 1}")
        n += 5  # linear, norm, split, LIF, merge
    yield Place("body.output", f"layers.{n}", f"layers.{n + 1}")


def _vgg(network: PublishedNetwork) -> Iterator[Place]:
    n = 1 if network.events else 2  # add time (images only), merge
    i = 0
    for stage in VGG_STAGES[network.name]:
        for _ in stage:
            i += 1
            yield Place(f"body.conv{i}", f"layers.{n}", f"layers.{n + 1}")
            n += 6 if network.norm == "ei" else 5  # conv, norm, split, LIF, (dropout,) merge
        n += 1  # pool
    n += 1  # flatten
    for i, _ in enumerate(CLASSIFIERS[network.classifier], 1):
        yield Place(f"body.linear{i}", f"layers.{n}", f"layers.{n + 1}")
        n += 6  # linear, norm, split, LIF, dropout, merge
    yield Place("body.output", f"layers.{n}", f"layers.{n + 1}")


def _resnet(network: PublishedNetwork) -> Iterator[Place]:
    norm = "norm" if network.norm == "ei" else "bn"
    blocks, bottleneck = RESNET_BLOCKS[network.name]
    yield Place("body.conv", "conv1", f"{norm}1")
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            ours, theirs = f"body.stage{stage}_{block + 1}", f"layer{stage}.{block}"
            for i in range(1, 4 if bottleneck else 3):
                yield Place(f"{ours}.main.conv{i}", f"{theirs}.conv{i}", f"{theirs}.{norm}{i}")
            if block == 0 and (stage > 1 or bottleneck):
                down = f"{theirs}.downsample"
                yield Place(f"{ours}.shortcut.conv", f"{down}.0", f"{down}.1")
    yield Place("body.output", "fc", "final_ei_norm")


class Entry(NamedTuple):
    """One tensor of a published checkpoint."""

    ours: str
    """Key in our ``state_dict``; there is no such key if nothing uses the tensor."""
    official: str
    """Key in ``model.safetensors``."""
    like: Tensor
    """Its official shape and our dtype, on the ``meta`` device."""


def entries(network: PublishedNetwork) -> Iterator[Entry]:
    """Every tensor of a network, in official order."""
    skeleton = network.skeleton()
    for place in places(network):
        layer = skeleton.get_submodule(place.ours)
        named = _circuit(layer, place) if isinstance(layer, EIModule) else _signed(layer, place)
        for ours, official, like in named:
            yield Entry(f"{place.ours}.{ours}", official, like)


def _circuit(layer: EIModule, place: Place) -> Iterator[tuple[str, str, Tensor]]:
    conv = isinstance(layer, EIConv2d)
    state = layer.state_dict()
    n_e, n_i = state["weight_ei"].shape
    for name in ("weight_ee", "weight_ie"):
        official = name.replace("weight", "conv") + ".weight" if conv else name
        yield name, f"{place.weights}.{official}", state[name]
    yield "weight_ei", f"{place.norm}.weight_ei", state["weight_ei"]
    for name, n in (("gain_i", n_i), ("gain_e", n_e), ("bias", n_e)):
        shape = (n, 1, 1) if conv else (1, n)
        yield name, f"{place.norm}.{name}", state["weight_ei"].new_empty(shape)


def _signed(layer: nn.Module, place: Place) -> Iterator[tuple[str, str, Tensor]]:
    timewise = isinstance(layer, TimeWise)  # weights and BatchNorm; alone: an output layer
    modules = list(layer.children()) if timewise else [layer]
    kind = "conv" if isinstance(modules[0], nn.Conv2d) else "linear"
    homes = (f"{place.weights}.{kind}", f"{place.norm}.bn")
    for i, (module, home) in enumerate(zip(modules, homes, strict=False)):
        for name, tensor in module.state_dict().items():
            yield (f"{i}.{name}" if timewise else name), f"{home}.{name}", tensor
