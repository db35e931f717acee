"""Random changes of colour, each image its own.

Legend: B batch, C = 3 channels (red, green, blue), H / W height and width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

__all__ = ["color_jitter", "grey", "shift_hue"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def color_jitter(
    x: Tensor,
    generator: Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Tensor:
    """Change brightness, contrast, saturation and hue, in an order drawn for each batch.

    Brightness blends an image with black, contrast with its mean grey level, saturation with
    its grey levels; a blend's factor is uniform in 1 - amount to 1 + amount, and the result is
    clipped to [0, 1] after each step.

    Args:
        x: images ``[B, 3, H, W]`` in [0, 1].
        generator: source of randomness.
        brightness, contrast, saturation: amounts, 0 to 1.
        hue: largest shift, as a share of the circle of hues, 0 to 0.5.

    Raises:
        ValueError: images that are not of three channels.
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError(
            f"changes of colour need images [B, 3, H, W], got {list(x.shape)}; grey images and "
            "event frames have no colour"
        )

    def drawn(amount: float, middle: float) -> Tensor:
        uniform = torch.rand((len(x), 1, 1, 1), generator=generator, device=generator.device)
        return (middle + amount * (2 * uniform - 1)).to(x.device)

    factors = [drawn(amount, 1) for amount in (brightness, contrast, saturation)]
    steps = [
        lambda x: _blend(x, torch.zeros_like(x), factors[0]),
        lambda x: _blend(x, grey(x).mean((-1, -2), keepdim=True), factors[1]),
        lambda x: _blend(x, grey(x), factors[2]),
        partial(shift_hue, shift=drawn(hue, 0)),
    ]
    order = torch.randperm(len(steps), generator=generator, device=generator.device)
    for number in order.tolist():
        x = steps[number](x)
    return x


def grey(x: Tensor) -> Tensor:
    """Grey levels ``[B, 1, H, W]`` of images ``[B, 3, H, W]``."""
    weights = torch.tensor(_LUMA, dtype=x.dtype, device=x.device)
    return (x * weights.view(3, 1, 1)).sum(1, keepdim=True)


def shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hues of images ``[B, 3, H, W]`` in [0, 1] by ``shift`` circles, ``[B, 1, 1, 1]``.

    Source: Smith 1978, "Color gamut transform pairs" (hue, saturation, value).
    """
    value, chroma = x.amax(1, keepdim=True), x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    red, green, blue = x.split(1, 1)
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    channel = torch.tensor([5.0, 3.0, 1.0], dtype=x.dtype, device=x.device).view(3, 1, 1)
    k = (channel + sixths + 6 * shift) % 6
    return (value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)).clamp(0, 1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + factor * (x - other)).clamp(0, 1)
