"""Memory that one training step frees, for the next."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Have the C library keep what the process frees on the CPU, for what it allocates next.

    A training step allocates the same memory again and again. glibc hands it back to the system
    in between, and the system clears each page that it gives out anew: 4 to 8 % of a step of
    ResNet-18 or VGG-8 (docs/results/speed.md). Blocks of 32 MiB and more are still handed
    back. It concerns the whole process, hence it is for commands, which own theirs; what
    ``MALLOC_TRIM_THRESHOLD_`` asks for goes first. Does nothing with other C libraries.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
