"""What the layers of a network do with a batch: currents, divisors, firing rates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eisnn.nn import LIF, EIModule

__all__ = ["HISTOGRAM_EDGES", "LayerActivity", "observe"]

HISTOGRAM_EDGES: tuple[float, ...] = tuple(round(-4 + 0.1 * i, 1) for i in range(81))
"""Bins of the integrated current, in units of the threshold."""


@dataclass(frozen=True)
class LayerActivity:
    """One layer of spiking neurons over one batch and all its time steps."""

    layer: str
    """Name of the neurons' module."""
    rate: float
    """Spikes per neuron and time step, 0 to 1."""
    silent: float
    """Share of neurons that never fired."""
    saturated: float
    """Share of neurons that fired at every step for every sample."""
    mean: float
    """Of the integrated current, the input of the neurons."""
    std: float
    """Of the integrated current."""
    density: tuple[float, ...]
    """Probability density of the integrated current in each bin of ``HISTOGRAM_EDGES``; what
    lies outside is missing from the sum."""
    smallest_divisor: float | None
    """Smallest divisor of an E-I layer, before gain; ``None`` for other layers, and where no
    inhibition arrived at all."""


@torch.no_grad()
def observe(model: nn.Module, batch: Tensor) -> list[LayerActivity]:
    """Run ``model`` on ``batch`` in evaluation mode and report every layer of neurons.

    The model, its mode and its parameters are left as they were.

    Args:
        model: any module with :class:`eisnn.nn.LIF` neurons.
        batch: what the model takes.

    Returns:
        one entry for each layer of neurons, in the order in which they ran.
    """
    seen: list[LayerActivity] = []
    divisors: list[float] = []  # of the E-I layers since the last neurons

    def on_circuit(module: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, EIModule)
        divisor = module.currents(args[0]).divisor
        if divisor is not None:
            divisors.append(divisor.amin().item())

    def on_neurons(name: str, current: Tensor, spikes: Tensor) -> None:
        smallest = min(divisors, default=torch.inf)
        divisors.clear()
        per_neuron = spikes.flatten(0, 1).float()  # [T*B, ...]
        current = current.float()
        edges = torch.tensor(HISTOGRAM_EDGES)
        counts = torch.histc(current.cpu(), len(edges) - 1, edges[0].item(), edges[-1].item())
        density = counts / current.numel() / (edges[1] - edges[0])
        seen.append(
            LayerActivity(
                layer=name.removeprefix("body."),
                rate=per_neuron.mean().item(),
                silent=(per_neuron.amax(0) == 0).float().mean().item(),
                saturated=(per_neuron.amin(0) == 1).float().mean().item(),
                mean=current.mean().item(),
                std=current.std().item(),
                density=tuple(density.tolist()),
                smallest_divisor=smallest if smallest < torch.inf else None,
            )
        )

    handles = []
    training = model.training
    for name, module in model.named_modules():
        if isinstance(module, EIModule):
            handles.append(module.register_forward_hook(on_circuit))
        elif isinstance(module, LIF):
            handles.append(
                module.register_forward_hook(
                    lambda _, args, spikes, name=name: on_neurons(name, args[0], spikes)
                )
            )
    try:
        model.eval()
        model(batch)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return seen
