"""Fixed ways to part a data set in two.

Shuffles use only ``random.Random(seed).random()``, whose sequence Python promises to keep: a
named split stays the same on every machine and with every version of the libraries.

Legend: n samples.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from eisnn.data.source import Arrays

__all__ = ["last_in_name_order", "split_validation", "stratified"]


def stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Part samples at random, class by class.

    Args:
        labels: classes, ``[n]``, any integers. The result depends on nothing but them,
            ``fraction`` and ``seed``.
        fraction: share of each class, rounded to whole samples, that goes to the second part;
            at least one sample of each class goes to either part.
        seed: of the shuffle.

    Returns:
        the indices of both parts, ascending, int64.

    Raises:
        ValueError: a fraction that is not between 0 and 1, or a class with a single sample.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    draw = random.Random(seed)
    first: list[int] = []
    second: list[int] = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten().tolist()
        if len(members) < 2:
            raise ValueError(
                f"a class needs two samples or more to be split, got 1 of class {label}"
            )
        shuffled = sorted(members, key=lambda _: draw.random())
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        second += shuffled[:count]
        first += shuffled[count:]
    return torch.tensor(sorted(first)), torch.tensor(sorted(second))


def split_validation(train: Arrays, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """Take a validation set from the training set.

    Args:
        train: the training set.
        fraction: share of each class that is taken away for validation, between 0 and 1.
        seed: of the choice, which depends on nothing else but labels and fraction.

    Returns:
        what is left to train on, and the validation set.
    """
    rest, held_out = stratified(train.labels.cpu(), fraction, seed)
    return train.subset(rest), train.subset(held_out)


def last_in_name_order(
    names: Sequence[Sequence[str]], count: int = 100
) -> tuple[list[list[str]], list[list[str]]]:
    """The split of the published CIFAR10-DVS runs: the last ``count`` files of each class.

    Names are in LEXICOGRAPHIC order, so of 1,000 files numbered from 0 without leading zeros
    the last 100 are 909, 91, 910, ... 919, 92, 920, ... 999, and not 900 to 999.

    Args:
        names: file names of each class.
        count: how many of each class go to the second part.

    Returns:
        the names of both parts, each by class and in lexicographic order.

    Raises:
        ValueError: a class that has no more than ``count`` files.
    """
    ordered = [sorted(members) for members in names]
    for i, members in enumerate(ordered):
        if len(members) <= count:
            raise ValueError(
                f"the split takes {count} files of each class for the test set and needs more "
                f"than that, got {len(members)} of class {i}"
            )
    return [m[:-count] for m in ordered], [m[-count:] for m in ordered]
