"""A file for this package's own runtime, which reads it from Python, C and C++ and runs it by events.

The file says all that is to be known; the runtime is `snnkd_deploy.native`, or the library of the C++ sources that lie
there, whose interface is snnkd_native.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Array, Graph
from snnkd_deploy.native import load
from snnkd_deploy.native.library import FLAGS, FOLDER, SOURCES
from snnkd_deploy.native.network_file import VERSION, pack, refusals
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import Record
from snnkd_deploy.target import Target
from snnkd_deploy.toolchain import SHARED

suffix = ".snn"
BUILD = f"c++ {' '.join((*FLAGS, *SHARED))} {SOURCES[0].name} -o libsnnkd_native.so"


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a LEGAL graph. LegalityError lists what 32 bits cannot hold."""
    if problems := list(refusals(graph)):
        raise LegalityError(f"native cannot hold {graph.name}:", problems)
    path.write_bytes(pack(graph))
    byte = graph.input.low >= 0 and graph.input.high <= 255
    return {
        "format": f"SNNKDNET {VERSION}",
        "python": f"snnkd_deploy.native.load({path.name!r}).run(samples)",
        "c": f"snnkd_open and snnkd_run of snnkd_native.h, in the folder snnkd_deploy/{FOLDER.name} of the package",
        "build": BUILD,
        "input": {"type": "uint8" if byte else "int32", "frames": not graph.input.static},
    }


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """Run the file. RuntimeMissingError without a compiler, BundleError if it is not a network."""
    return load(path).record(inputs)


proofs = (Proof("native-runtime", run, samples=1000, native=True),)
