"""Fully connected networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from eisnn.models.layers import Layers
from eisnn.nn import Spiking

__all__ = ["MLP_WIDTHS", "mlp_body"]

MLP_WIDTHS: dict[str, tuple[int, ...]] = {
    "mlp2": (500,),
    "mlp4": (500, 500, 300),
    "mlp6": (500,) * 2 + (300,) * 3,
    "mlp8": (500,) * 2 + (300,) * 3 + (100,) * 2,
    "mlp12": (500,) * 4 + (300,) * 4 + (100,) * 3,
    "mlp16": (500,) * 5 + (300,) * 5 + (100,) * 5,
}
"""Hidden widths; the number in a name counts the output layer too."""


def mlp_body(layers: Layers, widths: Sequence[int], in_features: int, num_classes: int) -> Spiking:
    """``[T, B, C, H, W]`` to ``[T, B, num_classes]``.

    Args:
        layers: builds E-I, BatchNorm or plain layers.
        widths: of the hidden layers.
        in_features: ``C * H * W``.
        num_classes: outputs.
    """
    body: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten(2))
    for i, width in enumerate(widths, 1):
        body[f"linear{i}"] = layers.linear(in_features, width)
        body[f"lif{i}"] = layers.lif()
        in_features = width
    body["output"] = layers.output(in_features, num_classes)
    return Spiking(body)
