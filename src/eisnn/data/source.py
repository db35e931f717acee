"""What every data set is: labelled arrays for training and test, with their provenance.

Legend: n samples, B batch, T time, C channels, H / W height and width.

Inputs are kept as the small integers they are stored as and become float32 one batch at a
time. They are scaled, never shifted: mean/std normalisation is not offered, because an E-I
circuit needs non-negative inputs. With ``x < 0`` the inhibitory current could turn negative,
its rectification would no longer be the identity, and the divisor could vanish or change sign.
E-I Init takes the inputs' mean and variance into account, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Arrays", "DataSource", "Provenance"]

Provenance = dict[str, str | int | float]
"""What a run must record to be repeated: checksums of the data, parameters."""

_STORED = (torch.uint8, torch.int16, torch.int32)

_NAMED = 5
"""Classes whose names are listed, at most."""


@dataclass(frozen=True)
class Arrays:
    """Labelled samples.

    They may live in memory, on a GPU, or in a memory-mapped file of prepared data, of which
    only the batches that are asked for are read.

    Attributes:
        inputs: images ``[n, C, H, W]`` or event frames ``[n, T, C, H, W]``, non-negative, in
            the smallest of uint8, int16 and int32 that holds them.
        labels: classes, ``[n]``, int64.
        scale: the stored value that means 1.0: 255 for images, 1 for event counts.
    """

    inputs: Tensor
    labels: Tensor
    scale: float

    def __post_init__(self) -> None:
        if self.inputs.dtype not in _STORED or self.inputs.dim() not in (4, 5):
            raise ValueError(
                "inputs must be uint8, int16 or int32 of shape [n, C, H, W] or [n, T, C, H, W], "
                f"got {self.inputs.dtype} of shape {list(self.inputs.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.inputs.shape[:1]:
            raise ValueError(
                f"labels must be int64 of shape [{len(self.inputs)}], one for each input, got "
                f"{self.labels.dtype} of shape {list(self.labels.shape)}"
            )
        if not self.scale > 0:
            raise ValueError(f"scale is the stored value that means 1.0, > 0, got {self.scale}")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, indices: Tensor | Sequence[int], device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Samples as a network takes them.

        Args:
            indices: which samples, ``[B]``.
            device: where the batch is wanted. What travels there is the stored integers.

        Returns:
            float32 inputs divided by ``scale``, ``[B, C, H, W]`` or ``[B, T, C, H, W]``, and
            labels ``[B]``.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        inputs = self.inputs[indices].to(device).float()
        return inputs.div_(self.scale), self.labels[indices].to(device)

    def subset(self, indices: Tensor | Sequence[int]) -> Arrays:
        """A copy of the samples ``indices``, ``[n']``, in memory."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return replace(self, inputs=self.inputs[indices], labels=self.labels[indices])

    def to(self, device: torch.device | str) -> Arrays:
        """The same samples on ``device``: small data sets can live on the GPU."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class DataSource:
    """A data set, split for training and test.

    Attributes:
        name: as in :func:`eisnn.data.load_data`.
        train, test: the samples of each part.
        classes: a name for each label.
        split: where the parts come from: ``"official"``, ``"published"``, ``"random"``, ...
        provenance: what a run must record to be repeated: checksums of the data, parameters.
    """

    name: str
    train: Arrays
    test: Arrays
    classes: tuple[str, ...]
    split: str
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.train.inputs.shape[1:] != self.test.inputs.shape[1:]:
            raise ValueError(
                f"{self.name}: training and test inputs must have one shape, got "
                f"{list(self.train.inputs.shape[1:])} and {list(self.test.inputs.shape[1:])}"
            )
        for part, arrays in (("training", self.train), ("test", self.test)):
            if not len(arrays):
                raise ValueError(f"{self.name}: the {part} set has no samples")
            low, high = int(arrays.labels.min()), int(arrays.labels.max())
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"{self.name}: labels must be 0 to {self.num_classes - 1}, one for each of "
                    f"{self.num_classes} classes, got {low} to {high} in the {part} set"
                )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """3 for colour, 1 for grey, 2 for the polarities of events."""
        return self.train.inputs.shape[-3]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, before any augmentation or evaluation transform."""
        return self.train.inputs.shape[-2], self.train.inputs.shape[-1]

    @property
    def is_events(self) -> bool:
        """Whether samples have a time axis of their own."""
        return self.train.inputs.dim() == 5

    def describe(self) -> str:
        """The data set in a line for people."""
        names = [*self.classes[:_NAMED], *(["..."] if self.num_classes > _NAMED else [])]
        return (
            f"{self.name}: {self.num_classes} classes ({', '.join(names)}), {len(self.train):,} "
            f"training + {len(self.test):,} test samples (split: {self.split}), "
            f"{'x'.join(map(str, self.train.inputs.shape[1:]))}"
        )
