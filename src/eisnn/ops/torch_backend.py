"""The fused operation in plain torch: any device, any floating type.

Legend: T time, B batch, P positions, Q windows, E / I excitatory / inhibitory channels, C = E + I;
``steps`` is T, or 1 where the currents are the same at each step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eisnn.ops.neuron import Neuron
from eisnn.ops.window import Window

__all__ = ["backward", "forward"]


def _divisor(i_div: Tensor, smallest: Tensor) -> Tensor:
    return torch.where(i_div <= 0, smallest[:, :, None, None], i_div)


def _quotient(currents: Tensor, i_div: Tensor, smallest: Tensor) -> Tensor:
    balanced = currents[..., : i_div.shape[-1]].to(i_div.dtype)
    return balanced / _divisor(i_div, smallest)


def forward(
    currents: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor, neuron: Neuron, window: Window
) -> tuple[Tensor, Tensor]:
    """Means of spikes over windows, and each sample's smallest positive divisor.

    Args:
        currents: balanced and inhibitory currents, ``[steps, B, P, C]``.
        i_div: divisive inhibition, ``[steps, B, P, E]``, float32 or better, as is all below.
        gain_e: ``[E]``.
        bias: ``[E]``.
        neuron: of the spikes.
        window: of the means.

    Returns:
        ``[T, B, Q, E]`` in the type of ``currents``, and ``[steps, B]``.
    """
    smallest = torch.where(i_div > 0, i_div, torch.inf).amin((2, 3))
    i_int = (gain_e * _quotient(currents, i_div, smallest)).add_(bias)
    spikes = currents.new_empty(neuron.T, *i_div.shape[1:])
    v = torch.zeros_like(i_int[0])
    for t, out in enumerate(spikes):
        h = v.mul_(neuron.decay).add_(i_int[t % len(i_int)])
        fired = _fired(h, neuron)
        out.copy_(fired)
        v = h.sub_(fired, alpha=neuron.v_threshold)
    return window.average(spikes), smallest


def _fired(h: Tensor, neuron: Neuron) -> Tensor:
    z = h - neuron.v_threshold
    return torch.where(z.isnan(), z, (z >= 0).to(z.dtype))


def backward(
    grad: Tensor,
    currents: Tensor,
    i_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    smallest: Tensor,
    neuron: Neuron,
    window: Window,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for what :func:`forward` took, from that of its means.

    Args:
        i_div: a backend may put ``d_div`` in its place.

    Returns:
        ``d_currents [steps, B, P, C]``, whose inhibitory channels are left for the caller to
        fill; ``d_div [steps, B, P, E]``; ``d_gain_e [E]``; ``d_bias [E]``.
    """
    n_e, steps = i_div.shape[-1], len(i_div)
    grad = window.spread(grad, i_div.shape[2])
    quotient = _quotient(currents, i_div, smallest)
    i_int = (gain_e * quotient).add_(bias)
    h_seq = []
    v = torch.zeros_like(i_int[0])
    for t in range(neuron.T):  # the potentials once more
        h = neuron.decay * v + i_int[t % steps]
        v = h - neuron.v_threshold * _fired(h, neuron)
        h_seq.append(h)
    d_int = torch.zeros_like(i_int)
    d_h = torch.zeros_like(v)
    for t in reversed(range(neuron.T)):
        slope = neuron.derivative.derivative(h_seq.pop().sub_(neuron.v_threshold))
        d_h = slope.mul_(grad[t]).add_(d_h, alpha=neuron.decay)
        d_int[t % steps] += d_h
    d_gain = (d_int * quotient).flatten(0, 2).sum(0)
    d_bias = d_int.flatten(0, 2).sum(0)
    d_balanced = d_int.mul_(gain_e).div_(_divisor(i_div, smallest))
    d_currents = torch.empty_like(currents)
    d_currents[..., :n_e] = d_balanced
    return d_currents, d_balanced.mul_(quotient).neg_(), d_gain, d_bias
