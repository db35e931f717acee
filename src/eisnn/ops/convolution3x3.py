r"""3x3 convolutions on the CPU whose gradients take a quarter of the multiplications.

The convolution itself is PyTorch's: its values, and with them spikes and the exact zeros that
the stabilisation needs, are the same to the last bit. Gradients need no exact zeros, and two
thirds of a training step's convolutions are gradients: with the backend ``native`` they come from
Winograd's algorithm (``winograd.c``), in float32 also where images are bfloat16.

Registered as ``torch.ops.eisnn.convolution3x3`` with shapes and derivatives.

Legend: N samples, C / O input / output channels.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eisnn.ops.backend import backend_for
from eisnn.ops.native_library import native_library, pointer, why_unavailable
from eisnn.ops.registration import register

__all__ = ["convolve3x3", "unavailable"]

_NATIVE = ("winograd.c", "-ffp-contract=fast")
_GEOMETRY = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
"""Stride, padding, dilation, transposed, output padding, groups."""


class _Convolution(ctypes.Structure):
    """``convolution`` of winograd.c."""

    _fields_ = [(name, ctypes.c_int64) for name in ("N", "H", "W", "C", "O", "bfloat16", "threads")]


def unavailable() -> str | None:
    """Why these gradients cannot be had here; ``None`` if they can."""
    return why_unavailable(*_NATIVE)


def convolve3x3(x: Tensor, weight: Tensor) -> Tensor:
    """``conv2d(x, weight, padding=1)``.

    Args:
        x: ``[N, C, H, W]`` in memory format ``channels_last``, float32 or bfloat16, on the CPU.
        weight: ``[O, C, 3, 3]``, float32, rounded to the type of ``x`` for the product.

    Returns:
        ``[N, O, H, W]`` in memory format ``channels_last``, in the type of ``x``.
    """
    return torch.ops.eisnn.convolution3x3(x, weight)  # type: ignore[no-any-return]


def _forward(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y = F.conv2d(x, weight.to(x.dtype), padding=1)
    return y.contiguous(memory_format=torch.channels_last)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, input_gradient: bool
) -> tuple[Tensor, Tensor]:
    x, grad = (image.contiguous(memory_format=torch.channels_last) for image in (x, grad))
    if backend_for(x.device) != "native" or unavailable() is not None:
        wanted = [input_gradient, True, False]
        d_x, d_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight.to(x.dtype), None, *_GEOMETRY, wanted
        )
        return d_x if input_gradient else x.new_empty(0), d_weight.to(weight.dtype)
    weight = weight.contiguous()
    (n, c, height, width), o = x.shape, len(weight)
    low = x.dtype == torch.bfloat16
    convolution = _Convolution(n, height, width, c, o, low, torch.get_num_threads())
    library = native_library(*_NATIVE)
    d_weight = torch.empty_like(weight)
    failed = library.eisnn_kernel_gradient(
        ctypes.byref(convolution), pointer(x), pointer(grad), pointer(d_weight)
    )
    d_x = torch.empty_like(x) if input_gradient else x.new_empty(0)
    if input_gradient:
        failed |= library.eisnn_input_gradient(
            ctypes.byref(convolution), pointer(grad), pointer(weight), pointer(d_x)
        )
    if failed:
        raise MemoryError(f"no memory to transform kernels of {o} x {c} channels")
    return d_x, d_weight


def _forward_shapes(x: Tensor, weight: Tensor) -> Tensor:
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


def _backward_shapes(
    grad: Tensor, x: Tensor, weight: Tensor, input_gradient: bool
) -> tuple[Tensor, Tensor]:
    d_x = x.new_empty(x.shape).contiguous(memory_format=torch.channels_last)
    return d_x if input_gradient else x.new_empty(0), weight.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
    wanted = ctx.needs_input_grad[0]
    d_x, d_weight = torch.ops.eisnn.convolution3x3_backward(grad, *ctx.saved_tensors, wanted)
    return d_x if wanted else None, d_weight


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.input_gradient = inputs[3]


def _second_derivative(ctx: Any, grad_x: Tensor | None, grad_w: Tensor | None) -> tuple[Any, ...]:
    grad, x, weight = ctx.saved_tensors
    d_grad, d_x, d_weight = torch.ops.aten._convolution_double_backward(
        grad_x if ctx.input_gradient else None,
        None if grad_w is None else grad_w.to(x.dtype),
        None,
        grad,
        weight.to(x.dtype),
        x,
        *_GEOMETRY,
        [True, True, True],
    )
    return d_grad, d_x, d_weight.to(weight.dtype), None


register(
    "convolution3x3(Tensor x, Tensor weight) -> Tensor",
    _forward,
    _forward_shapes,
    _derivative,
    _keep,
)
register(
    "convolution3x3_backward(Tensor grad, Tensor x, Tensor weight, bool input_gradient) "
    "-> (Tensor, Tensor)",
    _backward,
    _backward_shapes,
    _second_derivative,
    _keep_for_second,
)
