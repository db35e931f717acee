"""Convolution by the cheapest of PyTorch's algorithms, in the layout the fused operation reads.

Legend: N samples, C / O input / output channels, P / Q input / output positions, K taps.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from eisnn.ops.convolution3x3 import convolve3x3
from eisnn.ops.product import linear
from eisnn.ops.transforms import transforming

__all__ = ["convolve"]

Pair = tuple[int, int]


def convolve(
    x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """:func:`torch.nn.functional.conv2d`, channels last.

    On the CPU, images with fewer positions than the kernel has taps are multiplied with the
    dense matrix of the convolution if there are enough of them: ``P Q C O`` products instead of
    ``K Q C O``, most of which would be with padding. Gradients of larger 3x3 convolutions are
    those of :mod:`eisnn.ops.convolution3x3`.

    Args:
        x: ``[N, C, H, W]``.
        weight: ``[O, C / groups, kH, kW]``.
        stride: as in ``conv2d``, as are ``padding``, ``dilation`` and ``groups``.

    Returns:
        ``[N, O, H', W']`` in memory format ``channels_last``.
    """
    if transforming():
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)
    if weight.shape[2:] == (1, 1) and x.device.type == "cpu":
        return _pointwise(x, weight, stride, padding, groups)
    x = x.contiguous(memory_format=torch.channels_last)
    if groups == 1 and _dense_pays(x, weight, stride, padding, dilation):
        return _dense(x, weight, padding)
    if groups == 1 and stride == padding == dilation == (1, 1) and _winograd_pays(x, weight):
        return convolve3x3(_cast(x), weight)
    y = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    return y.contiguous(memory_format=torch.channels_last)


def _pointwise(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, groups: int) -> Tensor:
    """A 1x1 convolution on the CPU: a matrix product.

    Also for safety: with a stride in this layout, oneDNN 3.12 (PyTorch 2.13) on AVX2 writes past
    the end of the weights' gradient.
    """
    if groups > 1 or padding != (0, 0):
        y = F.conv2d(x.contiguous(), weight, None, stride, padding, 1, groups)
        return y.contiguous(memory_format=torch.channels_last)
    x = x.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]  # in this order gradients keep it
    return linear(x, weight.flatten(1)).permute(0, 3, 1, 2)


def _dense_pays(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    """Measured: the matrix costs a few copies of the weight, too much for a small batch."""
    size, kernel = x.shape[2:], weight.shape[2:]
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_exporting()  # for any batch size
        and weight.dtype in (torch.float32, torch.float64)
        and len(x) >= 16
        and size.numel() < kernel.numel()
        and stride == dilation == (1, 1)
        and all(p < k for p, k in zip(padding, kernel, strict=True))
    )


def _cast(x: Tensor) -> Tensor:
    """In the type that convolutions on the CPU take here."""
    return x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x


def _winograd_pays(x: Tensor, weight: Tensor) -> bool:
    """Measured: few channels do not fill the blocks, small images not the tiles of 4x4."""
    if (
        x.device.type != "cpu"
        or not (torch.is_grad_enabled() and weight.requires_grad)
        or torch.compiler.is_exporting()
        or weight.dtype != torch.float32
    ):
        return False
    height, width = x.shape[2:]
    tiles = -(-height // 4) * -(-width // 4)
    if torch.is_autocast_enabled("cpu"):
        known = torch.get_autocast_dtype("cpu") == torch.bfloat16
    else:
        known = x.dtype == torch.float32
    return (
        known
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= 32
        and len(x) * tiles >= 64  # or transforming the kernels costs too much
        and 16 * tiles <= 1.8 * height * width
    )


def _dense(x: Tensor, weight: Tensor, padding: Pair) -> Tensor:
    (n, c, *size), (o, _, *kernel) = x.shape, weight.shape
    out, taps = _taps((size[0], size[1]), (kernel[0], kernel[1]), padding)
    by_tap = weight.permute(2, 3, 0, 1).reshape(-1, o, c).unbind(0)  # K times [O, C]
    none = weight.new_zeros(1, 1).expand(o, c)
    x_by_p = x.to(weight.dtype).permute(2, 3, 0, 1).flatten(0, 1)  # P times [N, C]
    y: Tensor | None = None
    with torch.autocast("cpu", enabled=False):  # partial sums are not rounded
        for x_p, taps_p in zip(x_by_p, taps, strict=True):
            row = torch.cat([none if tap is None else by_tap[tap] for tap in taps_p])  # [Q O, C]
            y_p = linear(x_p, row)
            y = y_p if y is None else y + y_p
    assert y is not None
    return _cast(y.view(n, *out, o).permute(0, 3, 1, 2))


def _taps(size: Pair, kernel: Pair, padding: Pair) -> tuple[Pair, list[list[int | None]]]:
    """Size of the output, and for each input and output position the tap that connects them."""
    height, width = (s + 2 * p - k + 1 for s, k, p in zip(size, kernel, padding, strict=True))

    def tap(i: int, j: int, out_i: int, out_j: int) -> int | None:
        row, column = i + padding[0] - out_i, j + padding[1] - out_j
        inside = 0 <= row < kernel[0] and 0 <= column < kernel[1]
        return row * kernel[1] + column if inside else None

    outputs = list(product(range(height), range(width)))
    inputs = product(range(size[0]), range(size[1]))
    return (height, width), [[tap(*i, *o) for o in outputs] for i in inputs]
