"""Random E-I layers and inputs for the tests, and their twins in the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import oracle
from eisnn.nn import EIConv2d, EIModule, EIOutput


def spikes(*shape: int, rate: float = 0.3, seed: int = 0, values: int = 1) -> Tensor:
    """Spike counts from 0 to ``values`` in float64, most of them zero."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(shape, generator=generator) < rate
    counts = torch.randint(1, values + 1, shape, generator=generator)
    return (active * counts).double()


def filled(layer: EIModule, seed: int = 0, sparsity: float = 0.0) -> EIModule:
    """The layer with random parameters, a fraction of them exactly zero, and free biases."""
    generator = torch.Generator().manual_seed(seed)

    def value(name: str, like: Tensor) -> Tensor:
        if name == "bias":
            return torch.randn(like.shape, generator=generator)
        drawn = torch.rand(like.shape, generator=generator) + 0.05
        return drawn * (torch.rand(like.shape, generator=generator) >= sparsity)

    layer.load_state_dict({k: value(k, v) for k, v in layer.state_dict().items()})
    return layer


def twin(layer: EIModule) -> oracle.Circuit:
    """The oracle with the layer's parameters."""
    p = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    geometry: dict[str, Any] = {}
    if isinstance(layer, EIConv2d):
        geometry = {k: getattr(layer, k) for k in ("stride", "padding", "dilation", "groups")}
    else:
        p["weight_ee"] = p["weight_ee"][:, :, None, None]
        p["weight_ie"] = p["weight_ie"][:, :, None, None]
    return oracle.Circuit(**p, **geometry)


def oracle_run(layer: EIModule, x: Tensor, upstream: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients by the oracle, in the layer's own shapes.

    ``x`` is ``[N, ...]`` or ``[T, B, ...]``.
    """
    rank = 3 if isinstance(layer, EIConv2d) else 1
    n_units = layer.weight_ee.shape[0]

    def merged(t: Tensor, channels: int) -> np.ndarray:
        item = t.shape[-rank:] if rank == 3 else (channels, 1, 1)
        return t.detach().double().reshape(-1, *item).numpy()

    circuit = twin(layer)
    currents = circuit.forward(merged(x, x.shape[-rank]))
    out = currents["balanced" if isinstance(layer, EIOutput) else "i_int"]
    grads = circuit.backward(merged(x, x.shape[-rank]), merged(upstream, n_units))
    like = dict(layer.named_parameters()) | {"x": x}
    return (
        torch.from_numpy(out).reshape(upstream.shape),
        {name: torch.from_numpy(grads[name]).reshape(value.shape) for name, value in like.items()},
    )
