r"""The one weight of a circuit: folded excitatory rows over the inhibitory ones.

``[W_EE - W_EI W_IE; W_IE]``: one product with it gives the balanced and the inhibitory
currents. Registered as ``torch.ops.eisnn.circuit_weight``; its derivative keeps only the two
factors of the product.

Legend: E / I excitatory / inhibitory units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eisnn.functional.circuit import fold
from eisnn.ops.product import product
from eisnn.ops.registration import register
from eisnn.ops.transforms import transforming

__all__ = ["circuit_weight"]


def circuit_weight(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    """``W_EE - W_EI W_IE`` and below it ``W_IE``; the product in float32 or better.

    Args:
        weight_ee: ``[E, ...]``, the rest being one neuron's fan-in.
        weight_ie: ``[I, ...]``.
        weight_ei: ``[E, I]``.

    Returns:
        ``[E + I, ...]``, in the type of ``weight_ee``.
    """
    if transforming():
        return torch.cat([fold(weight_ee, weight_ei, weight_ie), weight_ie])
    return torch.ops.eisnn.circuit_weight(weight_ee, weight_ie, weight_ei)  # type: ignore[no-any-return]


def _forward(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    n_e, n_i = weight_ei.shape
    wide = torch.promote_types(weight_ee.dtype, torch.float32)
    both = weight_ee.new_empty(n_e + n_i, *weight_ee.shape[1:], dtype=wide)
    balanced, inhibitory = both.flatten(1).split([n_e, n_i])
    inhibitory.copy_(weight_ie.flatten(1))
    with torch.autocast(both.device.type, enabled=False):
        subtracted = product(weight_ei.to(wide), inhibitory.T)
        torch.sub(weight_ee.to(wide).flatten(1), subtracted, out=balanced)
    return both.to(weight_ee.dtype)


def _forward_shapes(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    return weight_ee.new_empty(sum(weight_ei.shape), *weight_ee.shape[1:])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _derivative(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weight_ie, weight_ei = ctx.saved_tensors
    wide = torch.promote_types(grad.dtype, torch.float32)
    grad = grad.contiguous()
    d_balanced, d_inhibitory = grad.to(wide).flatten(1).split(list(weight_ei.shape))
    with torch.autocast(grad.device.type, enabled=False):
        d_ie = d_inhibitory - product(weight_ei.to(wide).T, d_balanced.T)
        d_ei = -product(d_balanced, weight_ie.to(wide).flatten(1))
    return (
        grad[: len(d_balanced)],
        d_ie.view_as(weight_ie).to(weight_ie.dtype),
        d_ei.to(weight_ei.dtype),
    )


register(
    "circuit_weight(Tensor weight_ee, Tensor weight_ie, Tensor weight_ei) -> Tensor",
    _forward,
    _forward_shapes,
    _derivative,
    _keep,
)
