"""Layers in sequence over time: circuits with their neurons in one operation, and streaming.

Legend: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eisnn.nn.circuit import EIConv2d, EILinear, EIModule
from eisnn.nn.lif import LIF
from eisnn.nn.pool import AvgPool2d

__all__ = ["Spiking", "Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """A module that can be run step by step, its state in the caller's hands."""

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class Spiking(nn.Sequential):
    """Modules over ``[T, B, ...]`` applied in order, fused where that changes nothing.

    A circuit followed by its neurons runs as one operation, with the average pool that may come
    after them. If somebody looks at the circuit or the neurons (a hook is registered on one),
    all of them run one after the other, and so does the pool if somebody looks at that: what
    there is to see is there, the integrated current and the spikes. The values are the same.

    Args:
        *modules: as for :class:`torch.nn.Sequential`.

    Attributes:
        recompute: keep only what flows between blocks for the backward pass and compute the
            rest once more (activation checkpointing), for long sequences; off by default. A
            block is a circuit, its neurons and what follows up to the next circuit, or a
            residual block. Results are the same; a step takes about a third longer. Not for
            layers whose forward pass has side effects, such as BatchNorm's statistics.
    """

    recompute: bool = False

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, ...]`` to ``[T, B, ...]``."""
        if not (self.recompute and torch.is_grad_enabled()):
            return _run(x_seq, *self)
        for block in _blocks(self):
            x_seq = checkpoint(_run, x_seq, *block, use_reentrant=False, preserve_rng_state=False)
        return x_seq

    def step(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, Any]:
        """One time step.

        Args:
            x: ``[B, ...]``.
            state: what the previous step returned; ``None`` at the start of a sequence.

        Returns:
            the output ``[B, ...]`` and the new state, to be handed to the next step.
        """
        states = iter([None] * len(self) if state is None else state)
        after = []
        for module in self:
            before = next(states)
            if isinstance(module, Stateful):
                x, before = module.step(x, before)
            else:
                x = module(x.unsqueeze(0)).squeeze(0)
            after.append(before)
        return x, tuple(after)


def _run(x_seq: Tensor, *modules: nn.Module) -> Tensor:
    following = [*modules[1:], None, None]
    position = 0
    while position < len(modules):
        module, second, third = modules[position], following[position], following[position + 1]
        if not (_is_circuit(module) and _is_neurons(second)):
            x_seq = module(x_seq)
            position += 1
        elif _takes_pool(module) and _is_pool(third):
            x_seq = module.spikes(x_seq, second, third)
            position += 3
        else:
            x_seq = module.spikes(x_seq, second)
            position += 2
    return x_seq


def _blocks(modules: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """A new block begins at each circuit, and at each module that has some inside."""
    blocks: list[list[nn.Module]] = [[]]
    for module in modules:
        if any(isinstance(inner, EIModule) for inner in module.modules()):
            blocks.append([])
        blocks[-1].append(module)
    return [block for block in blocks if block]


def _is_circuit(module: nn.Module) -> TypeGuard[EIModule]:
    return (
        isinstance(module, (EILinear, EIConv2d))
        and type(module).forward in (EILinear.forward, EIConv2d.forward)  # nobody's own
        and not _watched(module)
    )


def _is_neurons(module: nn.Module | None) -> TypeGuard[LIF]:
    return isinstance(module, LIF) and type(module).forward is LIF.forward and not _watched(module)


def _takes_pool(module: EIModule) -> bool:
    return isinstance(module, EIConv2d) and type(module).spikes is EIConv2d.spikes


def _is_pool(module: nn.Module | None) -> TypeGuard[AvgPool2d]:
    return (
        isinstance(module, AvgPool2d)
        and type(module).forward is AvgPool2d.forward
        and not _watched(module)
    )


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
