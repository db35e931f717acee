"""E-I Init: the data-dependent initialisation of a whole model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from eisnn.functional.init import inhibitory_gain, input_moments, weight_scale
from eisnn.nn.circuit import EIModule, EIOutput

__all__ = ["ei_init_", "is_initialised"]


def ei_init_(
    model: nn.Module, batch: Tensor, *, generator: torch.Generator | None = None
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

    Returns:
        ``model``.

    Raises:
        ValueError: a layer's input is silent, constant, negative or not finite, or the batch
            has too few samples; the message names the layer. The model is left as it was.
        RuntimeError: a layer is not reached by the forward pass. The model is left as it was.
    """
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
                    _init_layer_(layer, args[0], generator)
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


def _init_layer_(layer: EIModule, x: Tensor, generator: torch.Generator | None) -> None:
    """Draw one layer's parameters from the statistics of its input, [N, ...] or [T, B, ...]."""
    item_rank = layer.weight_ee.dim() - 1  # [D] of a linear layer, [C, H, W] of a convolution
    samples = x.flatten(0, 1) if x.dim() == item_rank + 2 else x
    moments = input_moments(samples)
    scale = weight_scale(moments, layer.fan_in)
    for weight in (layer.weight_ee, layer.weight_ie):
        drawn = torch.empty(
            weight.shape,
            dtype=torch.promote_types(weight.dtype, torch.float32),
            device=generator.device if generator is not None else "cpu",
        )
        weight.copy_(drawn.exponential_(generator=generator).mul_(scale))
    layer.weight_ei.fill_(1 / layer.weight_ei.shape[1])
    if not isinstance(layer, EIOutput):
        layer.gain_i.fill_(inhibitory_gain(moments, layer.fan_in))
        layer.gain_e.fill_(1)
        layer.bias.fill_(0)
    layer.mark_initialised()
