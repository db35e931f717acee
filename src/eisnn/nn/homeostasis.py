r"""Homeostasis: slow averages of a circuit's own activity that adapt it.

With the quotient ``z = (I_EE - I_sub) / stab(I_div)`` and its running mean ``mu`` and variance
``nu``, one of each per excitatory neuron, a circuit computes ::

    I_int = g_E (z - mu) / sqrt(nu) + b_E = g' z + b',   g' = g_E / sqrt(nu),  b' = b_E - g' mu

so that to the circuit this is nothing but another gain and another bias. With tonic inhibition
``alpha > 0`` the divisor also gets a share of each inhibitory neuron's running mean ``s0`` ::

    I_div = W_EI (g_I * (s_I + alpha s0))

the semi-saturation of divisive normalisation (Heeger 1992, Visual Neuroscience 9:181): where
little input arrives, the divisor stays near its usual size, and with it the gradient ``1 / I_div``.
As ``s0`` grows with ``W_IE``, the circuit stays invariant to a common scale of ``W_EE, W_IE``.

It is not batch normalisation. In the step in which ``mu``, ``nu`` and ``s0`` are used they are
constants, made by earlier steps: no statistic of a batch is in the forward value of the same
step, none is in the gradient, samples of a batch do not see each other, and training and
evaluation compute the same function. After training ``mu`` and ``nu`` go into gain and bias
exactly, by :func:`eisnn.optim.absorb_homeostasis_`; ``s0`` stays, a constant of the circuit.

Legend: N samples, E / I excitatory / inhibitory units, C units of the input (channels, or
features D).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Homeostat"]

SMALLEST_VARIANCE = 1e-3
"""A neuron whose quotient varies less, a silent one for example, is not amplified further."""


class Homeostat(nn.Module):
    """The running statistics of one circuit. :func:`eisnn.optim.add_homeostasis_` adds it.

    It starts at ``mu = 0``, ``nu = 1``, ``s0 = 0``, which change nothing.

    Args:
        n_e: excitatory units ``E`` of the circuit.
        n_i: inhibitory units ``I``.
        n_in: units ``C`` of its input: channels, or features of a linear layer.
        tonic: ``alpha >= 0``; 0 for none.
        like: tells device and dtype; buffers are of float32 or better.

    Attributes:
        mean: ``mu``, ``[E]``.
        variance: ``nu``, ``[E]``.
        inhibition: ``s0``, running mean of the inhibitory output, ``[I]``.
        input_mean: running mean of the circuit's input, ``[C]``: the presynaptic trace along
            which :func:`eisnn.optim.centre_gradients` centres.
    """

    mean: Tensor
    variance: Tensor
    inhibition: Tensor
    input_mean: Tensor

    def __init__(self, n_e: int, n_i: int, n_in: int, tonic: float, like: Tensor) -> None:
        super().__init__()
        self.tonic = tonic
        wide = torch.promote_types(like.dtype, torch.float32)
        for name, size, value in (
            ("mean", n_e, 0.0),
            ("variance", n_e, 1.0),
            ("inhibition", n_i, 0.0),
            ("input_mean", n_in, 1.0),
        ):
            start = torch.full((size,), value, device=like.device, dtype=wide)
            self.register_buffer(name, start)
        self._sum: Tensor | None = None
        self._count = 0

    def adapted(self, gain_e: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """``g'`` and ``b'`` of gains and biases ``[E]``; the statistics are constants."""
        gain = gain_e / self.variance.clamp(min=SMALLEST_VARIANCE).sqrt()
        return gain, bias - gain * self.mean

    @torch.no_grad()
    def observe(self, x: Tensor, s_i: Tensor, quotient: Tensor) -> None:
        """Remember the moments of a forward pass for the next update; changes no statistic.

        Args:
            x: the circuit's input, ``[N, C, ...]``.
            s_i: inhibitory output, ``[N, I, ...]``.
            quotient: ``z``, ``[N, E, ...]``.
        """
        seen = torch.cat(self._moments(x, s_i, quotient))
        self._sum = seen if self._sum is None else self._sum + seen
        self._count += 1

    @torch.no_grad()
    def calibrate_(self, x: Tensor, s_i: Tensor, quotient: Tensor) -> None:
        """Set the statistics to those of one batch; arguments as for :meth:`observe`."""
        self.update_(torch.cat(self._moments(x, s_i, quotient)), 1.0)

    def take_observed(self) -> Tensor | None:
        """Means of ``x, s_I, z, z^2`` since the last call, ``[C + I + 2 E]``; ``None`` if none."""
        total, count = self._sum, self._count
        self._sum, self._count = None, 0
        return None if total is None else total / count

    @torch.no_grad()
    def update_(self, observed: Tensor, rate: float) -> None:
        """``mu += rate (E[z] - mu)``, ``nu += rate (Var[z] - nu)``, and so the other means.

        Args:
            observed: from :meth:`take_observed`, averaged over processes.
            rate: above 0, up to 1.
        """
        n_e, n_i, n_in = len(self.mean), len(self.inhibition), len(self.input_mean)
        input_mean, s_i, mean, square = observed.split([n_in, n_i, n_e, n_e])
        torch._foreach_lerp_(
            [self.input_mean, self.inhibition, self.mean, self.variance],
            [input_mean, s_i, mean, (square - mean.square()).clamp(min=0)],
            rate,
        )

    def _moments(self, x: Tensor, s_i: Tensor, quotient: Tensor) -> tuple[Tensor, ...]:
        kind = self.mean.dtype
        others = [axis for axis in range(quotient.dim()) if axis != 1]
        variance, mean = torch.var_mean(quotient.to(kind), others, correction=0)
        means = (t.mean(others, dtype=kind) for t in (x, s_i))
        return *means, mean, variance + mean.square()
