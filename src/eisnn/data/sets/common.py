"""What the data sets share.

Legend: n samples, C channels, H / W height and width.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from eisnn.data.source import Arrays, Provenance

__all__ = ["DIGITS", "image_arrays", "padding", "warn_unpublished"]

DIGITS = tuple("0123456789")


def image_arrays(
    images: NDArray[Any], labels: NDArray[Any], scale: float, pad_to: int | None = None
) -> Arrays:
    """Images ``[n, C, H, W]`` with zeros around them, if they are to be larger.

    Raises:
        ValueError: ``pad_to`` is smaller than the images.
    """
    inputs = torch.from_numpy(images)
    if pad_to is not None:
        height, width = inputs.shape[-2:]
        if pad_to < max(height, width):
            raise ValueError(f"pad_to must be {max(height, width)} or more, got {pad_to}")
        top, left = (pad_to - height) // 2, (pad_to - width) // 2
        inputs = F.pad(inputs, (left, pad_to - width - left, top, pad_to - height - top))
    return Arrays(inputs, torch.from_numpy(labels.astype(np.int64)), scale)


def padding(pad_to: int | None) -> Provenance:
    """What provenance says about it."""
    return {} if pad_to is None else {"pad_to": pad_to}


def warn_unpublished(what: str) -> None:
    """Data under a well-known name that are not those that are published under it."""
    warnings.warn(
        f"{what} not what was published under that name: do not compare results with those of "
        "others",
        stacklevel=3,
    )
