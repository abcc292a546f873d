"""
The C library's allocator, told what a proxy is like; glibc's, for musl has nothing to be told.

Large bodies come and go: without being told to keep what they need, each burst grows and trims the
heap (brk 1,000 times a second and page faults; a third of the CPU of a bulk transfer).  So it keeps
much.  What it keeps counts as ours, to the kernel and to the limits of our container; when memory is
short, `trim` gives back what is not in use.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Final

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


def tune() -> None:
    """Have it keep what large bodies need; before anything large is allocated."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        mallopt(_M_TOP_PAD, 4 << 20)


def trim() -> None:
    """Give back what is not in use; takes milliseconds."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> Callable[..., int] | None:
    if os.uname().sysname != "Linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
