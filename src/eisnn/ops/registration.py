"""Operators of our own in PyTorch: ``torch.ops.eisnn.NAME``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import library

__all__ = ["register"]

_OPERATORS = library.Library("eisnn", "FRAGMENT")

Function = Callable[..., Any]


def register(
    schema: str, compute: Function, shapes: Function, derivative: Function, keep: Function | None
) -> None:
    """Make an operator that ``torch.compile``, ``torch.export`` and autograd know.

    Args:
        schema: ``name(arguments) -> results``, in PyTorch's notation.
        compute: what it does, on any device.
        shapes: empty results of the right shapes, for tracing.
        derivative: of the loss for the arguments, from ``ctx`` and those for the results.
        keep: ``(ctx, inputs, output)``, puts into ``ctx`` what ``derivative`` needs; ``None`` if
            it needs nothing.
    """
    name = schema.partition("(")[0]
    _OPERATORS.define(schema)
    _OPERATORS.impl(name, compute, "CompositeExplicitAutograd")
    library.register_fake(f"eisnn::{name}", shapes, lib=_OPERATORS)
    library.register_autograd(f"eisnn::{name}", derivative, setup_context=keep, lib=_OPERATORS)
