"""The time axis: presenting inputs at the model's door, and modules that know no time.

Legend: T time, B batch, C channels, H / W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TimeWise", "present", "time_first"]


def present(images: Tensor, T: int) -> Tensor:
    """Direct coding: a static input shown unchanged at each of ``T`` steps.

    Args:
        images: ``[B, ...]``.
        T: number of steps.

    Returns:
        ``[T, B, ...]``, a view without a copy.
    """
    return images.unsqueeze(0).expand(T, *images.shape)


def time_first(frames: Tensor) -> Tensor:
    """``[B, T, ...]``, as data loaders deliver, to ``[T, B, ...]``, as the model computes."""
    return frames.transpose(0, 1)


class TimeWise(nn.Sequential):
    """Modules for ``[N, ...]`` applied to every step of ``[T, B, ...]``, with ``N = T * B``.

    Batch statistics, where a module keeps any, are over time steps and batch together.

    Args:
        *modules: applied in order.
    """

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, ...]`` to ``[T, B, ...]``."""
        merged = x_seq.flatten(0, 1)  # [T*B, ...]
        for module in self:
            merged = module(merged)
        return torch.unflatten(merged, 0, x_seq.shape[:2])
