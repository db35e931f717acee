"""The floor: the convolutions, average pools and matrix products of an E-I network alone.

What is left of a training step when neurons, inhibition, initial copies and the optimiser cost
nothing: each product runs forward and backward on inputs that are there already. The first layer
of a network for images, whose input is the same at each time step, is computed once, as in eisnn.

Legend: T time, B batch, N samples, E / I excitatory / inhibitory channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eisnn.nn import AvgPool2d, EIConv2d, EIModule, EIOutput

__all__ = ["LAYOUTS", "Floor", "Operation", "operations"]

LAYOUTS = {"channels_last": torch.channels_last, "default layout": torch.contiguous_format}
"""The memory formats that are tried; the faster one is the floor."""


@dataclass(frozen=True)
class Operation:
    """One product or pool."""

    input: tuple[int, ...]
    """``[N, C, H, W]`` or ``[N, D]``."""
    weight: tuple[int, ...] | None
    """``[E + I, C, kH, kW]`` or ``[E + I, D]`` (``[E, D]`` of an output layer); a pool has none."""
    stride: tuple[int, int] = (1, 1)
    """Of the convolution; of a pool also its size."""
    padding: tuple[int, int] = (0, 0)
    input_gradient: bool = True
    """Whether the backward pass goes on to the input."""

    def __call__(self, x: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            return F.avg_pool2d(x, self.stride)
        if weight.dim() == 2:
            return F.linear(x, weight)
        if weight.shape[2:] == (1, 1) and x.device.type == "cpu":
            # the same, without a fault of oneDNN's; see eisnn.ops.convolution
            return F.conv2d(x[:, :, :: self.stride[0], :: self.stride[1]], weight)
        return F.conv2d(x, weight, None, self.stride, self.padding)


def operations(model: nn.Module, batch: Tensor) -> list[Operation]:
    """The products and pools of an E-I network in the order in which they run."""
    found: list[Operation] = []

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x_seq = args[0]
        static = x_seq.stride(0) == 0  # one step, shown T times
        n = x_seq.shape[1] if static else x_seq.shape[0] * x_seq.shape[1]
        described = partial(
            Operation, (n, *x_seq.shape[2:]), input_gradient=any(op.weight for op in found)
        )
        if isinstance(module, AvgPool2d):
            found.append(described(None, (module.size, module.size)))
        elif isinstance(module, EIModule):
            n_e, *fan_in = module.weight_ee.shape
            n_i = 0 if isinstance(module, EIOutput) else module.weight_ie.shape[0]
            weight = (n_e + n_i, *fan_in)
            if isinstance(module, EIConv2d):
                found.append(described(weight, module.stride, module.padding))
            else:
                found.append(described(weight))

    handles = [m.register_forward_pre_hook(record) for m in model.modules()]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


class Floor:
    """Runs the operations of a network on tensors that it holds.

    Args:
        plan: what to run.
        device: where.
        dtype: of everything.
        layout: memory format of inputs, weights and gradients.
    """

    def __init__(
        self,
        plan: list[Operation],
        device: torch.device,
        dtype: torch.dtype,
        layout: torch.memory_format,
    ) -> None:
        def tensor(shape: tuple[int, ...], draw: Callable[..., Tensor]) -> Tensor:
            x = draw(shape, device=device).to(dtype)
            return x.contiguous(memory_format=layout) if x.dim() == 4 else x

        self.plan = plan
        self.inputs = [tensor(op.input, _spikes).requires_grad_(op.input_gradient) for op in plan]
        self.weights = [
            None if op.weight is None else tensor(op.weight, torch.randn).requires_grad_()
            for op in plan
        ]
        with torch.no_grad():
            self.gradients = [torch.randn_like(y) for y in self._forward()]
        self.leaves = [
            x for x in (*self.inputs, *self.weights) if x is not None and x.requires_grad
        ]

    def mode(self, training: bool) -> None:
        pass

    def training_step(self) -> None:
        torch.autograd.grad(self._forward(), self.leaves, self.gradients)

    @torch.inference_mode()
    def inference_step(self) -> None:
        self._forward()

    def _forward(self) -> list[Tensor]:
        return [op(x, w) for op, x, w in zip(self.plan, self.inputs, self.weights, strict=True)]


def _spikes(shape: tuple[int, ...], **options: Any) -> Tensor:
    return (torch.rand(shape, **options) < 0.2).float()
