"""One setting of the C library: large tensors that are freed stay with the process, for the next ones.

glibc maps blocks of 32 MiB and more afresh at every allocation, and the kernel then clears each page of them at its
first touch. Time folded into the batch makes tensors T times larger, which crosses that line at every layer.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

SWITCH = "SNNKD_KEEP_MEMORY"
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # as malloc.h numbers them
PADDING = 64 << 20
"""Bytes that the heap grows by at least."""


def keep_memory() -> bool:
    """Set it, for the rest of the process; whether it is set. `SNNKD_KEEP_MEMORY=0` leaves everything as it is.

    The process then holds as much memory as it ever used at once.
    """
    return os.environ.get(SWITCH, "1") != "0" and _set()


@cache
def _set() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    wanted = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: PADDING}
    return all(library.mallopt(number, value) for number, value in wanted.items())
