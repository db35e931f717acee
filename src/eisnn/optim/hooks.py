"""Running a rule on the gradients of a step, whoever computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

__all__ = ["before_step"]


def before_step(optimiser: Optimizer, rule: Callable[[], None]) -> RemovableHandle:
    """Call ``rule`` between the backward pass and the optimiser's use of the gradients.

    A step that is given a closure (as by LBFGS, or by Lightning) computes its gradients in the
    closure: then the rule runs after each call of it. Rules run in the order in which they were
    added. In data-parallel training gradients are averaged by then; after
    ``GradScaler.unscale_``, which ``GradScaler.step`` calls, they are unscaled.

    Args:
        optimiser: any.
        rule: changes ``.grad`` of parameters in place.

    Returns:
        a handle whose ``remove()`` ends it.
    """

    def hook(_: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        positional = len(args) > 1  # behind the optimiser itself
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            with torch.no_grad():
                rule()
            return None

        def with_rule() -> Any:
            loss = closure()
            with torch.no_grad():
                rule()
            return loss

        if positional:
            return (args[0], with_rule, *args[2:]), kwargs
        return args, {**kwargs, "closure": with_rule}

    return optimiser.register_step_pre_hook(hook)
