"""How the C library's allocator treats memory that was freed."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
_KEPT = 2**30  # bytes of freed memory that a process keeps for its next step
_PAD = 2**26
_LARGEST = 2**25  # the most that glibc allows for the threshold of mmap


def keep_freed_memory() -> bool:
    """Let this process, and its forks, use freed memory again instead of giving it back to the kernel.

    A training step frees what the next one allocates. Given back, each page comes with a fault and is zeroed again: a
    fifth of the processor time of a small step. No bit of a result changes.

    Returns:
        Whether it was done: with glibc, as on most Linux systems, and nowhere else.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _PAD))
    done = [mallopt(name, value) == 1 for name, value in settings]
    return all(done)
