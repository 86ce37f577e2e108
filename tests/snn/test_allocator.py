"""Freed memory is kept, if the C library is glibc and nobody asked otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from snnkd_deploy.snn import allocator

CODE = """
import ctypes, sys
from snnkd_deploy.snn.allocator import keep_memory
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
library.malloc_usable_size.argtypes = (ctypes.c_void_p,)
kept = keep_memory()
block = library.malloc(100 << 20)
size = ctypes.cast(block - 8, ctypes.POINTER(ctypes.c_size_t)).contents.value
print(kept, bool(size & 2))
"""
"""The second lowest bit of a block's size says that it was mapped."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(("given", "expected"), [(None, "True False"), ("0", "False True")])
def test_large_blocks_come_from_the_heap(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != allocator.SWITCH}
    environment |= {} if given is None else {allocator.SWITCH: given}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == expected


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator._set.cache_clear()
    monkeypatch.setattr("sys.platform", "darwin")
    assert not allocator.keep_memory()
    allocator._set.cache_clear()
