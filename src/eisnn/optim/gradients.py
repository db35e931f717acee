r"""Two rules that make gradients of E-I circuits fit for large steps.

Both are hooks on the step of any optimiser. Output layers, which do not divide, are exempt unless
they are asked for.

Legend: E / I excitatory / inhibitory units, C units of the input, D fan-in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from eisnn.nn import EIModule, EIOutput
from eisnn.optim.hooks import before_step

__all__ = ["agc", "centre_gradients", "centred", "clipped"]

SMALLEST_NORM = 1e-3
"""Weights with a smaller norm count as this large, so that they can leave zero."""


def agc(
    model: nn.Module, optimiser: Optimizer, ratio: float = 0.03, *, outputs: bool = False
) -> RemovableHandle:
    """Unit-wise adaptive gradient clipping of the E-I layers at every step of ``optimiser``.

    No unit's gradient exceeds ``ratio`` times the size of what it changes; see :func:`clipped`.
    (Brock, De, Smith & Simonyan 2021, arXiv 2102.06171, equation 3.) Multiplying ``W_EE`` and
    ``W_IE`` of a circuit by one constant leaves its current unchanged, so that only relative
    steps mean anything.

    Args:
        model: with E-I layers.
        optimiser: any; of ``model``.
        ratio: > 0.
        outputs: clip output layers too, for networks of fifty layers: the steps of an unclipped
            output layer, which reads many spike counts, shift all layers below it at once.

    Returns:
        a handle whose ``remove()`` ends it.

    Raises:
        ValueError: ``ratio`` is not positive.
    """
    if not ratio > 0:
        raise ValueError(f"ratio of gradient to weight must be > 0, got {ratio!r}. Use 0.03")

    def clip() -> None:
        scale = getattr(optimiser, "grad_scale", None)  # fused steps unscale by themselves
        for layer in _layers(model, outputs):
            for name, parameter in layer.named_parameters(recurse=False):
                if parameter.grad is not None:
                    limit = ratio if scale is None else ratio * scale
                    parameter.grad.copy_(clipped(name, parameter, parameter.grad, limit))

    return before_step(optimiser, clip)


def clipped(name: str, parameter: Tensor, grad: Tensor, ratio: float | Tensor) -> Tensor:
    """A gradient that is at most ``ratio`` times the size of its parameter, unit by unit.

    Of a weight, each unit's row is one vector ``w`` with gradient ``g``::

        g  <-  g min(1, ratio |w| / |g|)

    Gains are clipped by entry to ``ratio g``, biases to ``ratio``: the size of an integrated
    current is one.

    Args:
        name: of the parameter in its layer, such as ``"weight_ee"``.
        parameter: ``[E or I, ...]``.
        grad: the same shape.
        ratio: > 0.
    """
    if name == "bias":
        return grad.clamp(-ratio, ratio)  # type: ignore[arg-type]
    size, length = _norms(parameter), _norms(grad)
    limit = ratio * size.clamp(min=SMALLEST_NORM)
    return torch.where(length > limit, grad * (limit / length), grad)


def centre_gradients(model: nn.Module, optimiser: Optimizer) -> RemovableHandle:
    """Remove from the weights' gradients what acts along the mean input; see :func:`centred`.

    The input of ``W_EE`` and ``W_IE`` is the circuit's, that of ``W_EI`` is the inhibitory
    output. Their means are the running ones that homeostasis keeps; where a layer has none, all
    inputs are taken to be equal, and the mean over the fan-in is removed. Add it before
    :func:`agc`. Output layers are exempt.

    Args:
        model: with E-I layers.
        optimiser: any; of ``model``.

    Returns:
        a handle whose ``remove()`` ends it.
    """

    def centre() -> None:
        for layer in _layers(model, outputs=False):
            h = layer.homeostasis
            x, s_i = (None, None) if h is None else (h.input_mean, h.inhibition)
            for weight, mean in (
                (layer.weight_ee, x),
                (layer.weight_ie, x),
                (layer.weight_ei, s_i),
            ):
                if (grad := weight.grad) is not None:
                    m = grad.new_ones(()) if mean is None else mean.to(grad.dtype)
                    grad.copy_(centred(grad, m))

    return before_step(optimiser, centre)


def centred(grad: Tensor, input_mean: Tensor) -> Tensor:
    r"""``g - (g . m) m / |m|^2`` for the gradient ``g`` of each unit and the mean input ``m``.

    A step along ``m`` shifts the mean current of the unit, by ``|m|^2``: as inputs are not
    negative, this is the direction of by far the largest curvature, and homeostasis undoes the
    shift anyway, only later.

    Args:
        grad: ``[units, C, ...]``.
        input_mean: ``[C]``, or a scalar for the same mean everywhere. The groups of a grouped
            convolution, which see ``C / groups`` units each, share the average of their means.
    """
    if input_mean.dim() and len(input_mean) != grad.shape[1]:
        input_mean = input_mean.view(-1, grad.shape[1]).mean(0)
    m = input_mean.reshape(-1, *[1] * (grad.dim() - 2)).expand(grad.shape[1:]).flatten()
    along = (grad.flatten(1) @ m) / m.square().sum().clamp(min=torch.finfo(m.dtype).tiny)
    return grad - (along[:, None] * m).view_as(grad)


def _norms(t: Tensor) -> Tensor:
    """Of the rows of a weight, or of the entries of a vector; they broadcast to ``t``."""
    if t.dim() == 1:
        return t.abs()
    norms: Tensor = torch.linalg.vector_norm(t, dim=tuple(range(1, t.dim())), keepdim=True)
    return norms


def _layers(model: nn.Module, outputs: bool) -> list[EIModule]:
    layers = [m for m in model.modules() if isinstance(m, EIModule)]
    return layers if outputs else [m for m in layers if not isinstance(m, EIOutput)]
