"""C99 for bare metal: no heap, no floating point, nothing of the C library but stdint and string.

network.h is what an application includes, network_weights.h holds the integers, network.c the table of layers and the
loop over it, main.c runs samples on a computer: that is how the files are proven, compiled with all warnings as errors.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.ir import Array, Graph, Neuron
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import Record
from snnkd_deploy.target import Target
from snnkd_deploy.toolchain import compiler

from ._c_source import MAIN, Source, refusals

suffix = ".c"
FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2")


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a LEGAL graph as four files. LegalityError lists what 32 bits cannot hold."""
    if problems := list(refusals(graph)):
        raise LegalityError(f"c cannot hold {graph.name}:", problems)
    source = Source(graph, path.stem)
    path.write_text(source.code, encoding="ascii")
    path.with_suffix(".h").write_text(source.header, encoding="ascii")
    path.with_name(f"{path.stem}_weights.h").write_text(source.weights, encoding="ascii")
    path.with_name("main.c").write_text(MAIN.replace("@STEM@", path.stem), encoding="ascii")
    layers = [{"name": node.name, "shape": list(graph.shapes[node.name])} for node in graph.of(Neuron)]
    return {
        "standard": "C99",
        "include": f"{path.stem}.h",
        "compile": f"cc {' '.join(FLAGS)} {path.name}",
        "flash_bytes": source.flash,
        "ram_bytes": source.ram,
        "timesteps": graph.timesteps,
        "input": {"type": source.input_type.removesuffix("_t"), "frames": not graph.input.static},
        "layers": layers,
    }


def run(path: Path, inputs: Array, loader: Mapping[str, Any], flags: Sequence[str] = FLAGS) -> Record:
    """Compile the files and run them. RuntimeMissingError without a compiler, BundleError if it refuses them."""
    samples = np.swapaxes(inputs, 0, 1) if loader["input"]["frames"] else inputs
    with tempfile.TemporaryDirectory(prefix="snnkd-c-") as folder:
        program, trace = Path(folder, "network"), Path(folder, "spikes.bin")
        command = [compiler(), *flags, str(path), str(path.with_name("main.c")), "-o", str(program)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if made.returncode:
            raise BundleError(f"{path} does not compile:\n{made.stderr.strip()}")
        content = np.ascontiguousarray(samples.astype(loader["input"]["type"])).tobytes()
        done = subprocess.run([str(program), str(trace)], input=content, capture_output=True, check=False)  # noqa: S603
        if done.returncode:
            raise BundleError(f"{path.name} failed (code {done.returncode}): {done.stderr.decode(errors='replace')}")
        rows = [line.split() for line in done.stdout.decode().splitlines()]
        logits = np.array(rows, dtype=np.int64)[:, 1:]
        return Record(_layers(np.fromfile(trace, dtype=np.uint8), len(samples), loader), logits)


proofs = (Proof("c-compiler", run, samples=200),)


def _layers(trace: Array, samples: int, loader: Mapping[str, Any]) -> dict[str, Array]:
    """Spikes `(time, samples, *shape)` of each layer, from bytes ordered by sample, step and layer."""
    steps = trace.reshape(samples, loader["timesteps"], -1).swapaxes(0, 1)
    sizes = [int(np.prod(layer["shape"])) for layer in loader["layers"]]
    parts = np.split(steps, np.cumsum(sizes)[:-1], axis=2)
    return {
        layer["name"]: part.reshape(*part.shape[:2], *layer["shape"])
        for layer, part in zip(loader["layers"], parts, strict=True)
    }
