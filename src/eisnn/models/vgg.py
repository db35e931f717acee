"""VGG networks: 3x3 convolutions, 2x2 average pools, a light or full classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from eisnn.models.layers import Layers, SpatialMean
from eisnn.nn import AvgPool2d, Spiking

__all__ = ["CLASSIFIERS", "MIN_SIZE", "VGG_STAGES", "vgg_body"]

VGG_STAGES: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg8": ((64,), (128,), (256,), (512,), (512,)),
    "vgg11": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "vgg16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "vgg19": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
"""Channels of the convolutions; a pool follows each stage."""

CLASSIFIERS: dict[str, tuple[int, ...]] = {"light": (), "full": (4096, 4096)}
"""Widths of the hidden layers before the output layer."""

MIN_SIZE = 32
"""Smallest image, in pixels a side: five pools halve it to one position."""


def vgg_body(
    layers: Layers,
    stages: Sequence[Sequence[int]],
    in_channels: int,
    num_classes: int,
    hidden: Sequence[int] = (),
) -> Spiking:
    """``[T, B, C, H, W]`` to ``[T, B, num_classes]``, for inputs of 32x32 or more.

    Args:
        layers: builds E-I, BatchNorm or plain layers.
        stages: channels of the convolutions of each stage.
        in_channels: channels of the input.
        num_classes: outputs.
        hidden: widths of the classifier's hidden layers.
    """
    body: OrderedDict[str, nn.Module] = OrderedDict()
    i, channels = 0, in_channels
    for stage, widths in enumerate(stages, 1):
        for width in widths:
            i += 1
            body[f"conv{i}"] = layers.conv(channels, width, 3)
            body[f"lif{i}"] = layers.lif()
            channels = width
        body[f"pool{stage}"] = AvgPool2d(2)
    body["flatten"] = SpatialMean()  # 32x32 to 63x63 inputs have a single position here
    for i, width in enumerate(hidden, 1):
        body[f"linear{i}"] = layers.linear(channels, width)
        body[f"linear_lif{i}"] = layers.lif()
        channels = width
    body["output"] = layers.output(channels, num_classes)
    return Spiking(body)
