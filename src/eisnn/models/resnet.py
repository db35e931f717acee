"""Spike-element-wise residual networks (after Fang et al. 2021, arXiv 2102.04159).

A block's output spikes are added to its input, so what flows between blocks counts 0, 1, 2...
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from eisnn.models.layers import Layers, SpatialMean
from eisnn.nn import Spiking

__all__ = ["RESNET_BLOCKS", "STAGE_WIDTHS", "ResidualBlock", "resnet_body"]

RESNET_BLOCKS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
"""Blocks per stage, and whether they are bottlenecks."""

STAGE_WIDTHS = (64, 128, 256, 512)
"""Channels inside the blocks of each stage."""

EXPANSION = 4
"""A bottleneck puts out this many times its width."""


class ResidualBlock(nn.Module):
    """Convolutions with neurons, whose spikes are added to the input.

    A basic block is conv3x3-LIF-conv3x3-LIF, a bottleneck conv1x1-LIF-conv3x3-LIF-conv1x1-LIF
    with four times the width at the end; the first 3x3 convolution has the stride. Where the
    shape changes, the input passes through its own 1x1 strided convolution and neurons.

    Args:
        layers: builds E-I, BatchNorm or plain layers.
        in_channels: channels of the input.
        width: channels inside the block.
        stride: of the block.
        bottleneck: which of the two kinds.
    """

    def __init__(
        self, layers: Layers, in_channels: int, width: int, stride: int, bottleneck: bool
    ) -> None:
        super().__init__()
        self.out_channels = width * EXPANSION if bottleneck else width
        plan = [(width, 3, stride), (width, 3, 1)]
        if bottleneck:
            plan = [(width, 1, 1), (width, 3, stride), (self.out_channels, 1, 1)]
        main: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for i, (out_channels, kernel, step) in enumerate(plan, 1):
            main[f"conv{i}"] = layers.conv(channels, out_channels, kernel, step)
            main[f"lif{i}"] = layers.lif()
            channels = out_channels
        self.main = Spiking(main)
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if stride != 1 or in_channels != self.out_channels:
            shortcut["conv"] = layers.conv(in_channels, self.out_channels, 1, stride)
            shortcut["lif"] = layers.lif()
        self.shortcut = Spiking(shortcut)  # empty: the identity

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` to ``[T, B, C', H', W']``, spike counts to spike counts."""
        spikes: Tensor = self.main(x_seq)
        identity: Tensor = self.shortcut(x_seq)
        return spikes + identity

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step, ``[B, C, H, W]``; see :meth:`eisnn.nn.Spiking.step`."""
        main, shortcut = (None, None) if state is None else state
        spikes, main = self.main.step(x, main)
        identity, shortcut = self.shortcut.step(x, shortcut)
        return spikes + identity, (main, shortcut)


def resnet_body(
    layers: Layers,
    blocks: Sequence[int],
    bottleneck: bool,
    widths: Sequence[int],
    in_channels: int,
    num_classes: int,
) -> Spiking:
    """``[T, B, C, H, W]`` to ``[T, B, num_classes]``.

    Args:
        layers: builds E-I, BatchNorm or plain layers.
        blocks: number of blocks in each of the four stages.
        bottleneck: kind of block.
        widths: channels inside the blocks of each stage.
        in_channels: channels of the input.
        num_classes: outputs.
    """
    channels = widths[0]
    body: OrderedDict[str, nn.Module] = OrderedDict(
        conv=layers.conv(in_channels, channels, 3), lif=layers.lif()
    )
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
        for i in range(count):
            stride = 2 if stage > 1 and i == 0 else 1
            block = ResidualBlock(layers, channels, width, stride, bottleneck)
            body[f"stage{stage}_{i + 1}"] = block
            channels = block.out_channels
    body["pool"] = SpatialMean()
    body["output"] = layers.output(channels, num_classes)
    return Spiking(body)
