"""What is measured: networks with the shape of their input.

Legend: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import eisnn
from eisnn.models import SpikingNetwork

__all__ = ["CASES", "CURVES", "CURVE_CASE", "Case", "quick", "quick_curve"]


@dataclass(frozen=True)
class Case:
    """One network and its batch."""

    model: str
    batch: int
    T: int
    channels: int = 3
    size: int = 32
    width: float = 1.0
    events: bool = False
    """Whether inputs are event frames ``[B, T, C, H, W]`` instead of images ``[B, C, H, W]``."""

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """A batch of random images or frames, and labels."""
        generator = torch.Generator().manual_seed(0)
        item = (self.channels, self.size, self.size)
        if self.events:
            x = (torch.rand(self.batch, self.T, *item, generator=generator) < 0.1).float()
        else:
            x = torch.rand(self.batch, *item, generator=generator)
        labels = torch.randint(10, (self.batch,), generator=generator)
        return x.to(device), labels.to(device)

    def network(self, norm: str, batch: Tensor) -> SpikingNetwork:
        """The network on the device of its batch, initialised from it."""
        torch.manual_seed(0)
        model = eisnn.create_model(
            self.model,
            num_classes=10,
            in_channels=self.channels,
            image_size=self.size,
            T=self.T,
            norm=norm,
            width=self.width,
        ).to(batch.device)
        if norm == "ei":
            eisnn.ei_init_(model, batch)
        return model


CASES: Mapping[str, Case] = {
    "vgg8": Case("vgg8", batch=32, T=4),
    "vgg16": Case("vgg16", batch=16, T=4),
    "resnet18": Case("resnet18", batch=16, T=4),
    "mlp4": Case("mlp4", batch=128, T=4, channels=1, size=28),
    "events": Case("vgg8", batch=16, T=10, channels=2, size=48, events=True),
}

CURVE_CASE = Case("vgg8", batch=16, T=4)
CURVES: Mapping[str, tuple[float, ...]] = {
    "T": (4, 8, 16),
    "batch": (8, 16, 32, 64),
    "width": (0.25, 0.5, 1.0),
}
"""Fields of :data:`CURVE_CASE` that are varied, one at a time."""


def quick(case: Case) -> Case:
    """The same case, tiny."""
    return replace(case, batch=8, T=2, width=0.1, size=min(case.size, 32))


def quick_curve(values: tuple[float, ...]) -> tuple[float, ...]:
    """The first two points, at an eighth of their size."""
    return tuple(value / 8 if isinstance(value, float) else -(-value // 4) for value in values[:2])
