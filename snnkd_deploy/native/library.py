"""The native runtime: the C++ sources beside this file, built on first use, and called through their C interface."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.toolchain import library_path, shared_library

FLAGS = ("-std=c++17", "-O3", "-fwrapv", "-pthread")
FOLDER = Path(__file__).parent
SOURCES = (
    FOLDER / "snnkd_native.cpp",
    FOLDER / "snnkd_native.h",
    *(
        FOLDER / f"{name}.hpp"
        for name in ("network", "plan", "build", "values", "arrivals", "kernels", "tally", "team")
    ),
)
"""What the library is made of; the first is compiled and includes the others."""
ROOM = 1000
"""Characters of an error."""


class About(ctypes.Structure):
    """`snnkd_about` of the header."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("name", "digest", "instructions")),
        *((name, ctypes.c_int32) for name in ("timesteps", "still", "classes", "nodes", "input_bytes", "low", "high")),
        ("input_dimensions", ctypes.c_int32),
        ("input_shape", ctypes.c_int32 * 3),
    )


class Node(ctypes.Structure):
    """`snnkd_node` of the header."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("neurons", ctypes.c_int32),
        ("dimensions", ctypes.c_int32),
        ("shape", ctypes.c_int32 * 3),
        ("own", ctypes.c_int32),
        ("kept", ctypes.c_int32),
        ("bits", ctypes.c_int32),
    )


class Results(ctypes.Structure):
    """`snnkd_results` of the header."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in ("spikes", "nonzero", "sums", "step_spikes")),
        *((name, ctypes.c_void_p) for name in ("reached", "reach", "changes")),
        ("tables", ctypes.POINTER(ctypes.c_void_p)),
        ("table_counts", ctypes.c_void_p),
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in ("events", "amounts", "met")),
    )


def built() -> bool:
    """Whether `build` finds the library that an earlier call has left, or need not look: there is no compiler."""
    try:
        return library_path(SOURCES, FLAGS, "C++").is_file()
    except RuntimeMissingError:
        return True


@cache
def build(sources: tuple[Path, ...] = SOURCES, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """The library, loaded. RuntimeMissingError without a C++ compiler."""
    library = ctypes.CDLL(str(shared_library(sources, flags, "C++")))
    library.snnkd_open.restype = ctypes.c_void_p
    library.snnkd_open.argtypes = (
        *(ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_char_p),
        ctypes.c_int32,
    )
    library.snnkd_close.argtypes = (ctypes.c_void_p,)
    library.snnkd_describe.restype, library.snnkd_describe.argtypes = About, (ctypes.c_void_p,)
    library.snnkd_node_of.restype, library.snnkd_node_of.argtypes = Node, (ctypes.c_void_p, ctypes.c_int32)
    run = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.POINTER(Results))
    library.snnkd_run.argtypes = (*run, ctypes.c_char_p, ctypes.c_int32)
    return library
