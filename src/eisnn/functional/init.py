r"""E-I Init: the statistics of a layer's input and the formulas that use them.

With ``m`` the mean of the input, ``q`` the mean of its square, ``v`` the variance of each
feature over the samples averaged over features, and ``d`` the fan-in::

    scale = sqrt(v / (d (q + v)))       W_EE, W_IE ~ Exponential(mean = scale)
    g_I   = sqrt(q + v) / (sqrt(d) m)   W_EI = 1 / n_I,  g_E = 1,  b_E = 0

Then ``E[I_EE] = E[I_sub]`` and ``E[I_div] = std(I_EE)``: the integrated current starts near
zero mean and a variance of order one. (Not of one exactly: subtraction also removes the
fluctuation that all units share, which leaves ``q / (q + v)``, between 1/2 and 1.) For spikes of
probability ``p``, ``g_I = sqrt((2 - p) / (d p))`` and the variance is ``1 / (2 - p)``.
(Liu, Ding & Yu, ICLR 2026, "E-I Init".)

Two naive schemes to compare with: :func:`spike_moments` assumes what E-I Init measures, and
:func:`kaiming_std` is the usual rule, of which E-I layers take the absolute value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

__all__ = [
    "InputMoments",
    "inhibitory_gain",
    "input_moments",
    "kaiming_std",
    "spike_moments",
    "weight_scale",
]


class InputMoments(NamedTuple):
    """What E-I Init needs to know of a layer's input."""

    mean: float
    """``m``: mean over everything."""
    mean_square: float
    """``q``: mean of the square over everything."""
    variance: float
    """``v``: unbiased variance of each feature over the samples, averaged over features."""


def input_moments(x: Tensor) -> InputMoments:
    """The moments of a layer's input, computed in float64.

    Args:
        x: the input, ``[N, ...]``: samples (time steps and batch together) first, every
            other axis a feature (a channel at a position, for images). ``N >= 2``.

    Returns:
        ``m``, ``q`` and ``v``.

    Raises:
        ValueError: fewer than two samples, or values that are negative or not finite.
    """
    if x.shape[0] < 2 or x.numel() == 0:
        raise ValueError(
            f"E-I Init needs at least 2 samples to measure a variance, got input of shape "
            f"{tuple(x.shape)}. Pass a batch with more items"
        )
    x = x.detach().double()
    lowest, highest = x.aminmax()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError("the input holds NaN or infinite values. Check the data that feeds it")
    if lowest < 0:
        raise ValueError(
            f"the input must be >= 0 everywhere (Dale's law gives currents their sign), got "
            f"values from {lowest.item():.4g} to {highest.item():.4g}. Scale images to [0, 1] "
            "instead of normalising them by mean and standard deviation, and feed the layer "
            "with spikes or other non-negative values"
        )
    constant = bool((x == x[:1]).all())  # exact, where a computed variance may round to 1e-34
    return InputMoments(
        mean=x.mean().item(),
        mean_square=x.square().mean().item(),
        variance=0.0 if constant else x.var(0, correction=1).mean().item(),
    )


def spike_moments(p: float) -> InputMoments:
    """The moments of independent spikes of probability ``p``: ``m = q = p, v = p (1 - p)``.

    Raises:
        ValueError: ``p`` is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"p is the probability of a spike, 0 < p < 1, got {p!r}. Use 0.5")
    return InputMoments(mean=p, mean_square=p, variance=p * (1 - p))


def kaiming_std(fan_in: int) -> float:
    """``sqrt(2 / d)``, the standard deviation of weights in front of rectified units.

    (He, Zhang, Ren & Sun 2015, arXiv 1502.01852, equation 10.)
    """
    return math.sqrt(2 / fan_in)


def weight_scale(moments: InputMoments, fan_in: int) -> float:
    """``sqrt(v / (d (q + v)))``: the mean of the exponential distribution of W_EE and W_IE.

    Raises:
        ValueError: the input never varies (``v = 0``).
    """
    if moments.variance <= 0:
        if moments.mean_square == 0:
            raise ValueError(
                "the input is silent: zero everywhere. The layer before it does not spike on "
                "this batch, or the batch is blank. Use a larger or different batch"
            )
        raise ValueError(
            "the input is constant: every sample is the same, so there is no variance to "
            "normalise. Use a batch of different samples"
        )
    return math.sqrt(moments.variance / (fan_in * (moments.mean_square + moments.variance)))


def inhibitory_gain(moments: InputMoments, fan_in: int) -> float:
    """``g_I = sqrt(q + v) / (sqrt(d) m)``.

    Raises:
        ValueError: the input is silent (``m = 0``).
    """
    if moments.mean <= 0:
        raise ValueError("the input is silent: zero everywhere. Use a larger or different batch")
    return math.sqrt(moments.mean_square + moments.variance) / (math.sqrt(fan_in) * moments.mean)
