"""The one place where the three kinds of networks differ: what a layer is.

========  ===============================  =======================================
norm      hidden layer                     output layer
========  ===============================  =======================================
``ei``    E-I circuit                      E-I circuit without division
``bn``    convolution without bias (or     linear with bias
          linear with bias) + BatchNorm
``none``  convolution or linear with bias  linear with bias
========  ===============================  =======================================

All take and return ``[T, B, ...]``; the weights of ``bn`` and ``none`` are signed and have
PyTorch's default initialisation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from eisnn.functional.neuron import Surrogate
from eisnn.nn import LIF, EIConv2d, EILinear, EIOutput, TimeWise

__all__ = ["NORMS", "Layers", "SpatialMean"]

NORMS = ("ei", "bn", "none")


class SpatialMean(nn.Module):
    """Global average pooling."""

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` to ``[T, B, C]``."""
        return x_seq.mean((-2, -1))


@dataclass(frozen=True)
class Layers:
    """Builds the layers of one network; the options are those of ``create_model``."""

    norm: str = "ei"
    ei_ratio: int = 4
    tau: float = 2.0
    v_threshold: float = 1.0
    surrogate: str | Surrogate = "sigmoid"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {self.norm!r}")

    def conv(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Module:
        """Convolution with "same" padding for odd kernels, ``[T, B, C, H, W]``."""
        padding = kernel // 2
        if self.norm == "ei":
            return EIConv2d(
                in_channels, out_channels, kernel, stride, padding, ei_ratio=self.ei_ratio
            )
        bn = self.norm == "bn"
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=not bn)
        return TimeWise(conv, nn.BatchNorm2d(out_channels)) if bn else TimeWise(conv)

    def linear(self, in_features: int, out_features: int) -> nn.Module:
        """Hidden linear layer, ``[T, B, D]``."""
        if self.norm == "ei":
            return EILinear(in_features, out_features, ei_ratio=self.ei_ratio)
        linear = nn.Linear(in_features, out_features)
        if self.norm == "bn":
            return TimeWise(linear, nn.BatchNorm1d(out_features))
        return TimeWise(linear)

    def output(self, in_features: int, num_classes: int) -> nn.Module:
        """Output layer, ``[T, B, D]`` to ``[T, B, num_classes]``."""
        if self.norm == "ei":
            return EIOutput(in_features, num_classes, ei_ratio=self.ei_ratio)
        return nn.Linear(in_features, num_classes)

    def lif(self) -> LIF:
        """Spiking neurons, ``[T, B, ...]``."""
        return LIF(self.tau, self.v_threshold, self.surrogate)
