"""Means over windows of a map, side by side: average pools.

Legend: N samples, C channels, H / W height and width, h / w those in windows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Window", "spread"]


class Window(NamedTuple):
    """Windows of ``size`` x ``size`` positions on maps of ``columns`` positions in a row.

    Positions left over at the right and lower edge are in no window.
    """

    size: int = 1
    columns: int = 1

    def check(self, positions: int) -> None:
        """Whether so many positions are rows of ``columns``, with room for a window.

        Raises:
            ValueError: they are not.
        """
        size, columns = self
        if size == 1 and columns == 1:
            return
        if (
            columns < 1
            or positions % columns
            or not 1 <= size <= min(columns, positions // columns)
        ):
            raise ValueError(
                f"windows of {size}x{size} need maps of that size or more, in equal rows, got "
                f"{positions} positions in rows of {columns}"
            )

    def count(self, positions: int) -> int:
        """Windows in a map of so many positions."""
        return (positions // self.columns // self.size) * (self.columns // self.size)

    def average(self, x: Tensor) -> Tensor:
        """``[T, B, positions, E]`` to ``[T, B, windows, E]``."""
        if self.size == 1:
            return x
        maps = x.flatten(0, 1).unflatten(1, (-1, self.columns)).movedim(-1, 1)
        pooled = F.avg_pool2d(maps, self.size)
        return pooled.flatten(2).mT.reshape(*x.shape[:2], self.count(x.shape[2]), x.shape[-1])

    def spread(self, grad: Tensor, positions: int) -> Tensor:
        """From the gradient of :meth:`average` to that of its input."""
        if self.size == 1:
            return grad
        width = self.columns // self.size
        windows = grad.flatten(0, 1).unflatten(1, (-1, width)).movedim(-1, 1)
        spreaded = spread(windows, self.size, positions // self.columns, self.columns)
        return spreaded.flatten(2).mT.reshape(*grad.shape[:2], positions, grad.shape[-1])


def spread(grad: Tensor, size: int, height: int, width: int) -> Tensor:
    """From the gradient ``[N, C, h, w]`` of an average pool to its input's, ``[N, C, H, W]``."""
    rest = (0, width % size, 0, height % size)
    x = F.interpolate(grad / size**2, scale_factor=size, mode="nearest")
    return F.pad(x, rest) if any(rest) else x
