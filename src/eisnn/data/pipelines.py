"""The augmentations of the published runs, by name.

Legend: B batch, T time, C channels, H / W height and width.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from torch import Generator, Tensor

from eisnn.data.augment import (
    cut_out,
    erase,
    horizontal_flip,
    one_of,
    random_crop,
    random_resized_crop,
    resize,
    roll,
    rotate,
)
from eisnn.data.color import color_jitter

__all__ = ["augmentation", "evaluation_transform", "list_augmentations"]

Augmentation = Callable[[Tensor, Generator], Tensor]
Transform = Callable[[Tensor], Tensor]
_Function = TypeVar("_Function")

_TINY_SIDE = 32
_EVENT_SIDE = 48


def augmentation(name: str) -> Augmentation:
    """What happens to a batch in training.

    ``"none"``; ``"flip"``; ``"cifar"`` for images of 32x32 or so; ``"tiny-imagenet"``, to
    32x32; ``"cifar10-dvs"`` and ``"dvs-gesture"`` for event frames, to 48x48.

    Args:
        name: see :func:`list_augmentations`.

    Returns:
        a function from images ``[B, C, H, W]`` in [0, 1] or event frames ``[B, T, C, H, W]``,
        and a generator, to a new batch.

    Raises:
        ValueError: no such augmentation.
    """
    return _named(_AUGMENTATIONS, name)


def evaluation_transform(name: str) -> Transform:
    """What happens to a batch in evaluation of a network trained with ``augmentation(name)``.

    It brings samples to the size that the augmentation brings them to, and is not random.

    Args:
        name: see :func:`list_augmentations`.

    Raises:
        ValueError: no such augmentation.
    """
    return _named(_EVALUATIONS, name)


def list_augmentations() -> list[str]:
    """The names that :func:`augmentation` knows."""
    return list(_AUGMENTATIONS)


def _none(x: Tensor, generator: Generator | None = None) -> Tensor:
    return x


def _cifar(x: Tensor, generator: Generator) -> Tensor:
    x = random_crop(_images(x), generator, padding=4)
    x = erase(x, generator)
    return horizontal_flip(x, generator)


def _tiny_imagenet(x: Tensor, generator: Generator) -> Tensor:
    x = random_resized_crop(_images(x), generator, size=_TINY_SIDE, area=(0.08, 1), mode="bilinear")
    x = horizontal_flip(x, generator)
    x = color_jitter(x, generator, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    return erase(x, generator)


def _dvs_gesture(x: Tensor, generator: Generator, smallest: float = 0.5) -> Tensor:
    x = random_resized_crop(
        _frames(x), generator, size=_EVENT_SIDE, area=(smallest, 1), mode="nearest"
    )
    return horizontal_flip(x, generator)


def _cifar10_dvs(x: Tensor, generator: Generator) -> Tensor:
    x = _dvs_gesture(x, generator, smallest=0.7)
    changes = (partial(roll, limit=5), partial(rotate, degrees=30), partial(cut_out, side=16))
    return one_of(x, generator, changes)


def _small_frames(x: Tensor) -> Tensor:
    return resize(_frames(x), size=_EVENT_SIDE, mode="nearest")


def _small_images(x: Tensor) -> Tensor:
    return resize(_images(x), size=_TINY_SIDE, mode="bilinear")


def _images(x: Tensor) -> Tensor:
    if x.dim() != 4:
        raise ValueError(f"this is for images [B, C, H, W], got {list(x.shape)}")
    return x


def _frames(x: Tensor) -> Tensor:
    if x.dim() != 5:
        raise ValueError(f"this is for event frames [B, T, C, H, W], got {list(x.shape)}")
    return x


_AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "none": _none,
        "flip": horizontal_flip,
        "cifar": _cifar,
        "tiny-imagenet": _tiny_imagenet,
        "cifar10-dvs": _cifar10_dvs,
        "dvs-gesture": _dvs_gesture,
    }
)

_EVALUATIONS: Mapping[str, Transform] = MappingProxyType(
    {
        "none": _none,
        "flip": _none,
        "cifar": _none,
        "tiny-imagenet": _small_images,
        "cifar10-dvs": _small_frames,
        "dvs-gesture": _small_frames,
    }
)


def _named(functions: Mapping[str, _Function], name: str) -> _Function:
    if name in functions:
        return functions[name]
    close = difflib.get_close_matches(name, functions, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"there is no augmentation {name!r}.{hint} There are: {', '.join(functions)}")
