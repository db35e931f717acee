r"""What E-I Init promises for each layer, beside what a network does: see docs/theory.md.

With the input's ``m``, ``q``, ``v`` of :mod:`eisnn.functional.init`, a neuron's summed inputs
``X_1 = sum_k x_k`` and ``X_2 = sum_k x_k^2``, and ``delta = dL / dI_int``::

    P          = E[X_2 / X_1^2] / g_I^2                  about q / (q + v)
    S          = (1 - v / q) (1 / n_E + 1 / n_I) P       variance of the mean, over draws
    E[I_int]   = g_I P / n_I
    Var[I_int] = (1 + 1 / n_I) P - S

    |grad W_EI|^2     n_I m^2 v          1
    ------------- =   --------- --------------------      rho = coherence of delta
    |grad W_EE|^2       q + v   (q - v) + v / rho

Legend: T time, B batch, N = T*B samples, E / I units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eisnn.analysis.gradients import gradient_norms
from eisnn.analysis.watching import layers_of
from eisnn.functional.init import InputMoments, input_moments
from eisnn.nn import EIModule, EIOutput

__all__ = ["LayerTheory", "check_theory", "gradient_ratio"]


@dataclass(frozen=True)
class LayerTheory:
    """One E-I layer at initialisation: predictions from its input, and measurements.

    The first two groups are ``None`` for an output layer, which has no integrated current.
    """

    layer: str
    fan_in: int
    inhibitory: int
    mean: float | None
    """Of the integrated current, measured."""
    mean_predicted: float | None
    mean_deviation: float | None
    """Standard deviation of the measured mean over draws of the weights, predicted."""
    variance: float | None
    """Of the integrated current, measured."""
    variance_predicted: float | None
    """From each neuron's own inputs, borders included."""
    variance_ideal: float | None
    """``q / (q + v)``: many inputs, many inhibitory neurons, no borders."""
    gradient_ratio: float
    """``|grad W_EI| / |grad W_EE|`` without gradient scaling, measured."""
    gradient_ratio_predicted: float
    gradient_ratio_bounds: tuple[float, float]
    """The prediction for gradients without any and with full coherence."""
    coherence: float
    """``rho``, measured: by how much gradients of different samples add up, from about 1."""


def gradient_ratio(moments: InputMoments, inhibitory: int, coherence: float) -> float:
    """``|grad W_EI| / |grad W_EE|`` after E-I Init, without gradient scaling.

    Args:
        moments: of the layer's input.
        inhibitory: ``n_I``.
        coherence: ``rho``, the mean over units of ``(sum delta)^2`` by that of
            ``sum delta^2``, where sums are over samples and positions; ``inf`` for gradients
            that are the same everywhere.
    """
    m, q, v = moments
    return math.sqrt(inhibitory * m**2 * v / (q + v) / (q - v + v / coherence))


def check_theory(model: nn.Module, batch: Tensor, labels: Tensor) -> list[LayerTheory]:
    """Compare a freshly initialised network with what E-I Init promises.

    Args:
        model: from ``batch`` to logits, after :func:`eisnn.ei_init_`; left as it was.
        batch: what the model takes.
        labels: ``[B]``.

    Returns:
        one entry for each E-I layer, in the order in which they ran.

    Raises:
        ValueError: the model has no E-I layers.
    """
    circuits = {n: m for n, m in layers_of(model).items() if isinstance(m, EIModule)}
    if not circuits:
        raise ValueError(
            "the theory is about E-I circuits, and this network has none. Use one with norm='ei'"
        )
    names: dict[nn.Module, str] = {module: name for name, module in circuits.items()}
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        output.retain_grad()
        seen[names[module]] = (args[0].detach(), output)

    training = {module: module.training for module in model.modules()}
    handles = [circuit.register_forward_hook(keep) for circuit in circuits.values()]
    try:
        model.eval()
        with torch.enable_grad():
            loss = F.cross_entropy(model(batch), labels)
            loss.backward(inputs=[output for _, output in seen.values()])
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    norms = gradient_norms(model.eval(), batch, labels, scaled=False)
    for module, mode in training.items():
        module.training = mode
    return [
        _layer(name, circuits[name], x, output, norms[name]) for name, (x, output) in seen.items()
    ]


@torch.no_grad()
def _layer(
    name: str, circuit: EIModule, x: Tensor, output: Tensor, norms: dict[str, float]
) -> LayerTheory:
    timed = x.dim() == circuit.weight_ee.dim() + 1
    merged = x.flatten(0, 1) if timed else x  # [N, ...]
    n_e, n_i = circuit.weight_ei.shape
    moments = input_moments(merged)
    _, q, v = moments
    hidden: dict[str, float | None] = dict.fromkeys(
        (
            "mean",
            "mean_predicted",
            "mean_deviation",
            "variance",
            "variance_predicted",
            "variance_ideal",
        )
    )
    if not isinstance(circuit, EIOutput):
        gain = circuit.gain_i.mean().item()
        ratio = _relative_square(circuit, merged)
        power = ratio / gain**2  # of one neuron's current, about q / (q + v)
        shared = max(0.0, 1 - v / q) * power * (1 / n_e + 1 / n_i)
        current = output.double()
        hidden = {
            "mean": current.mean().item(),
            "mean_predicted": ratio / (gain * n_i),
            "mean_deviation": math.sqrt(shared),
            "variance": current.var(correction=0).item(),
            "variance_predicted": (1 + 1 / n_i) * power - shared,
            "variance_ideal": q / (q + v),
        }
    assert output.grad is not None
    delta = output.grad.double()
    if timed and x.stride(0) == 0:  # a static image is one sample
        delta = delta.sum(0, keepdim=True)
    delta = (delta.flatten(0, 1) if timed else delta).transpose(0, 1).flatten(1)  # [E, n]
    coherence = (delta.sum(1).square().sum() / delta.square().sum()).item()
    return LayerTheory(
        layer=name,
        fan_in=circuit.fan_in,
        inhibitory=n_i,
        gradient_ratio=norms["weight_ei"] / norms["weight_ee"],
        gradient_ratio_predicted=gradient_ratio(moments, n_i, coherence),
        gradient_ratio_bounds=(
            gradient_ratio(moments, n_i, 1),
            gradient_ratio(moments, n_i, math.inf),
        ),
        coherence=coherence,
        **hidden,
    )


def _relative_square(circuit: EIModule, x: Tensor) -> float:
    """Mean of ``X_2 / X_1^2`` over neurons and samples; silent ones count as zero."""
    ones = torch.ones_like(circuit.weight_ie[: getattr(circuit, "groups", 1)])
    x_1, x_2 = circuit._product(x, ones), circuit._product(x.square(), ones)
    ratio = torch.where(x_1 > 0, x_2 / x_1.square(), torch.zeros_like(x_1))
    return ratio.double().mean().item()
