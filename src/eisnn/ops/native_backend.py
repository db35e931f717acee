"""The fused operation on the CPU in C: ``native.c``, compiled at first use."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from eisnn.ops.native_library import native_library, pointer, why_unavailable
from eisnn.ops.neuron import Neuron
from eisnn.ops.window import Window

__all__ = ["backward", "forward", "unavailable"]

_LIBRARY = ("native.c", "-ffp-contract=off")
_SURROGATES = {"Sigmoid": 0, "ArcTan": 1, "LeakyReLU": 2}


class _Circuit(ctypes.Structure):
    """``circuit`` of native.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "T", "B", "H", "W", "E", "I", "size")),
        ("decay", ctypes.c_float),
        ("threshold", ctypes.c_float),
        ("surrogate", ctypes.c_int64),
        ("width", ctypes.c_float),
        ("bfloat16", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    ]


def unavailable() -> str | None:
    """Why this backend cannot run here; ``None`` if it can."""
    return why_unavailable(*_LIBRARY)


def _circuit(currents: Tensor, i_div: Tensor, neuron: Neuron, window: Window) -> _Circuit:
    steps, batch, positions, n_e = i_div.shape
    return _Circuit(
        steps,
        neuron.T,
        batch,
        positions // window.columns,
        window.columns,
        n_e,
        currents.shape[-1] - n_e,
        window.size,
        neuron.decay,
        neuron.v_threshold,
        _SURROGATES[neuron.surrogate],
        neuron.width,
        currents.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )


def _known(x: Tensor) -> Tensor:
    """In a type that native.c reads."""
    return x if x.dtype in (torch.float32, torch.bfloat16) else x.float()


def _pointers(dtype: torch.dtype, *tensors: Tensor) -> list[ctypes.c_void_p]:
    assert all(x.is_contiguous() and x.dtype in (dtype, torch.float32) for x in tensors)
    return [pointer(x) for x in tensors]


def forward(
    currents: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor, neuron: Neuron, window: Window
) -> tuple[Tensor, Tensor]:
    """As :func:`eisnn.ops.torch_backend.forward`; float32 and bfloat16 are read as they are."""
    images = _known(currents)
    circuit = _circuit(images, i_div, neuron, window)
    steps, batch, positions, n_e = i_div.shape
    means = images.new_empty(neuron.T, batch, window.count(positions), n_e)
    smallest = i_div.new_empty(steps, batch)
    failed = native_library(*_LIBRARY).eisnn_forward(
        ctypes.byref(circuit),
        *_pointers(images.dtype, images, i_div, gain_e, bias, means, smallest),
    )
    _check(failed)
    return means.to(currents.dtype), smallest


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
    """As :func:`eisnn.ops.torch_backend.backward`; ``d_div`` takes the place of ``i_div``."""
    images = _known(currents)
    grad = grad.to(images.dtype)
    circuit = _circuit(images, i_div, neuron, window)
    d_images = torch.empty_like(images)
    d_gain = gain_e.new_zeros(circuit.threads, len(gain_e))
    d_bias = torch.zeros_like(d_gain)
    failed = native_library(*_LIBRARY).eisnn_backward(
        ctypes.byref(circuit),
        *_pointers(images.dtype, grad, images, i_div, gain_e, bias, smallest),
        *_pointers(images.dtype, d_images, d_gain, d_bias),
    )
    _check(failed)
    return d_images.to(currents.dtype), i_div, d_gain.sum(0), d_bias.sum(0)


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for one block of neurons over all time steps")
