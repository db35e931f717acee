r"""The E-I circuit of one layer (Liu, Ding & Yu, ICLR 2026, arXiv 2509.23253).

With input ``x >= 0``, excitatory neurons ``E`` and inhibitory neurons ``I``::

    I_EE  = W_EE x                                       excitatory current
    s_I   = max(0, W_IE x)                               inhibitory output
    I_sub = W_EI s_I                                     subtractive inhibition
    I_div = W_EI (g_I * s_I)                             divisive inhibition
    I_int = g_E * (I_EE - I_sub) / stab(I_div) + b_E     integrated current

Every function takes a linear layer's ``[N, units]`` and a convolution's
``[N, units, H, W]`` alike: units (channels) are axis 1, and one entry of axis 0 is
one *sample*, an item at one time step with all its channels and positions.

Legend: N = T*B samples, E / I excitatory / inhibitory units, D fan-in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "convolution_reach",
    "divisive_inhibition",
    "fold",
    "inhibitory_output",
    "integrate",
    "scale_grad",
    "stabilise",
    "subtractive_inhibition",
]


def inhibitory_output(
    i_ie: Tensor, reach: Tensor | None = None, *, straight_through: bool = True
) -> Tensor:
    r"""Steady state of the fast inhibitory neurons, ``s_I = max(0, I_IE)``.

    With ``x, W_IE >= 0`` the maximum changes nothing. What it and ``reach`` are for is
    rounding: a neuron that no active input reaches has a current of exactly zero, which
    sums of products return exactly, but convolution algorithms that transform their
    input (Winograd, FFT) return as a tiny number of either sign. Divided by, that number
    is noise. ``reach`` states where the current cannot be zero by construction; elsewhere
    ``s_I`` is set to zero. Where zeros are exact already, nothing is changed, so no
    threshold has to be chosen.

    Args:
        i_ie: inhibitory currents, ``[N, I]`` or ``[N, I, H, W]``.
        reach: booleans of the same shape from :func:`convolution_reach`, or ``None`` where
            zeros are exact (matrix products, direct convolutions).
        straight_through: the gradient is the identity, also at the entries set to zero.
            ``False``, for weights of either sign: it is the maximum's, zero where
            ``I_IE < 0``.

    Returns:
        ``s_I``, the shape of ``i_ie``, ``>= 0``; NaN stays NaN.
    """
    rectified = i_ie.clamp(min=0)
    if reach is not None:
        rectified = torch.where(reach | i_ie.isnan(), rectified, 0)
    return i_ie + (rectified - i_ie).detach() if straight_through else rectified


def convolution_reach(
    x: Tensor,
    weight_ie: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Which inhibitory neurons are reached by at least one active input.

    Counts, with a convolution of zeros and ones, the active inputs (``x > 0``) that have a
    positive weight to the neuron. The count is a whole number, so an algorithm may be wrong
    by anything below one half and the answer is still right: this holds where the current
    itself cannot be told from zero.

    Args:
        x: input, ``[N, C, H, W]``.
        weight_ie: inhibitory kernel, ``[I, C / groups, kH, kW]``.
        stride: as in :func:`torch.nn.functional.conv2d`, as are ``padding``, ``dilation``
            and ``groups``.

    Returns:
        booleans, ``[N, I, H_out, W_out]``.
    """
    with torch.no_grad():
        active = (x > 0).to(weight_ie.dtype)
        connected = (weight_ie > 0).to(weight_ie.dtype)
        return F.conv2d(active, connected, None, stride, padding, dilation, groups) > 0.5


def subtractive_inhibition(s_i: Tensor, weight_ei: Tensor) -> Tensor:
    """``I_sub = W_EI s_I``.

    Args:
        s_i: inhibitory output, ``[N, I]`` or ``[N, I, H, W]``.
        weight_ei: lateral weights, ``[E, I]``.

    Returns:
        ``[N, E]`` or ``[N, E, H, W]``.
    """
    if s_i.dim() == 2:
        return F.linear(s_i, weight_ei)
    return F.conv2d(s_i, weight_ei[:, :, None, None])


