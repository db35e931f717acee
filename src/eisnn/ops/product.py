r"""Matrix products, on the CPU by oneDNN.

PyTorch multiplies float32 matrices with MKL, which on AMD processors runs at half the speed of
oneDNN, PyTorch's library for convolutions. Registered as ``torch.ops.eisnn.product``; its
derivatives are products too.

Legend: M rows, K what is summed over, N columns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eisnn.ops.registration import register
from eisnn.ops.transforms import transforming

__all__ = ["linear", "product"]

_ONEDNN = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available()
    else None
)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """:func:`torch.nn.functional.linear`, by :func:`product` where that is faster.

    Args:
        x: ``[..., D]``.
        weight: ``[E, D]``.

    Returns:
        ``[..., E]``.
    """
    if (
        transforming()
        or torch.compiler.is_exporting()
        or x.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or not x.dtype == weight.dtype == torch.float32
    ):
        return F.linear(x, weight)
    return product(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], len(weight))


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a b^T``.

    Args:
        a: ``[M, K]``.
        b: ``[N, K]``, of the same type.

    Returns:
        ``[M, N]``.
    """
    return torch.ops.eisnn.product(a, b)  # type: ignore[no-any-return]


def _forward(a: Tensor, b: Tensor) -> Tensor:
    if _ONEDNN is None or not _suits(a, b):
        return a @ b.T
    if not a.is_contiguous() and a.shape[1] > max(len(a), len(b)):
        return _kernel_gradient(a, b)  # oneDNN's product would copy a, slowly
    return _ONEDNN(_dense(a), _dense(b), None, "none", [], "")  # type: ignore[no-any-return]


def _suits(a: Tensor, b: Tensor) -> bool:
    cpu = a.device.type == "cpu" and a.dtype == b.dtype == torch.float32
    return cpu and a.numel() > 0 and b.numel() > 0


def _dense(x: Tensor) -> Tensor:
    """For transposed rows with gaps between them oneDNN takes a path 800 times as slow."""
    return x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous()


def _kernel_gradient(a: Tensor, b: Tensor) -> Tensor:
    """``a b^T`` as the gradient of the kernel of a 1x1 convolution of K positions."""
    images = [x.T.contiguous().view(1, x.shape[1], 1, -1).permute(0, 3, 1, 2) for x in (a, b)]
    kernel = a.new_empty(len(a), len(b), 1, 1)
    wanted = [False, True, False]
    _, gradient, _ = torch.ops.aten.convolution_backward(
        *images, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, wanted
    )
    return gradient.flatten(1)  # type: ignore[no-any-return]


def _shapes(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    a, b = inputs
    for_a, for_b = ctx.needs_input_grad[:2]
    ctx.save_for_backward(a if for_b else None, b if for_a else None)


def _derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    d_a = product(grad, b.T) if ctx.needs_input_grad[0] else None
    return d_a, product(grad.T, a.T) if ctx.needs_input_grad[1] else None


register("product(Tensor a, Tensor b) -> Tensor", _forward, _shapes, _derivative, _keep)
