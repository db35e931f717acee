"""E-I Init: the data-dependent initialisation of a whole model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from eisnn.functional.init import (
    InputMoments,
    inhibitory_gain,
    input_moments,
    kaiming_std,
    spike_moments,
    weight_scale,
)
from eisnn.nn.circuit import EIModule, EIOutput

__all__ = ["ei_init_", "is_initialised"]


Scheme = Literal["ei", "fixed_p", "kaiming"]


def ei_init_(
    model: nn.Module,
    batch: Tensor,
    *,
    generator: torch.Generator | None = None,
    scheme: Scheme = "ei",
    p: float = 0.5,
) -> nn.Module:
    """Initialise every E-I layer of ``model`` from one batch of training data.

    The batch passes through the model once, in evaluation mode and without gradients. Each
    E-I layer is initialised from the statistics of the input that reaches it (the formulas of
    :mod:`eisnn.functional.init`) and then computes the input of the next one. Weights are
    drawn in the order in which layers run, ``W_EE`` before ``W_IE``. A layer that is used
    more than once is initialised at its first use. A model without E-I layers is left as it is.

    Call it before wrapping the model in DistributedDataParallel or compiling it.

    Args:
        model: any module with E-I layers.
        batch: what ``model`` takes, on its device and in its dtype: images
            ``[B, C, H, W]``, event frames ``[B, T, C, H, W]``, or a layer's own input. Use at
            least as many items as a training batch.
        generator: source of randomness; the global one of the CPU if ``None``. A CPU
            generator gives the same weights on every device.
        scheme: ``"ei"``, the above. To compare with, two that measure nothing, for research:
            ``"fixed_p"``, the same formulas for spikes of probability ``p`` in front of every
            layer; ``"kaiming"``, the usual rule made non-negative:
            ``W_EE, W_IE ~ |N(0, 2 / d)|``, ``W_EI = 1 / n_I``, ``g_I = g_E = 1``, ``b_E = 0``.
        p: probability of a spike that ``"fixed_p"`` assumes, between 0 and 1.

    Returns:
        ``model``.

    Raises:
        ValueError: a layer's input is silent, constant, negative or not finite, or the batch
            has too few samples; the message names the layer. The model is left as it was. Or
            there is no such scheme, or ``p`` is no probability.
        RuntimeError: a layer is not reached by the forward pass. The model is left as it was.
    """
    if scheme not in get_args(Scheme):
        raise ValueError(
            f"scheme must be one of {', '.join(get_args(Scheme))}, got {scheme!r}. Use 'ei' for "
            "the published method"
        )
    assumed = spike_moments(p) if scheme == "fixed_p" else None
    init_layer_ = _kaiming_ if scheme == "kaiming" else partial(_ei_layer_, moments=assumed)
    layers = dict(_ei_layers(model))
    before = {
        name: (layer.initialised, [p.detach().clone() for p in layer.parameters(recurse=False)])
        for name, layer in layers.items()
    }
    training = {module: module.training for module in model.modules()}
    pending = dict(layers)
    handles = []

    def initialise_at_first_use(name: str, layer: EIModule) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            if pending.pop(name, None) is not None:
                try:
                    init_layer_(layer, args[0], generator)
                except ValueError as error:
                    where = f"layer {name!r}" if name else "the layer"
                    raise ValueError(f"E-I Init of {where} ({layer}): {error}") from None

        handles.append(layer.register_forward_pre_hook(hook))

    try:
        for name, layer in layers.items():
            initialise_at_first_use(name, layer)
        model.eval()
        with torch.no_grad():
            model(batch)
        if pending:
            raise RuntimeError(
                f"E-I Init did not reach {', '.join(map(repr, pending))}: model(batch) does not "
                "run these layers. Initialise them through a model that does, or remove them"
            )
    except BaseException:
        with torch.no_grad():
            for name, (initialised, values) in before.items():
                layers[name].initialised = initialised
                for parameter, value in zip(
                    layers[name].parameters(recurse=False), values, strict=True
                ):
                    parameter.copy_(value)
        raise
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return model


def is_initialised(model: nn.Module) -> bool:
    """Whether every E-I layer of ``model`` has weights, drawn or loaded."""
    return all(layer.initialised for _, layer in _ei_layers(model))


def _ei_layers(model: nn.Module) -> Iterator[tuple[str, EIModule]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, EIModule))


def _ei_layer_(
    layer: EIModule,
    x: Tensor,
    generator: torch.Generator | None,
    moments: InputMoments | None,
) -> None:
    """E-I Init from the moments of the input ``[N, ...]`` or ``[T, B, ...]``, or assumed ones."""
    item_rank = layer.weight_ee.dim() - 1  # [D] of a linear layer, [C, H, W] of a convolution
    samples = x.flatten(0, 1) if x.dim() == item_rank + 2 else x
    moments = moments or input_moments(samples)
    scale = weight_scale(moments, layer.fan_in)
    gain = inhibitory_gain(moments, layer.fan_in)
    for weight in (layer.weight_ee, layer.weight_ie):
        drawn = _like(weight, generator).exponential_(generator=generator)
        weight.copy_(drawn.mul_(scale))
    _finish_(layer, gain)


def _kaiming_(layer: EIModule, x: Tensor, generator: torch.Generator | None) -> None:
    std = kaiming_std(layer.fan_in)
    for weight in (layer.weight_ee, layer.weight_ie):
        weight.copy_(_like(weight, generator).normal_(0, std, generator=generator).abs_())
    _finish_(layer, gain=1)


def _like(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uninitialised, where the generator draws, in float32 or better."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    device = generator.device if generator is not None else "cpu"
    return torch.empty(weight.shape, dtype=dtype, device=device)


def _finish_(layer: EIModule, gain: float) -> None:
    """The parameters that are the same for all units."""
    layer.weight_ei.fill_(1 / layer.weight_ei.shape[1])
    if not isinstance(layer, EIOutput):
        layer.gain_i.fill_(gain)
        layer.gain_e.fill_(1)
        layer.bias.fill_(0)
    layer.mark_initialised()