def divisive_inhibition(s_i: Tensor, weight_ei: Tensor, gain_i: Tensor) -> Tensor:
    """``I_div = W_EI (g_I * s_I)``: the same lateral weights, after a gain per inhibitory neuron.

    Args:
        s_i: inhibitory output, ``[N, I]`` or ``[N, I, H, W]``.
        weight_ei: lateral weights, ``[E, I]``.
        gain_i: inhibitory gains, ``[I]``.

    Returns:
        ``[N, E]`` or ``[N, E, H, W]``, ``>= 0``.
    """
    return subtractive_inhibition(s_i, weight_ei * gain_i)


def stabilise(i_div: Tensor, *, straight_through: bool = True) -> Tensor:
    """Adaptive stabilisation of the divisor with a straight-through gradient (E-I Prop 1, 2).

    An entry that is not positive is replaced by the smallest positive entry of the same
    sample, over all its units and positions; in a sample without any, by ``+inf``, so that
    what is divided by it becomes zero. No constant is added.

    Args:
        i_div: divisive inhibition, ``[N, E]`` or ``[N, E, H, W]``; ``>= 0`` under Dale's law.
        straight_through: the gradient passes to ``i_div`` unchanged, also at replaced entries,
            and none flows to the minimum. ``False``: the ordinary derivative, in which it
            flows to the minimum (to equal minima in equal parts) and not to replaced entries.

    Returns:
        the divisor, same shape, ``> 0``; NaN stays NaN.
    """
    inf = torch.full((), torch.inf, dtype=i_div.dtype, device=i_div.device)
    smallest = torch.where(i_div > 0, i_div, inf).flatten(1).amin(1)  # [N]
    smallest = smallest.reshape(-1, *[1] * (i_div.dim() - 1))
    positive = torch.where(i_div <= 0, smallest, i_div)
    return i_div + (positive - i_div).detach() if straight_through else positive


def integrate(balanced: Tensor, divisor: Tensor, gain_e: Tensor, bias: Tensor) -> Tensor:
    """``I_int = g_E * (I_EE - I_sub) / stab(I_div) + b_E``.

    Args:
        balanced: ``I_EE - I_sub``, ``[N, E]`` or ``[N, E, H, W]``.
        divisor: the stabilised divisive inhibition, same shape.
        gain_e: excitatory gains, ``[E]``.
        bias: biases, ``[E]``.

    Returns:
        the integrated current, same shape as ``balanced``.
    """
    per_unit = (-1, *[1] * (balanced.dim() - 2))  # [E] or [E, 1, 1]
    return gain_e.reshape(per_unit) * (balanced / divisor) + bias.reshape(per_unit)


def fold(weight_ee: Tensor, weight_ei: Tensor, weight_ie: Tensor) -> Tensor:
    """The weight whose current is the balanced current: ``W_EE - W_EI W_IE``.

    As ``s_I = W_IE x`` for ``x, W_IE >= 0``, ``I_EE - W_EI s_I`` is one product with this
    weight. It replaces two large activations by one and avoids their cancellation, which is
    what makes low-precision products usable. Computed in float32 or better.

    Args:
        weight_ee: ``[E, ...]``, the rest being one neuron's fan-in.
        weight_ei: ``[E, I]``.
        weight_ie: ``[I, ...]``.

    Returns:
        the folded weight, shape and dtype of ``weight_ee``.
    """
    wide = torch.promote_types(weight_ee.dtype, torch.float32)
    folded = torch.addmm(
        weight_ee.to(wide).flatten(1), weight_ei.to(wide), weight_ie.to(wide).flatten(1), alpha=-1
    )
    return folded.view_as(weight_ee).to(weight_ee.dtype)


class _ScaleGrad(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad * ctx.factor, None


def scale_grad(x: Tensor, factor: float) -> Tensor:
    """``x`` in the forward pass; its gradient times ``factor`` in the backward pass (E-I Prop 3).

    An operation of the graph rather than a hook on a parameter: copies, pickles and
    replicas of a module keep it.

    Args:
        x: any tensor.
        factor: multiplies the gradient; ``1 / d`` for ``W_EI``.

    Returns:
        ``x``, unchanged.
    """
    return _ScaleGrad.apply(x, factor)  # type: ignore[no-any-return, no-untyped-call]
