"""Random changes to whole batches, each sample its own.

All of them work on the batch's device and draw from one ``torch.Generator``; a generator of
the CPU gives the same draws on every device. Event frames of a sample are all changed in the
same way. Outputs are as non-negative as their inputs, and nothing but :func:`color_jitter`,
:func:`erase` and the bilinear functions makes new values: event counts stay whole numbers.

Written in plain torch rather than with an augmentation library, because an exact resume needs
draws from a generator of our own; it is also faster than kornia on a CPU.

Legend: B batch, T time, C channels, H / W height and width, h / w those of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = [
    "cut_out",
    "erase",
    "horizontal_flip",
    "one_of",
    "random_crop",
    "random_resized_crop",
    "resize",
    "roll",
    "rotate",
]


def random_crop(x: Tensor, generator: Generator, *, padding: int) -> Tensor:
    """Shift each sample by up to ``padding`` pixels a side; zeros move in.

    Args:
        x: ``[B, ..., H, W]``.
        generator: source of randomness.
        padding: zeros put around the sample, from which H x W pixels are then cut.
    """
    shift = _integers(2, len(x), 2 * padding + 1, x, generator)  # [2, B]
    rows = shift[0, :, None] + torch.arange(x.shape[-2], device=x.device)
    columns = shift[1, :, None] + torch.arange(x.shape[-1], device=x.device)
    return _take(F.pad(x, (padding,) * 4), rows, columns)


def horizontal_flip(x: Tensor, generator: Generator, *, p: float = 0.5) -> Tensor:
    """Swap left and right of each sample ``[B, ..., H, W]`` with probability ``p``."""
    return torch.where(_chance(p, x, generator), x.flip(-1), x)


def erase(
    x: Tensor,
    generator: Generator,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.4, 2.5),
) -> Tensor:
    """Cover a rectangle with one random grey level.

    Source: Zhong et al. 2017, "Random erasing data augmentation" (arXiv 1708.04896).

    Args:
        x: images ``[B, C, H, W]`` in [0, 1].
        generator: source of randomness.
        p: probability, for each image.
        area: smallest and largest share of the image, uniform between them.
        aspect: smallest and largest width / height, uniform in its logarithm.
    """
    top, left, height, width = _boxes(x, area, aspect, generator)
    inside = _inside(x, top, top + height, left, left + width)
    grey = _per_sample(_uniform((len(x),), 0, 1, x, generator), x)
    return torch.where(inside & _chance(p, x, generator), grey, x)


def cut_out(x: Tensor, generator: Generator, *, side: int) -> Tensor:
    """Set a square to zero; it is clipped where it sticks out, its centre never does.

    Source: DeVries & Taylor 2017, "Improved regularization of convolutional neural networks
    with cutout" (arXiv 1708.04552).

    Args:
        x: ``[B, ..., H, W]``.
        generator: source of randomness.
        side: of the square, in pixels.
    """
    top = _integers(1, len(x), x.shape[-2], x, generator)[0] - side // 2
    left = _integers(1, len(x), x.shape[-1], x, generator)[0] - side // 2
    return x.masked_fill(_inside(x, top, top + side, left, left + side), 0)


def roll(x: Tensor, generator: Generator, *, limit: int) -> Tensor:
    """Shift each sample ``[B, ..., H, W]`` by up to ``limit`` pixels in both directions.

    What leaves on one side enters on the other.
    """
    shift = _integers(2, len(x), 2 * limit + 1, x, generator) - limit  # [2, B]
    rows = torch.arange(x.shape[-2], device=x.device) - shift[0, :, None]
    columns = torch.arange(x.shape[-1], device=x.device) - shift[1, :, None]
    return _take(x, rows % x.shape[-2], columns % x.shape[-1])


def rotate(x: Tensor, generator: Generator, *, degrees: float) -> Tensor:
    """Turn each sample about its centre by an angle of up to ``degrees``, to either side.

    Each pixel takes the value of the nearest one it comes from, or zero from outside.

    Args:
        x: ``[B, ..., H, W]``.
        generator: source of randomness.
        degrees: the largest angle.
    """
    height, width = x.shape[-2:]
    angle = _uniform((len(x), 1, 1), -degrees, degrees, x, generator) * (math.pi / 180)
    down = torch.arange(height, device=x.device)[:, None] - (height - 1) / 2
    across = torch.arange(width, device=x.device) - (width - 1) / 2
    rows = (angle.cos() * down + angle.sin() * across + (height - 1) / 2).round().long()
    columns = (angle.cos() * across - angle.sin() * down + (width - 1) / 2).round().long()
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    source = (rows * width + columns).masked_fill(outside, 0).flatten(1)  # [B, H * W]
    flat = x.reshape(len(x), math.prod(x.shape[1:-2]), height * width)
    turned = flat.gather(2, source[:, None].expand_as(flat)).view(x.shape)
    return turned.masked_fill(_per_sample(outside, x), 0)


def random_resized_crop(
    x: Tensor,
    generator: Generator,
    *,
    size: int,
    area: tuple[float, float],
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    mode: str,
) -> Tensor:
    """Cut a random rectangle from each sample and scale it to ``size``.

    Source: Szegedy et al. 2015, "Going deeper with convolutions" (arXiv 1409.4842).

    Args:
        x: ``[B, ..., H, W]``.
        generator: source of randomness.
        size: side of the result in pixels.
        area: smallest and largest share of the sample, uniform between them.
        aspect: smallest and largest width / height, uniform in its logarithm.
        mode: as in :func:`resize`.

    Returns:
        ``[B, ..., size, size]``.
    """
    top, left, height, width = _boxes(x, area, aspect, generator)
    return _scale(x, top, left, height, width, size, mode)


def resize(x: Tensor, *, size: int, mode: str) -> Tensor:
    """Scale samples ``[B, ..., H, W]`` to ``[B, ..., size, size]``.

    Args:
        x: the samples.
        size: side of the result in pixels.
        mode: ``"nearest"``, where each pixel takes the value at its centre, for event counts;
            or ``"bilinear"``, where it takes a weighted mean of all that it covers (triangular
            weights, wider when scaling down), for images in [0, 1].
    """
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return _scale(x, zero, zero, zero + x.shape[-2], zero + x.shape[-1], size, mode)


def one_of(
    x: Tensor, generator: Generator, changes: Sequence[Callable[[Tensor, Generator], Tensor]]
) -> Tensor:
    """Apply one of ``changes``, each as likely as the others, to each sample ``[B, ...]``."""
    choice = _per_sample(_integers(1, len(x), len(changes), x, generator)[0], x)
    result = x
    for number, change in enumerate(changes):
        result = torch.where(choice == number, change(x, generator), result)
    return result


def _take(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels ``x[b, ..., rows[b, i], columns[b, j]]`` of rows [B, h] and columns [B, w]."""
    flat = x.reshape(len(x), math.prod(x.shape[1:-2]), *x.shape[-2:])  # [B, K, H, W]
    _, k, _, width = flat.shape
    flat = flat.gather(2, rows[:, None, :, None].expand(-1, k, -1, width))
    flat = flat.gather(3, columns[:, None, None, :].expand(-1, k, rows.shape[1], -1))
    return flat.view(*x.shape[:-2], rows.shape[1], columns.shape[1])


