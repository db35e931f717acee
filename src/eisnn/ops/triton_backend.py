"""The fused operation on CUDA devices in Triton, which is imported at first use.

Nothing waits for the device, nothing depends on the order in which threads run. With
``TRITON_INTERPRET=1``, set before Triton is imported, the kernels run on the CPU: slowly, to
test them.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType

import torch
from torch import Tensor

from eisnn.ops.neuron import Neuron
from eisnn.ops.window import Window

__all__ = ["backward", "forward", "interpreted", "unavailable"]

_BLOCK = 1024
"""Neurons of one program, eight to a thread."""
_CHUNK = 4096
"""Most entries whose minimum one program takes."""
_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}


def interpreted() -> bool:
    """Whether kernels run on the CPU, in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1" and _installed()


@functools.cache
def unavailable() -> str | None:
    """Why this backend cannot run here; ``None`` if it can."""
    if not _installed():
        return "Triton is not installed"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    try:  # compiling also takes a C compiler, Python's headers and a device that Triton knows
        _smallest_positive(torch.zeros(1, 1, 1, 1, device="cuda"))
    except Exception as error:
        return f"Triton does not run here: {error}"
    return None


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _kernels() -> ModuleType:
    from eisnn.ops import triton_kernels

    return triton_kernels


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _blocks(rows: int, n_e: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid, and the shape of a block: as few padded channels as possible, then as wide."""
    channels = min((128, 64, 32), key=lambda width: _ceil_div(n_e, width) * width)
    per_block = _BLOCK // channels
    grid = (_ceil_div(rows, per_block), _ceil_div(n_e, channels))
    return grid, {"ROWS": per_block, "CHANNELS": channels}


def _smallest_positive(i_div: Tensor) -> Tensor:
    """``[steps, B]`` of ``[steps, B, P, E]``, in two stages."""
    samples, size = i_div.shape[0] * i_div.shape[1], i_div.shape[2] * i_div.shape[3]
    block = min(_CHUNK, max(128, 1 << (size - 1).bit_length()))
    chunks = _ceil_div(size, block)
    least = i_div.new_empty(samples, chunks)
    with torch.cuda.device_of(i_div):
        _kernels().smallest_positive[samples, chunks](i_div, least, size, chunks, BLOCK=block)
    return (least if chunks == 1 else least.amin(1)).view(i_div.shape[:2])


def forward(
    currents: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor, neuron: Neuron, window: Window
) -> tuple[Tensor, Tensor]:
    """As :func:`eisnn.ops.torch_backend.forward`, in float32."""
    steps, batch, positions, n_e = i_div.shape
    smallest = _smallest_positive(i_div)
    spikes = currents.new_empty(neuron.T, batch, positions, n_e)
    grid, block = _blocks(batch * positions, n_e)
    with torch.cuda.device_of(currents):
        _kernels().forward[grid](
            currents,
            i_div,
            gain_e,
            bias,
            smallest,
            spikes,
            batch * positions,
            batch,
            positions,
            n_e,
            currents.shape[-1],
            float(neuron.decay),
            float(neuron.v_threshold),
            T=neuron.T,
            CONSTANT=steps != neuron.T,
            **block,
            **_OPTIONS,
        )
    return window.average(spikes), smallest


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
    """As :func:`eisnn.ops.torch_backend.backward`, in float32."""
    steps, batch, positions, n_e = i_div.shape
    grad = window.spread(grad, positions).contiguous()
    grid, block = _blocks(batch * positions, n_e)
    d_currents, d_div = torch.empty_like(currents), torch.empty_like(i_div)
    # The gradient at a step can take the place of the potential, which is read just before.
    h_seq = d_div if steps == neuron.T else i_div.new_empty(neuron.T, batch, positions, n_e)
    d_gain = i_div.new_empty(grid[0], n_e)
    d_bias = torch.empty_like(d_gain)
    with torch.cuda.device_of(currents):
        _kernels().backward[grid](
            grad,
            currents,
            i_div,
            gain_e,
            bias,
            smallest,
            h_seq,
            d_currents,
            d_div,
            d_gain,
            d_bias,
            batch * positions,
            batch,
            positions,
            n_e,
            currents.shape[-1],
            float(neuron.decay),
            float(neuron.v_threshold),
            float(neuron.width),
            SURROGATE=neuron.surrogate,
            T=neuron.T,
            CONSTANT=steps != neuron.T,
            **block,
            **_OPTIONS,
        )
    return d_currents, d_div, d_gain.sum(0), d_bias.sum(0)
