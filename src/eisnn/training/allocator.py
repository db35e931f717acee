"""Memory that one training step frees, for the next."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Have the C library keep what the process frees on the CPU, for what it allocates next.

    A training step allocates the same memory again and again. glibc hands large blocks back to
    the system in between, and the system clears each page that it gives out anew: a tenth of a
    step of VGG-8 or ResNet-18 (docs/results/speed.md). It concerns the whole process, hence it
    is for commands, which own theirs. Does nothing with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
