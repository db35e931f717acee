"""Layers in sequence over time: circuits with their neurons in one operation, and streaming.

Legend: T time, B batch.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

from eisnn.nn.circuit import EIConv2d, EILinear, EIModule
from eisnn.nn.lif import LIF

__all__ = ["Spiking", "Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """A module that can be run step by step, its state in the caller's hands."""

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class Spiking(nn.Sequential):
    """Modules over ``[T, B, ...]`` applied in order, fused where that changes nothing.

    A circuit followed by its neurons runs as one operation. If somebody looks at either (a
    hook is registered on it), they run one after the other, so that what there is to see is
    there: the integrated current and the spikes. The values are the same.

    Args:
        *modules: as for :class:`torch.nn.Sequential`.
    """

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, ...]`` to ``[T, B, ...]``."""
        modules = list(self)
        while modules:
            module = modules.pop(0)
            following = modules[0] if modules else None
            if _is_circuit(module) and _is_neurons(following):
                x_seq = module.spikes(x_seq, following)
                modules.pop(0)
            else:
                x_seq = module(x_seq)
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


def _is_circuit(module: nn.Module) -> TypeGuard[EIModule]:
    return (
        isinstance(module, (EILinear, EIConv2d))
        and type(module).forward in (EILinear.forward, EIConv2d.forward)  # nobody's own
        and not _watched(module)
    )


def _is_neurons(module: nn.Module | None) -> TypeGuard[LIF]:
    return isinstance(module, LIF) and type(module).forward is LIF.forward and not _watched(module)


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
