"""Dale's law: which parameters must stay non-negative, and the projection that keeps them so.

A module declares its constrained parameters with :func:`register_nonnegative`; everything
else here reads that registry. It lives on the module, so copies and pickles keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

__all__ = [
    "constrain",
    "nonnegative_parameters",
    "parameter_groups",
    "project_",
    "register_nonnegative",
    "unregister_nonnegative",
]

_REGISTRY = "_eisnn_nonnegative"


def register_nonnegative(module: nn.Module, *names: str) -> None:
    """Declare parameters of ``module`` itself to be non-negative.

    Args:
        module: the module that owns the parameters; E-I layers do this themselves.
        names: attribute names, such as ``"weight_ee"``.

    Raises:
        ValueError: ``module`` has no parameter of that name.
    """
    own = dict(module.named_parameters(recurse=False))
    for name in names:
        if name not in own:
            raise ValueError(
                f"{type(module).__name__} has no parameter of its own named {name!r}; "
                f"it has {sorted(own) or 'none'}"
            )
    declared: tuple[str, ...] = getattr(module, _REGISTRY, ())
    setattr(module, _REGISTRY, (*declared, *(n for n in names if n not in declared)))


def unregister_nonnegative(module: nn.Module, *names: str) -> None:
    """Declare parameters of ``module`` itself to be free in sign again.

    Args:
        module: the module that owns the parameters.
        names: as for :func:`register_nonnegative`; names that it did not get do not matter.
    """
    declared: tuple[str, ...] = getattr(module, _REGISTRY, ())
    setattr(module, _REGISTRY, tuple(n for n in declared if n not in names))


def nonnegative_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The constrained parameters of ``model`` and all its submodules, each once.

    Yields:
        qualified name and parameter, in registration order.
    """
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name in getattr(module, _REGISTRY, ()):
            parameter = getattr(module, name)
            if parameter not in seen:
                seen.add(parameter)
                yield (f"{prefix}.{name}" if prefix else name), parameter


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: the constrained parameters and the free ones.

    Returns:
        two groups (one, where the other is empty), each ``{"params": [...],
        "nonnegative": bool}``; add options such as ``weight_decay`` to either.
    """
    constrained = {parameter for _, parameter in nonnegative_parameters(model)}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in model.parameters() if (p in constrained) == nonnegative],
            "nonnegative": nonnegative,
        }
        for nonnegative in (True, False)
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def project_(model: nn.Module) -> None:
    """Set every negative entry of the constrained parameters to zero, in place, in one call."""
    parameters: list[Tensor] = [parameter for _, parameter in nonnegative_parameters(model)]
    if parameters:
        torch._foreach_clamp_min_(parameters, 0.0)


def constrain(model: nn.Module, optimizer: Optimizer) -> RemovableHandle:
    """Project ``model`` after every step of ``optimizer``.

    Works with any :class:`torch.optim.Optimizer`, with closures, gradient accumulation and
    the ``foreach`` and ``fused`` implementations: it is a hook that runs after ``step()``.
    The projection leaves the optimiser's state (momentum) as it is.

    Args:
        model: the module whose constrained parameters are kept ``>= 0``.
        optimizer: steps some or all of them.

    Returns:
        a handle whose ``remove()`` ends the projection.

    Raises:
        ValueError: ``optimizer`` holds none of the model's constrained parameters.
    """
    constrained = {parameter for _, parameter in nonnegative_parameters(model)}
    stepped = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if constrained and constrained.isdisjoint(stepped):
        raise ValueError(
            f"constrain needs the optimizer of the model, and this {type(optimizer).__name__} "
            f"holds none of the {len(constrained)} non-negative parameters of this "
            f"{type(model).__name__}. Make it from model.parameters()"
        )

    def project(*_: object) -> None:
        project_(model)

    return optimizer.register_step_post_hook(project)
