"""Gradient norms of each parameter of each layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.analysis.watching import layers_of
from eisnn.nn import EIModule

__all__ = ["gradient_norms", "named_by_layer"]


def named_by_layer(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of each layer, by the layer's name and their kind.

    Kinds are the parameters' own names (``weight_ee``, ``weight``, ``bias``, ...), and
    ``norm_weight`` and ``norm_bias`` for those of BatchNorm.
    """
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, layer in layers_of(model).items():
        kinds = found[name] = {}
        for module in layer.modules():
            prefix = "norm_" if isinstance(module, _BatchNorm) else ""
            for own, parameter in module.named_parameters(recurse=False):
                kinds.setdefault(prefix + own, parameter)
    return found


def gradient_norms(
    model: nn.Module,
    batch: Tensor,
    labels: Tensor,
    *,
    scaled: bool = True,
    samples_at_once: int | None = None,
) -> dict[str, dict[str, float]]:
    """Euclidean norms of the gradient of the mean cross-entropy, for each parameter.

    The model is run as it is, in its present mode; parameters, their ``grad`` and the mode are
    left as they were.

    Args:
        model: from ``batch`` to logits ``[B, num_classes]``.
        batch: what the model takes, ``[B, ...]``.
        labels: ``[B]``.
        scaled: ``False`` takes back the division of the gradient of ``W_EI`` by the fan-in
            (E-I Prop 3), as in the paper's Figure 5.
        samples_at_once: the gradient is summed over parts of the batch of this size, which
            bounds memory; not for BatchNorm in training mode, whose statistics it would change.

    Returns:
        layer to kind of parameter (see :func:`named_by_layer`) to norm, in the model's order.
        Frozen parameters are left out.

    Raises:
        ValueError: there is not one label for each sample.
    """
    if len(batch) != len(labels) or not len(labels):
        raise ValueError(
            f"gradient_norms takes one label for each sample, got {len(batch)} samples and "
            f"{len(labels)} labels"
        )
    named = {
        (layer, kind): parameter
        for layer, kinds in named_by_layer(model).items()
        for kind, parameter in kinds.items()
        if parameter.requires_grad
    }
    size = samples_at_once or len(labels)
    sums = [torch.zeros_like(p) for p in named.values()]
    with torch.enable_grad():
        for inputs, answers in zip(batch.split(size), labels.split(size), strict=True):
            loss = F.cross_entropy(model(inputs), answers, reduction="sum") / len(labels)
            grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for total, grad in zip(sums, grads, strict=True):
                if grad is not None:
                    total += grad
    norms: dict[str, dict[str, float]] = {}
    layers = layers_of(model)
    for (layer, kind), total in zip(named, sums, strict=True):
        norm = total.double().norm().item()
        module = layers[layer]
        if not scaled and kind == "weight_ei" and isinstance(module, EIModule):
            norm /= _gradient_scale(module)
        norms.setdefault(layer, {})[kind] = norm
    return norms


def _gradient_scale(circuit: EIModule) -> float:
    """What the gradient of ``W_EI`` is multiplied by in the backward pass."""
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(circuit._scaled_weight_ei().sum(), circuit.weight_ei)
    return grad.flatten()[0].item()
