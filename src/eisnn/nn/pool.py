"""Average pooling that keeps nothing for the backward pass.

Legend: T time, B batch, C channels, H / W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AvgPool2d"]


class _AveragePool(torch.autograd.Function):
    """PyTorch's keeps its input, for the sake of its shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, size: int) -> Tensor:
        return F.avg_pool2d(x, size)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        x, ctx.size = inputs
        height, width = x.shape[-2:]
        ctx.rest = (0, width % ctx.size, 0, height % ctx.size)  # pixels that no window covers

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        spread = F.interpolate(grad / ctx.size**2, scale_factor=ctx.size, mode="nearest")
        return F.pad(spread, ctx.rest) if any(ctx.rest) else spread, None


class AvgPool2d(nn.Module):
    """Means over windows of ``size`` by ``size`` pixels, side by side, at each time step.

    Args:
        size: of the windows; pixels left over at the right and lower edge are dropped.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` to ``[T, B, C, H // size, W // size]``."""
        pooled: Tensor = _AveragePool.apply(x_seq.flatten(0, 1), self.size)  # type: ignore[no-untyped-call]
        return torch.unflatten(pooled, 0, x_seq.shape[:2])

    def extra_repr(self) -> str:
        return str(self.size)
