"""Whether ``torch.func`` is at work."""

from __future__ import annotations

import torch

__all__ = ["transforming"]


def transforming() -> bool:
    """Inside ``torch.func.vmap``, ``grad`` and the like.

    They do not pass through operators with a registered derivative; the readable forms in
    :mod:`eisnn.functional` take their place.
    """
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
