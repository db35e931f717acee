"""The method, slowly: float64 NumPy, one sample, one position and one time step after the other.

It shares no code with the package and takes no short cut (no folded weights, no automatic
differentiation): the currents are sums over a neuron's inputs, the gradients are the formulas
that follow from the forward equations and the straight-through rule, written out.

A convolution is a linear layer that is applied at each position to a patch of its input; a
linear layer is a convolution with a single position. Weights are ``[units, C / groups, kH, kW]``
in here.

Legend: N samples, C channels, E / I excitatory / inhibitory units, Y / X output positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass
class Circuit:
    """One E-I layer. ``gain_i``, ``gain_e`` and ``bias`` are ``None`` for an output layer."""

    weight_ee: Array  # [E, C / groups, kH, kW]
    weight_ie: Array  # [I, C / groups, kH, kW]
    weight_ei: Array  # [E, I]
    gain_i: Array | None = None  # [I]
    gain_e: Array | None = None  # [E]
    bias: Array | None = None  # [E]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    grads: dict[str, Array] = field(default_factory=dict)

    @property
    def fan_in(self) -> int:
        return int(np.prod(self.weight_ee.shape[1:]))

    # -- the currents of one sample ---------------------------------------------------------

    def forward(self, x: Array) -> dict[str, Array]:
        """``[N, C, H, W]`` to every current, ``[N, units, Y, X]``."""
        samples = [self.forward_sample(sample) for sample in x]
        return {name: np.stack([s[name] for s in samples]) for name in samples[0]}

    def forward_sample(self, x: Array) -> dict[str, Array]:
        i_ee = self.product(self.weight_ee, x)
        i_ie = self.product(self.weight_ie, x)
        s_i = np.maximum(0, i_ie)
        i_sub = np.einsum("ei,iyx->eyx", self.weight_ei, s_i)
        balanced = i_ee - i_sub
        out = {"i_ee": i_ee, "i_ie": i_ie, "i_sub": i_sub, "balanced": balanced}
        if self.gain_i is None or self.gain_e is None or self.bias is None:
            return out
        i_div = np.einsum("ei,i,iyx->eyx", self.weight_ei, self.gain_i, s_i)
        divisor = stabilise_sample(i_div)
        i_int = self.gain_e[:, None, None] * balanced / divisor + self.bias[:, None, None]
        return {**out, "i_div": i_div, "divisor": divisor, "i_int": i_int}

    def product(self, weight: Array, x: Array) -> Array:
        """``weight x`` for one sample, ``[units, Y, X]``."""
        out = np.zeros((len(weight), *self.positions(x)))
        for unit, y, column, patch in self.connections(weight, x):
            out[unit, y, column] = np.sum(weight[unit] * patch)
        return out

    # -- the gradients, written out -----------------------------------------------------------

    def backward(self, x: Array, upstream: Array) -> dict[str, Array]:
        """Gradients of ``sum(upstream * output)``; ``weight_ei`` after gradient scaling.

        ``i_ee``, ``i_ie`` and ``i_div`` are the gradients of these currents.
        """
        samples = [self.backward_sample(s, g) for s, g in zip(x, upstream, strict=True)]
        per_sample = ("x", "i_ee", "i_ie", "i_div")
        grads = {
            name: (np.stack if name in per_sample else sum)([s[name] for s in samples])
            for name in samples[0]
        }
        grads["weight_ei_unscaled"] = grads["weight_ei"]
        grads["weight_ei"] = grads["weight_ei"] / self.fan_in
        return grads

    def backward_sample(self, x: Array, g: Array) -> dict[str, Array]:
        c = self.forward_sample(x)
        s_i = np.maximum(0, c["i_ie"])
        grads: dict[str, Array] = {}
        if self.gain_i is None or self.gain_e is None:
            g_balanced = g
            grads["weight_ei"] = -np.einsum("eyx,iyx->ei", g_balanced, s_i)
            g_ie = -np.einsum("ei,eyx->iyx", self.weight_ei, g_balanced)
        else:
            gain_e, divisor = self.gain_e[:, None, None], c["divisor"]
            g_balanced = g * gain_e / divisor
            # straight through: what reaches the stabilised divisor reaches I_div unchanged
            g_div = -g * gain_e * c["balanced"] / divisor**2
            grads["i_div"] = g_div
            grads["gain_e"] = np.einsum("eyx,eyx->e", g, c["balanced"] / divisor)
            grads["bias"] = np.einsum("eyx->e", g)
            back = np.einsum("ei,eyx->iyx", self.weight_ei, g_div)
            grads["gain_i"] = np.einsum("iyx,iyx->i", s_i, back)
            grads["weight_ei"] = np.einsum("eyx,i,iyx->ei", g_div, self.gain_i, s_i)
            grads["weight_ei"] -= np.einsum("eyx,iyx->ei", g_balanced, s_i)
            g_ie = self.gain_i[:, None, None] * back
            g_ie -= np.einsum("ei,eyx->iyx", self.weight_ei, g_balanced)
        grads["i_ee"], grads["i_ie"] = g_balanced, g_ie
        grads["weight_ee"], x_ee = self.product_backward(self.weight_ee, x, g_balanced)
        grads["weight_ie"], x_ie = self.product_backward(self.weight_ie, x, g_ie)
        grads["x"] = x_ee + x_ie
        return grads

    def product_backward(self, weight: Array, x: Array, g: Array) -> tuple[Array, Array]:
        g_weight = np.zeros_like(weight)
        g_padded = np.zeros_like(self.pad(x))
        patches = zip(
            self.connections(weight, x), self.connections(weight, x, g_padded), strict=True
        )
        for (unit, y, column, patch), (*_, g_patch) in patches:
            g_weight[unit] += g[unit, y, column] * patch
            g_patch += g[unit, y, column] * weight[unit]  # a view into g_padded
        (top, left), (_, height, width) = self.padding, x.shape
        return g_weight, g_padded[:, top : top + height, left : left + width]

    # -- geometry -----------------------------------------------------------------------------

    def pad(self, x: Array) -> Array:
        rows, columns = self.padding
        return np.pad(x, ((0, 0), (rows, rows), (columns, columns)))

    def positions(self, x: Array) -> tuple[int, int]:
        def count(size: int, axis: int) -> int:
            reach = self.dilation[axis] * (self.weight_ee.shape[2 + axis] - 1) + 1
            return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

        return count(x.shape[1], 0), count(x.shape[2], 1)

    def connections(
        self, weight: Array, x: Array, padded: Array | None = None
    ) -> Iterator[tuple[int, int, int, Array]]:
        """For each unit and position the patch of the (padded) input that it sees."""
        padded = self.pad(x) if padded is None else padded
        units, channels, rows, columns = weight.shape
        for unit in range(units):
            group = unit // (units // self.groups)
            own = padded[group * channels : (group + 1) * channels]
            for y, column in np.ndindex(self.positions(x)):
                top, left = y * self.stride[0], column * self.stride[1]
                bottom = top + self.dilation[0] * (rows - 1) + 1
                right = left + self.dilation[1] * (columns - 1) + 1
                yield (
                    unit,
                    y,
                    column,
                    own[:, top : bottom : self.dilation[0], left : right : self.dilation[1]],
                )


def stabilise_sample(i_div: Array) -> Array:
    """Exact zeros become the smallest positive entry of the sample, or infinity."""
    positive = [entry for entry in i_div.flat if entry > 0]
    smallest = min(positive, default=np.inf)
    return np.where(i_div == 0, smallest, i_div)


# -- leaky integrate-and-fire ---------------------------------------------------------------


def lif(
    x: Array, v: Array | None = None, tau: float = 2.0, theta: float = 1.0
) -> tuple[Array, Array, Array]:
    """Currents ``[T, ...]`` to spikes, potentials before the reset, and the last potential."""
    v = np.zeros_like(x[0]) if v is None else v
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    for t in range(len(x)):
        for at in np.ndindex(x.shape[1:]):
            potentials[t][at] = (1 - 1 / tau) * v[at] + x[t][at]
            spikes[t][at] = 1.0 if potentials[t][at] >= theta else 0.0
        v = potentials[t] - theta * spikes[t]
    return spikes, potentials, v


def lif_backward(
    potentials: Array,
    upstream: Array,
    derivative: Array,
    tau: float = 2.0,
    upstream_v: Array | None = None,
) -> tuple[Array, Array]:
    """Gradients of the currents and of the first potential, backwards through time.

    ``derivative`` is the surrogate's at ``h - theta``. The reset is cut from the graph:
    ``dv[t]/dh[t] = 1``.
    """
    g_v = np.zeros_like(potentials[0]) if upstream_v is None else upstream_v
    g_x = np.zeros_like(potentials)
    for t in reversed(range(len(potentials))):
        g_h = upstream[t] * derivative[t] + g_v
        g_x[t] = g_h
        g_v = (1 - 1 / tau) * g_h
    return g_x, g_v


def sigmoid_derivative(z: Array, alpha: float = 4.0) -> Array:
    s = 1 / (1 + np.exp(-alpha * z))
    return alpha * s * (1 - s)


# -- E-I Init ---------------------------------------------------------------------------------


def moments(x: Array) -> tuple[float, float, float]:
    """``m``, ``q`` and ``v`` of an input ``[N, ...]``."""
    features = x.reshape(len(x), -1)
    variances = []
    for feature in features.T:
        centre = sum(feature) / len(feature)
        variances.append(sum((value - centre) ** 2 for value in feature) / (len(feature) - 1))
    m = sum(features.flat) / features.size
    q = sum(value * value for value in features.flat) / features.size
    return m, q, sum(variances) / len(variances)


def init_scale(m: float, q: float, v: float, d: int) -> float:
    return float(np.sqrt(v / (d * (q + v))))


def init_gain(m: float, q: float, v: float, d: int) -> float:
    return float(np.sqrt(q + v) / (np.sqrt(d) * m))
