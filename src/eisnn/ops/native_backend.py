"""The fused operation on the CPU in C: ``native.c``, compiled at first use."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from eisnn.ops.native_library import native_library, pointer, why_unavailable
from eisnn.ops.neuron import Neuron

__all__ = ["backward", "forward", "unavailable"]

_LIBRARY = ("native.c", "-ffp-contract=off")
_SURROGATES = {"Sigmoid": 0, "ArcTan": 1, "LeakyReLU": 2}


class _Circuit(ctypes.Structure):
    """``circuit`` of native.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "T", "B", "P", "E", "I")),
        ("decay", ctypes.c_float),
        ("threshold", ctypes.c_float),
        ("surrogate", ctypes.c_int64),
        ("width", ctypes.c_float),
        ("threads", ctypes.c_int64),
    ]


def unavailable() -> str | None:
    """Why this backend cannot run here; ``None`` if it can."""
    return why_unavailable(*_LIBRARY)


def _circuit(i_div: Tensor, channels: int, neuron: Neuron) -> _Circuit:
    steps, batch, positions, n_e = i_div.shape
    return _Circuit(
        steps,
        neuron.T,
        batch,
        positions,
        n_e,
        channels - n_e,
        neuron.decay,
        neuron.v_threshold,
        _SURROGATES[neuron.surrogate],
        neuron.width,
        torch.get_num_threads(),
    )


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    assert all(x.is_contiguous() and x.dtype == torch.float32 for x in tensors)
    return [pointer(x) for x in tensors]


def forward(
    currents: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor]:
    """As :func:`eisnn.ops.torch_backend.forward`, in float32."""
    wide = currents.float()
    spikes = wide.new_empty(neuron.T, *i_div.shape[1:])
    smallest = wide.new_empty(i_div.shape[:2])
    circuit = _circuit(i_div, currents.shape[-1], neuron)
    native_library(*_LIBRARY).eisnn_forward(
        ctypes.byref(circuit), *_pointers(wide, i_div, gain_e, bias, spikes, smallest)
    )
    return spikes.to(currents.dtype), smallest


def backward(
    grad: Tensor,
    currents: Tensor,
    i_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    smallest: Tensor,
    neuron: Neuron,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`eisnn.ops.torch_backend.backward`, in float32."""
    grad, wide = grad.float(), currents.float()
    d_currents, d_div = torch.empty_like(wide), torch.empty_like(i_div)
    circuit = _circuit(i_div, currents.shape[-1], neuron)
    d_gain = gain_e.new_zeros(circuit.threads, len(gain_e))
    d_bias = torch.zeros_like(d_gain)
    failed = native_library(*_LIBRARY).eisnn_backward(
        ctypes.byref(circuit),
        *_pointers(grad, wide, i_div, gain_e, bias, smallest),
        *_pointers(d_currents, d_div, d_gain, d_bias),
    )
    if failed:
        raise MemoryError("no memory for the membrane potentials of one block of neurons")
    return d_currents.to(currents.dtype), d_div, d_gain.sum(0), d_bias.sum(0)
