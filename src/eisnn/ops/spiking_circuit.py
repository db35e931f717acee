r"""From an E-I circuit's currents to its neurons' spikes in one operation.

``spikes = LIF(g_E * balanced / stab(W_div s_I) + b_E)`` with ``W_div = W_EI diag(g_I)``:
stabilise, divide, gain, bias, the neurons over all time steps and the average pool that may
follow them, forward and backward one call each. For the backward pass only the currents
themselves are kept; divisors, quotients and membrane potentials are computed once more.

Registered as ``torch.ops.eisnn.spiking_circuit`` with shapes for tracing and a derivative, so
that ``torch.compile`` and ``torch.export`` pass through it.

Legend: T time, B batch, P positions, Q windows, E / I excitatory / inhibitory channels, C = E + I;
``steps`` is T, or 1 where the currents are the same at each step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eisnn.ops.backend import BACKENDS, backend_for
from eisnn.ops.neuron import Neuron
from eisnn.ops.product import product
from eisnn.ops.registration import register
from eisnn.ops.window import Window

__all__ = ["spiking_circuit"]

_SETTINGS = (
    "int size, SymInt columns, int T, float tau, float v_threshold, str surrogate, float width"
)


def spiking_circuit(
    currents: Tensor,
    weight_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    neuron: Neuron,
    reach: Tensor | None = None,
    window: Window = Window(),  # noqa: B008
) -> Tensor:
    """Spikes of the excitatory neurons of one circuit, or their means over windows.

    Args:
        currents: the balanced currents and after them the inhibitory ones, ``[T, B, P, C]``,
            or ``[1, B, P, C]`` if they are the same at each step.
        weight_div: ``W_EI diag(g_I)``, ``[E, I]``; like the gains and biases in float32 for
            currents of float32 or less, in float64 for float64.
        gain_e: ``[E]``.
        bias: ``[E]``.
        neuron: the neurons; its ``T`` is the number of steps.
        reach: booleans ``[steps, B, P, I]`` of
            :func:`eisnn.functional.convolution_reach`; ``None`` where zeros are exact.
        window: of an average pool over positions; of size 1 for the spikes themselves.

    Returns:
        ``[T, B, Q, E]``, in the type of ``currents``.

    Raises:
        ValueError: the window does not fit the positions.
    """
    window.check(currents.shape[2])
    spikes, _ = torch.ops.eisnn.spiking_circuit(
        currents.contiguous(), weight_div, gain_e, bias, reach, *window, *neuron
    )
    return spikes  # type: ignore[no-any-return]


def _divisive(currents: Tensor, weight_div: Tensor, reach: Tensor | None) -> tuple[Tensor, Tensor]:
    """``s_I [rows, I]`` and ``I_div = W_div s_I [steps, B, P, E]``, in the type of the weight."""
    n_e, n_i = weight_div.shape
    s_i = currents[..., n_e:].to(weight_div.dtype).clamp(min=0)
    if reach is not None:
        s_i.masked_fill_(~reach & ~s_i.isnan(), 0)
    s_i = s_i.reshape(-1, n_i)
    return s_i, product(s_i, weight_div).view(*currents.shape[:3], n_e)


def _forward(
    currents: Tensor,
    weight_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    reach: Tensor | None,
    size: int,
    columns: int,
    *neuron: Any,
) -> tuple[Tensor, Tensor]:
    backend = BACKENDS[backend_for(currents.device, weight_div.dtype)]
    with torch.autocast(currents.device.type, enabled=False):
        _, i_div = _divisive(currents, weight_div, reach)
        result: tuple[Tensor, Tensor] = backend.forward(
            currents,
            i_div,
            gain_e.contiguous(),
            bias.contiguous(),
            Neuron(*neuron),
            Window(size, columns),
        )
    return result


def _backward(
    grad: Tensor,
    currents: Tensor,
    weight_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    reach: Tensor | None,
    smallest: Tensor,
    size: int,
    columns: int,
    *neuron: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    backend = BACKENDS[backend_for(currents.device, weight_div.dtype)]
    n_e, n_i = weight_div.shape
    with torch.autocast(currents.device.type, enabled=False):
        s_i, i_div = _divisive(currents, weight_div, reach)
        d_currents, d_div, d_gain, d_bias = backend.backward(
            grad.contiguous(),
            currents,
            i_div,
            gain_e.contiguous(),
            bias.contiguous(),
            smallest,
            Neuron(*neuron),
            Window(size, columns),
        )
        d_div = d_div.view(-1, n_e)
        d_s_i = d_currents.view(-1, n_e + n_i)[:, n_e:]
        d_s_i.copy_(product(d_div, weight_div.T))
        return d_currents, product(d_div.T, s_i.T), d_gain, d_bias


def _forward_shapes(
    currents: Tensor,
    weight_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    reach: Any,
    size: int,
    columns: int,
    T: int,
    *neuron: Any,
) -> tuple[Tensor, Tensor]:
    steps, batch, positions, _ = currents.shape
    windows = Window(size, columns).count(positions)
    means = currents.new_empty(T, batch, windows, weight_div.shape[0])
    return means, weight_div.new_empty(steps, batch)


def _backward_shapes(
    grad: Tensor, currents: Tensor, weight_div: Tensor, gain_e: Tensor, bias: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(currents),
        weight_div.new_empty(weight_div.shape),
        gain_e.new_empty(gain_e.shape),
        bias.new_empty(bias.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.settings = inputs[5:]


def _derivative(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    grads = torch.ops.eisnn.spiking_circuit_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, None, *[None] * len(ctx.settings))


def _no_second_derivative(*_: Any) -> None:
    raise NotImplementedError(
        "the fused operation has first derivatives only. For second ones run circuit and "
        "neurons one after the other: lif(layer(x))"
    )


register(
    "spiking_circuit(Tensor currents, Tensor weight_div, Tensor gain_e, Tensor bias, "
    f"Tensor? reach, {_SETTINGS}) -> (Tensor, Tensor)",
    _forward,
    _forward_shapes,
    _derivative,
    _keep,
)
register(
    "spiking_circuit_backward(Tensor grad, Tensor currents, Tensor weight_div, Tensor gain_e, "
    f"Tensor bias, Tensor? reach, Tensor smallest, {_SETTINGS}) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_shapes,
    _no_second_derivative,
    None,
)
