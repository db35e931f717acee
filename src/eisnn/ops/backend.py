"""Which implementation of the fused operation runs: chosen by device, overridable, visible.

``native`` is C on the CPU, ``triton`` is for CUDA devices, ``torch`` runs everywhere. They
are equal up to rounding. Choose one with :func:`use_backend` or the environment variable
``EISNN_BACKEND``; ``eisnn doctor`` prints what is chosen and why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType

import torch

from eisnn.ops import native_backend, torch_backend, triton_backend

__all__ = ["BACKENDS", "backend_for", "unavailable", "use_backend"]

BACKENDS: dict[str, ModuleType] = {
    "native": native_backend,
    "triton": triton_backend,
    "torch": torch_backend,
}
"""In order of preference."""

_DEVICES = {"native": ("cpu",), "triton": ("cuda",)}

_forced: str | None = None


def unavailable(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str | None:
    """Why a backend cannot run on a device; ``None`` if it can.

    Args:
        name: one of :data:`BACKENDS`.
        device: where the tensors are.
        dtype: of the arithmetic, float32 or float64.
    """
    if name == "torch":
        return None
    if dtype != torch.float32:
        return f"it computes in float32, not {dtype}"
    if device.type not in _DEVICES[name] and not (
        name == "triton" and triton_backend.interpreted()
    ):
        return f"it is for {_DEVICES[name][0]}, not {device.type}"
    reason: str | None = BACKENDS[name].unavailable()
    return reason


def backend_for(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Name of the backend that runs for tensors of this device and arithmetic.

    Raises:
        RuntimeError: the one that was asked for cannot run here.
        ValueError: the one that was asked for does not exist.
    """
    forced = _forced or os.environ.get("EISNN_BACKEND")
    if not forced:
        return next(name for name in BACKENDS if unavailable(name, device, dtype) is None)
    _check(forced)
    reason = unavailable(forced, device, dtype)
    if reason is not None:
        raise RuntimeError(
            f"the backend {forced!r} was asked for and cannot run: {reason}. Leave the choice "
            "to eisnn (unset EISNN_BACKEND), or ask for 'torch', which runs everywhere"
        )
    return forced


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run fused operations with one backend inside a ``with`` block.

    Args:
        name: ``"native"``, ``"triton"`` or ``"torch"``.

    Raises:
        ValueError: there is no such backend.
    """
    global _forced
    _check(name)
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def _check(name: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"the backend must be one of {', '.join(BACKENDS)}, got {name!r}")
