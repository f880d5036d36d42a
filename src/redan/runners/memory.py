"""The C library's allocator, told to keep what it has."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # the numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory in the process; whether that worked (glibc only, elsewhere nothing changes).

    Without it an attack may hand its activations back to the system at every step and fault them in again at the
    next, which costs a third more CPU time, and more with several workers, who then wait for each other. It holds
    for the whole process, so only a process of our own (the command line) calls it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) for name, value in settings)
