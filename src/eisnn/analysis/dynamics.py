"""The state of a network in training as one record: a line of a run's ``dynamics.jsonl``.

Legend: T time, B batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eisnn.analysis.gradients import gradient_norms, named_by_layer
from eisnn.analysis.probes import LayerStatistics, Probe
from eisnn.analysis.statistics import Distribution

__all__ = ["DYNAMICS", "describe_dynamics", "read_dynamics"]

DYNAMICS = "dynamics.jsonl"
"""The file in a run folder."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LEAST = 4.0
"""The integrated current and the membrane potential are shown to at least here on both sides."""
BINS = {"i_int": 80, "v": 80}
"""Number of bins; 40 for the other currents."""
AT_ONCE = 64
"""Samples that are looked at together, which bounds memory."""


def describe_dynamics(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Statistics of every layer, its parameters and gradients, in evaluation mode.

    The model is left as it was, and nothing random is drawn.

    Args:
        model: from ``inputs`` to logits.
        inputs: a batch ``[B, ...]``.
        labels: ``[B]``; gradients are those of the mean cross-entropy, as they are used: that of
            ``W_EI`` is divided by the fan-in.

    Returns:
        ``{"layers": [...], "gradients": [...]}`` of numbers, strings, lists and ``None`` (where a
        figure does not exist or is not finite), rounded to 5 significant digits. A layer has
        ``name``, ``kind`` (``ei``, ``bn``, ``none`` or ``output``), the figures of
        :class:`eisnn.analysis.probes.LayerStatistics`, and under ``currents`` for each quantity
        ``mean``, ``std``, ``min``, ``max``, ``skewness``, ``quantiles`` and a ``density`` in the
        bins ``edges: [low, high, number]``. Under ``parameters`` are mean, deviation and share of
        exact zeros of each, under ``gradients`` their norms.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with Probe(model) as probe:
            norms = gradient_norms(model, inputs, labels, samples_at_once=AT_ONCE)
    finally:
        for module, mode in training.items():
            module.training = mode
    parameters = named_by_layer(model)
    record = {
        "layers": [_layer(layer, parameters.get(name, {})) for name, layer in probe.layers.items()],
        "gradients": [{"name": name, **kinds} for name, kinds in norms.items()],
    }
    rounded: dict[str, Any] = _rounded(record)
    return rounded


def read_dynamics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, one for each epoch from 0, the initialised network.

    A last line that is not whole (the run was killed while writing) is left out.

    Raises:
        FileNotFoundError: the run has none.
    """
    path = folder / DYNAMICS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {DYNAMICS}: it is no run of eisnn train, was made by an earlier "
            "version, or with training.dynamics=false. Train again to record it"
        )
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _layer(layer: LayerStatistics, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "name": layer.layer,
        "kind": layer.kind,
        "rate": layer.rate,
        "silent": layer.silent,
        "saturated": layer.saturated,
        "balance": layer.balance,
        "correlation": layer.correlation,
        "bimodality": layer.bimodality,
        "smallest_divisor": layer.smallest_divisor,
        "currents": {
            name: _distribution(name, values) for name, values in layer.distributions.items()
        },
        "parameters": {name: _parameter(value.detach()) for name, value in parameters.items()},
    }


def _distribution(name: str, values: Distribution) -> dict[str, Any]:
    low, high, number = _bins(name, values)
    width = (high - low) / number
    return {
        "mean": values.mean,
        "std": values.std,
        "min": values.minimum,
        "max": values.maximum,
        "skewness": values.skewness,
        "quantiles": dict(zip(map(str, QUANTILES), values.quantiles(QUANTILES), strict=True)),
        "edges": [low, high, number],
        "density": values.density([low + i * width for i in range(number)] + [high]),
    }


def _bins(name: str, values: Distribution) -> tuple[float, float, int]:
    """Ends, in round numbers, between which all but 0.2 % of the values are, and the number."""
    symmetric = name in BINS  # with zero in the middle; the other currents begin there
    low, high = values.quantiles([0.001, 0.999])
    number = BINS.get(name, 40)
    if not (math.isfinite(low) and math.isfinite(high)):
        return (-LEAST, LEAST, number) if symmetric else (0.0, 1.0, number)
    if symmetric:
        size = _round_up(max(-low, high))
        return (-LEAST, LEAST, number) if size <= LEAST + 1 else (-size, size, number)
    low, high = -_round_up(-low), _round_up(high)
    return (low, high, number) if high > low else (0.0, 1.0, number)


def _round_up(value: float) -> float:
    """To one digit and a half: 0.15, 4, 4.5, 60; zero for what is not positive."""
    if value <= 0:
        return 0.0
    digit = 10.0 ** math.floor(math.log10(value)) / 2
    return math.ceil(value / digit) * digit


def _parameter(value: Tensor) -> dict[str, float]:
    wide = value.double()
    return {
        "mean": wide.mean().item(),
        "std": wide.std(correction=0).item(),
        "zero": (value == 0).double().mean().item(),
    }


def _rounded(value: Any) -> Any:
    """Numbers to 5 significant digits, what is not finite to ``None``."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value
