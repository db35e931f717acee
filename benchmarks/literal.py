"""The equations of the paper as they stand, one PyTorch operation after the other.

The baseline without anything that eisnn does for speed: excitatory and inhibitory currents are
two convolutions in PyTorch's default memory layout, on all time steps of the input; subtractive
and divisive inhibition are a product each; neurons run step by step; autograd keeps what it keeps.
The parameters, and the results, are those of the eisnn network.

Legend: T time, B batch, N = T*B samples.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eisnn.functional import circuit
from eisnn.nn import AvgPool2d, EIConv2d, EILinear, EIModule, EIOutput

__all__ = ["literal"]


def literal(model: nn.Module) -> nn.Module:
    """A copy of an E-I network that computes the same values literally."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        kind = _LITERAL.get(type(module))
        if kind is not None:
            module.__class__ = kind
    return twin


class LiteralConv2d(EIConv2d):
    """``[T, B, C, H, W]`` to the integrated current ``[T, B, E, H', W']``."""

    def forward(self, x_seq: Tensor) -> Tensor:
        x = x_seq.flatten(0, 1).contiguous()  # [N, C, H, W]
        i_ee = F.conv2d(x, self.weight_ee, None, self.stride, self.padding)
        i_ie = F.conv2d(x, self.weight_ie, None, self.stride, self.padding)
        return torch.unflatten(_integrated(self, i_ee, i_ie), 0, x_seq.shape[:2])


class LiteralLinear(EILinear):
    """``[T, B, D]`` to the integrated current ``[T, B, E]``."""

    def forward(self, x_seq: Tensor) -> Tensor:
        x = x_seq.flatten(0, 1)  # [N, D]
        i_int = _integrated(self, F.linear(x, self.weight_ee), F.linear(x, self.weight_ie))
        return torch.unflatten(i_int, 0, x_seq.shape[:2])


class LiteralOutput(EIOutput):
    """``[T, B, D]`` to the balanced current ``[T, B, E]``."""

    def forward(self, x_seq: Tensor) -> Tensor:
        x = x_seq.flatten(0, 1)  # [N, D]
        s_i = circuit.inhibitory_output(F.linear(x, self.weight_ie))
        i_sub = circuit.subtractive_inhibition(s_i, _weight_ei(self))
        return torch.unflatten(F.linear(x, self.weight_ee) - i_sub, 0, x_seq.shape[:2])


class LiteralAvgPool2d(AvgPool2d):
    """``[T, B, C, H, W]`` to ``[T, B, C, H // size, W // size]``."""

    def forward(self, x_seq: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x_seq.flatten(0, 1), self.size)
        return torch.unflatten(pooled, 0, x_seq.shape[:2])


def _integrated(layer: LiteralConv2d | LiteralLinear, i_ee: Tensor, i_ie: Tensor) -> Tensor:
    weight_ei = _weight_ei(layer)
    s_i = circuit.inhibitory_output(i_ie)
    i_sub = circuit.subtractive_inhibition(s_i, weight_ei)
    i_div = circuit.divisive_inhibition(s_i, weight_ei, layer.gain_i)
    return circuit.integrate(i_ee - i_sub, circuit.stabilise(i_div), layer.gain_e, layer.bias)


def _weight_ei(layer: EIModule) -> Tensor:
    return circuit.scale_grad(layer.weight_ei, 1 / layer.fan_in)


_LITERAL: dict[type[nn.Module], type[nn.Module]] = {
    EIConv2d: LiteralConv2d,
    EILinear: LiteralLinear,
    EIOutput: LiteralOutput,
    AvgPool2d: LiteralAvgPool2d,
}