def _scale(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int, mode: str
) -> Tensor:
    """The rectangles of each sample, given by [B] each, in ``size`` x ``size`` pixels."""
    if mode == "nearest":
        return _take(x, _nearest(top, height, size), _nearest(left, width, size))
    if mode == "bilinear":
        rows = _triangles(top, height, size, x.shape[-2]).to(x.dtype)
        columns = _triangles(left, width, size, x.shape[-1]).to(x.dtype)
        between = (len(x),) + (1,) * (x.dim() - 3)
        rows = rows.view(*between, *rows.shape[1:])
        columns = columns.view(*between, *columns.shape[1:])
        return (rows @ x @ columns.transpose(-1, -2)).clamp(0, 1)
    raise ValueError(f"mode must be 'nearest' or 'bilinear', got {mode!r}")


def _nearest(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Which of the pixels from ``start`` [B] on lies at the centre of each result: [B, size]."""
    twice = 2 * torch.arange(size, device=start.device) + 1
    return start[:, None] + twice * length[:, None] // (2 * size)


def _triangles(start: Tensor, length: Tensor, size: int, full: int) -> Tensor:
    """Weights [B, size, full] of the pixels from ``start`` [B] on in each result."""
    step = (length / size)[:, None, None]
    centre = start[:, None, None] + step * (torch.arange(size, device=start.device) + 0.5)[:, None]
    pixel = torch.arange(full, device=start.device) + 0.5
    weights = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    first, last = start[:, None, None], (start + length)[:, None, None]
    weights = weights * ((pixel > first) & (pixel < last))
    return weights / weights.sum(-1, keepdim=True)


_TRIES = 10


def _boxes(
    x: Tensor, area: tuple[float, float], aspect: tuple[float, float], generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random rectangles within the samples: top, left, height and width, [B] each.

    Of ten draws of a shape the first that fits counts; should none fit, one is cut to fit.
    """
    full_height, full_width = x.shape[-2:]
    shape = (len(x), _TRIES)
    share = _uniform(shape, *area, x, generator) * (full_height * full_width)
    ratio = _uniform(shape, math.log(aspect[0]), math.log(aspect[1]), x, generator).exp()
    height = (share / ratio).sqrt().round().clamp(min=1)
    width = (share * ratio).sqrt().round().clamp(min=1)
    fits = (height <= full_height) & (width <= full_width)
    first = fits.int().argmax(1, keepdim=True)  # the first try if there is none
    height = height.gather(1, first).squeeze(1).clamp(max=full_height)
    width = width.gather(1, first).squeeze(1).clamp(max=full_width)
    place = _uniform((2, len(x)), 0, 1, x, generator)
    top = (place[0] * (full_height - height + 1)).floor().clamp(max=full_height - height)
    left = (place[1] * (full_width - width + 1)).floor().clamp(max=full_width - width)
    return top.long(), left.long(), height.long(), width.long()


def _inside(x: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Which pixels lie in a rectangle, given by [B] each: [B, 1..., H, W]."""
    row = torch.arange(x.shape[-2], device=x.device)[:, None]
    column = torch.arange(x.shape[-1], device=x.device)
    top, bottom, left, right = (edge[:, None, None] for edge in (top, bottom, left, right))
    return _per_sample((row >= top) & (row < bottom) & (column >= left) & (column < right), x)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Values [B] or [B, H, W] with axes of length 1, so that they go with ``x``."""
    ones = (1,) * (x.dim() - values.dim())
    return values.view(len(x), *ones, *values.shape[1:])


def _chance(p: float, x: Tensor, generator: Generator) -> Tensor:
    """True with probability ``p``, for each sample of its own."""
    return _per_sample(_uniform((len(x),), 0, 1, x, generator) < p, x)


def _uniform(
    shape: tuple[int, ...], low: float, high: float, x: Tensor, generator: Generator
) -> Tensor:
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return (drawn * (high - low) + low).to(x.device)


def _integers(rows: int, count: int, bound: int, x: Tensor, generator: Generator) -> Tensor:
    """Uniform in 0 ... bound - 1: [rows, count]."""
    shape = (rows, count)
    drawn = torch.randint(bound, shape, generator=generator, device=generator.device)
    return drawn.to(x.device)
