"""Average pooling that keeps nothing for the backward pass.

Legend: T time, B batch, C channels, H / W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eisnn.ops import Window, spread

__all__ = ["AvgPool2d"]


class _AveragePool(torch.autograd.Function):
    """PyTorch's keeps its input, for the sake of its shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, size: int) -> Tensor:
        return F.avg_pool2d(x, size)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        x, size = inputs
        ctx.shape = (size, *x.shape[-2:])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return spread(grad, *ctx.shape), None


class AvgPool2d(nn.Module):
    """Means over windows of ``size`` by ``size`` pixels, side by side, at each time step.

    Args:
        size: of the windows; pixels left over at the right and lower edge are dropped.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {size}")
        self.size = size

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` to ``[T, B, C, H // size, W // size]``."""
        if x_seq.dim() != 5:
            raise ValueError(f"AvgPool2d takes [T, B, C, H, W], got shape {tuple(x_seq.shape)}")
        self.window(*x_seq.shape[3:])
        pooled: Tensor = _AveragePool.apply(x_seq.flatten(0, 1), self.size)  # type: ignore[no-untyped-call]
        return torch.unflatten(pooled, 0, x_seq.shape[:2])

    def window(self, height: int, width: int) -> Window:
        """The windows on maps of this size.

        Raises:
            ValueError: there are none.
        """
        if self.size > min(height, width):
            raise ValueError(
                f"AvgPool2d({self.size}) needs maps of {self.size}x{self.size} or more, got "
                f"{height}x{width}. Use larger images or fewer pools"
            )
        return Window(self.size, width)

    def extra_repr(self) -> str:
        return str(self.size)
