"""Networks by name."""

from __future__ import annotations

import difflib
import math
from typing import Any

from eisnn.functional.neuron import Surrogate
from eisnn.models.layers import Layers
from eisnn.models.mlp import MLP_WIDTHS, mlp_body
from eisnn.models.network import SpikingNetwork
from eisnn.models.resnet import RESNET_BLOCKS, STAGE_WIDTHS, resnet_body
from eisnn.models.vgg import CLASSIFIERS, MIN_SIZE, VGG_STAGES, vgg_body
from eisnn.nn import CircuitOptions, Spiking, set_options

__all__ = ["create_model", "list_models"]


def list_models() -> list[str]:
    """The names that :func:`create_model` knows."""
    return [*MLP_WIDTHS, *VGG_STAGES, *RESNET_BLOCKS]


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | tuple[int, int] = 32,
    T: int = 4,
    norm: str = "ei",
    ei_ratio: int = 4,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    surrogate: str | Surrogate = "sigmoid",
    classifier: str = "light",
    width: float = 1.0,
    recompute: bool = False,
    circuit: CircuitOptions | None = None,
) -> SpikingNetwork:
    """A network of the paper.

    An E-I network has no weights until :func:`eisnn.ei_init_` draws them.

    Args:
        name: ``mlp2`` to ``mlp16``, ``vgg8`` to ``vgg19``, ``resnet18`` to ``resnet152``; see
            :func:`list_models`.
        num_classes: number of logits.
        in_channels: 3 for colour, 1 for grey, 2 for the polarities of events.
        image_size: side, or (height, width), in pixels; it matters to the MLPs only.
        T: how often a static image is presented. Event frames bring their own time axis.
        norm: ``"ei"``, E-I circuits; ``"bn"``, BatchNorm; ``"none"``, neither.
        ei_ratio: excitatory units per inhibitory one.
        tau: membrane time constant in time steps.
        v_threshold: firing threshold.
        surrogate: as in :class:`eisnn.nn.LIF`.
        classifier: of the VGGs, ``"light"`` or ``"full"`` (two hidden layers of 4096).
        width: multiplies the widths of all hidden layers, for studies at small scale.
        recompute: keep only what flows between blocks for the backward pass; see
            :class:`eisnn.nn.Spiking`. Less memory, more time, for ``"ei"`` and ``"none"``.
        circuit: how the E-I circuits depart from the published method, for research; not at
            all if ``None``.

    Returns:
        a module from images ``[B, C, H, W]`` or event frames ``[B, T, C, H, W]`` to logits
        ``[B, num_classes]``.

    Raises:
        ValueError: no such network, or an option out of its range.
    """
    layers = Layers(norm, ei_ratio, tau, v_threshold, surrogate)
    for value, what in ((num_classes, "num_classes"), (in_channels, "in_channels")):
        if value < 1:
            raise ValueError(f"{what} must be a positive number, got {value}")
    if not 0 < width < math.inf:
        raise ValueError(f"width multiplies the layers' widths and must be > 0, got {width}")

    if recompute and norm == "bn":
        raise ValueError(
            "recompute runs the forward pass twice, and BatchNorm would count each batch twice in "
            "its running statistics. Leave recompute out, or use norm='ei'"
        )
    if classifier not in CLASSIFIERS:
        raise ValueError(f"classifier must be {' or '.join(CLASSIFIERS)}, got {classifier!r}")

    def network(body: Spiking, **limits: Any) -> SpikingNetwork:
        body.recompute = recompute
        set_options(body, circuit or CircuitOptions())
        return SpikingNetwork(body, T=T, in_channels=in_channels, **limits)

    def scaled(widths: tuple[int, ...]) -> list[int]:
        return [max(1, round(w * width)) for w in widths]

    if name in MLP_WIDTHS:
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        features = in_channels * math.prod(size)
        body = mlp_body(layers, scaled(MLP_WIDTHS[name]), features, num_classes)
        return network(body, image_size=size)
    if name in VGG_STAGES:
        stages = [scaled(stage) for stage in VGG_STAGES[name]]
        hidden = scaled(CLASSIFIERS[classifier])
        body = vgg_body(layers, stages, in_channels, num_classes, hidden)
        return network(body, min_size=MIN_SIZE)
    if name in RESNET_BLOCKS:
        blocks, bottleneck = RESNET_BLOCKS[name]
        widths = scaled(STAGE_WIDTHS)
        body = resnet_body(layers, blocks, bottleneck, widths, in_channels, num_classes)
        return network(body)
    close = difflib.get_close_matches(name, list_models(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"there is no network {name!r}.{hint} There are: {', '.join(list_models())}")
