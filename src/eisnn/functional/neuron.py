r"""Leaky integrate-and-fire neurons with surrogate gradients.

With input current ``x``, membrane potential ``v`` and threshold ``theta``::

    h[t] = (1 - 1/tau) v[t-1] + x[t]
    s[t] = H(h[t] - theta)                  H(0) = 1: a neuron at the threshold fires
    v[t] = h[t] - theta * s[t]              soft reset, cut from the graph

The input is not scaled by ``1/tau`` and the reset subtracts; both differ from the defaults
of SpikingJelly (``decay_input=True``, ``v_reset=0``). The potential is kept in float32 or
better. A NaN current gives a NaN spike, so that a broken layer never passes for a silent one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "SURROGATES",
    "ArcTan",
    "LeakyReLU",
    "Sigmoid",
    "Surrogate",
    "heaviside",
    "lif_multistep",
    "lif_step",
]


class Surrogate(Protocol):
    """A smooth stand-in for the step function in the backward pass.

    ``z = h - theta`` is the distance to the threshold, of any shape; both methods return its
    shape. Only :meth:`derivative` is used in training; :meth:`primitive` is the function it
    is the derivative of.
    """

    def primitive(self, z: Tensor) -> Tensor: ...

    def derivative(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Sigmoid:
    """``1 / (1 + exp(-alpha z))``; the method's surrogate."""

    alpha: float = 4.0

    def primitive(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha * z)

    def derivative(self, z: Tensor) -> Tensor:
        s = torch.sigmoid(self.alpha * z)
        return self.alpha * s * (1 - s)


@dataclass(frozen=True)
class ArcTan:
    """``arctan(pi/2 alpha z) / pi + 1/2`` (Fang et al. 2021, arXiv 2007.05785)."""

    alpha: float = 2.0

    def primitive(self, z: Tensor) -> Tensor:
        return torch.atan(math.pi / 2 * self.alpha * z) / math.pi + 0.5

    def derivative(self, z: Tensor) -> Tensor:
        return self.alpha / 2 / (1 + (math.pi / 2 * self.alpha * z).square())


@dataclass(frozen=True)
class LeakyReLU:
    """``z`` for ``z >= 0``, ``leak z`` below."""

    leak: float = 0.01

    def primitive(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, z, self.leak * z)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, torch.ones_like(z), self.leak)


SURROGATES: Mapping[str, Surrogate] = MappingProxyType(
    {"sigmoid": Sigmoid(), "arctan": ArcTan(), "leaky_relu": LeakyReLU()}
)
"""The surrogates that can be asked for by name, with the field's usual widths."""


class _Heaviside(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, surrogate: Surrogate) -> Tensor:
        return torch.where(z.isnan(), z, (z >= 0).to(z.dtype))

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inputs[0])
        ctx.surrogate = inputs[1]

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (z,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(z), None


def heaviside(z: Tensor, surrogate: Surrogate) -> Tensor:
    """``H(z)``, one where ``z >= 0`` and zero below, with the surrogate's derivative.

    Args:
        z: distance to the threshold, any shape.
        surrogate: supplies the derivative.

    Returns:
        zeros and ones in the shape and dtype of ``z``; NaN stays NaN.
    """
    return _Heaviside.apply(z, surrogate)  # type: ignore[no-any-return, no-untyped-call]


def lif_step(
    x: Tensor,
    v: Tensor,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    surrogate: Surrogate = SURROGATES["sigmoid"],
) -> tuple[Tensor, Tensor]:
    """One time step of the equations above.

    Args:
        x: input current, ``[B, ...]``.
        v: membrane potential after the previous step, same shape; zeros at the start.
        tau: membrane time constant, in time steps.
        v_threshold: ``theta``.
        surrogate: derivative of the step function in the backward pass.

    Returns:
        spikes in the dtype of ``x``, and the potential after the reset; both ``[B, ...]``.
    """
    h = (1 - 1 / tau) * v + x
    spikes = heaviside(h - v_threshold, surrogate)
    return spikes.to(x.dtype), h - v_threshold * spikes.detach()


def lif_multistep(
    x_seq: Tensor,
    v: Tensor | None = None,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    surrogate: Surrogate = SURROGATES["sigmoid"],
) -> tuple[Tensor, Tensor]:
    """:func:`lif_step` over a sequence.

    Args:
        x_seq: input currents, ``[T, B, ...]``.
        v: potential before the first step, ``[B, ...]``; ``None`` for zeros.
        tau, v_threshold, surrogate: as in :func:`lif_step`.

    Returns:
        spikes ``[T, B, ...]`` and the potential after the last step ``[B, ...]``.
    """
    if v is None:
        wide = torch.promote_types(x_seq.dtype, torch.float32)
        v = torch.zeros(x_seq.shape[1:], dtype=wide, device=x_seq.device)
    spikes = []
    for x in x_seq.unbind(0):
        s, v = lif_step(x, v, tau, v_threshold, surrogate)
        spikes.append(s)
    return torch.stack(spikes) if spikes else x_seq, v
