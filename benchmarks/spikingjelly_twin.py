"""The BatchNorm twin built from SpikingJelly's layers, with the same weights."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.nn import LIF, AvgPool2d, TimeWise

__all__ = ["implementation", "spikingjelly_twin", "unavailable"]


def unavailable() -> str | None:
    """Why there is no SpikingJelly to compare with; ``None`` if there is."""
    try:
        version = importlib.metadata.version("spikingjelly")
        importlib.import_module("spikingjelly.activation_based.neuron")
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        return f"SpikingJelly is not installed, see benchmarks/README.md ({error})"
    return None if version.startswith("2.") else f"needs SpikingJelly 2, found {version}"


def implementation(device: torch.device) -> str:
    """Which of its implementations SpikingJelly chose for its neurons: the fastest it has."""
    from spikingjelly.activation_based import functional

    found: dict[str, Any] = functional.neuron.neuron_implementation("lif", device)
    return str(found["implementation"])


class SpikingJellyNetwork(nn.Module):
    """Forgets the potentials of the batch before, as SpikingJelly wants it, and runs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self.network)
        logits: Tensor = self.network(x)
        return logits


def spikingjelly_twin(twin: nn.Module) -> nn.Module:
    """The same network in SpikingJelly's multi-step mode.

    Args:
        twin: a network made with ``norm="bn"``; it is left as it is.
    """
    twin = copy.deepcopy(twin)
    _replace_children(twin)
    return SpikingJellyNetwork(twin)


def _replace_children(parent: nn.Module) -> None:
    for name, child in parent.named_children():
        replacement = _replacement(child)
        if replacement is None:
            _replace_children(child)
        else:
            setattr(parent, name, replacement)


def _replacement(module: nn.Module) -> nn.Module | None:
    """What SpikingJelly has in its place; ``None`` for a module that only holds others."""
    from spikingjelly.activation_based import layer, neuron, surrogate

    if isinstance(module, TimeWise):
        return nn.Sequential(*(_replacement(child) or child for child in module))
    if isinstance(module, LIF):
        return neuron.LIFNode(  # type: ignore[no-any-return]
            tau=module.tau,
            decay_input=False,
            v_threshold=module.v_threshold,
            v_reset=None,
            surrogate_function=surrogate.Sigmoid(4.0),
            detach_reset=True,
            step_mode="m",
        )
    if isinstance(module, AvgPool2d):
        return layer.AvgPool2d(module.size, step_mode="m")  # type: ignore[no-any-return]
    new: nn.Module
    if isinstance(module, nn.Conv2d):
        new = layer.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            bias=module.bias is not None,
            step_mode="m",
        )
    elif isinstance(module, nn.Linear):
        new = layer.Linear(module.in_features, module.out_features, step_mode="m")
    elif isinstance(module, nn.BatchNorm2d):
        new = layer.BatchNorm2d(module.num_features, step_mode="m")
    elif isinstance(module, nn.BatchNorm1d):
        new = layer.BatchNorm1d(module.num_features, step_mode="m")
    else:
        return None
    new.load_state_dict(module.state_dict())
    return new.to(next(module.parameters()).device)
