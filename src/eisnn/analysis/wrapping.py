"""Stepping between a model and the calls of its modules' methods, without hooks.

Hooks would do for what they see, but they make fused circuits run unfused, which changes the
last bits of a training run. A method that is wrapped on the instance changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

__all__ = ["Around", "wrapped"]

Around = Callable[..., Any]
"""``around(name, module, method, *args, **kwargs)`` stands in for ``method(*args, **kwargs)``,
a method of the module that the model calls ``name``."""


@contextmanager
def wrapped(
    model: nn.Module, methods: Callable[[nn.Module], Iterable[str]], around: Around
) -> Iterator[None]:
    """Call ``around`` in place of methods of ``model``'s modules while the context lasts.

    Args:
        model: its modules are wrapped; afterwards they are as they were.
        methods: the names of the methods to wrap of each module.
        around: stands in for all of them.

    Raises:
        RuntimeError: the model's methods are wrapped already.
    """
    found = [
        (name, module, method)
        for name, module in model.named_modules()
        for method in methods(module)
    ]
    for name, module, method in found:
        if method in module.__dict__:
            raise RuntimeError(
                f"{method} of {name or 'the model'!r} is replaced already: another probe looks at "
                "this model. Close that one first"
            )
    for name, module, method in found:
        module.__dict__[method] = partial(around, name, module, getattr(module, method))
    try:
        yield
    finally:
        for _, module, method in found:
            del module.__dict__[method]
