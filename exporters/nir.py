"""NIR, the exchange format of the spiking frameworks, in one of its two dialects, told apart by the reset.

version   1.0.6 (default)  nir 1.0.6 and later: a spike sets the membrane to v_reset
          1.0.5            nir up to 1.0.5 (sinabs, Rockpool): a spike subtracts the threshold, and no file has v_reset

A network whose resets cannot matter (one step, or decay 0) is said by both; any other is refused by the wrong one,
because nir 1.0.8 reads a file without v_reset as reset to zero, and nir 1.0.4 refuses a file with v_reset.

Written from the graph, not by a framework's tracer; every parameter has its full shape, every weight and bias is the
integer itself. NIR has no field for timesteps and scales: they are metadata of the file, and in the manifest.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from snnkd_deploy.errors import LegalityError, ProofError
from snnkd_deploy.ir import Graph, Neuron
from snnkd_deploy.proof import Proof
from snnkd_deploy.target import Target

from . import _nir_interpreter, _nir_snntorch, _nir_spikingjelly
from ._nir_file import DT, FORMAT, FRAMES, NEW, OLD, STILL
from ._nir_nodes import nir_graph, refusals, summands

suffix = ".nir"
DIALECTS = {
    NEW: "nir >= 1.0.6: a spike sets the membrane to v_reset",
    OLD: "nir <= 1.0.5: a spike subtracts the threshold",
}


options = {"version": (NEW, OLD)}


def write(graph: Graph, target: Target, path: Path, version: str = NEW) -> dict[str, Any]:
    """Write a LEGAL graph and read it again. LegalityError lists all that NIR cannot say."""
    if problems := list(refusals(graph, version)):
        raise LegalityError(f"nir cannot hold {graph.name}:", problems)
    network = nir_graph(graph, version)
    content = io.BytesIO()  # h5py reports a full disk as it likes; write_bytes says it as the system does
    nir.write(content, network)
    path.write_bytes((_without_reset(content) if version == OLD else content).getvalue())
    if differences := list(_differences("file", network.to_dict(), nir.read(path).to_dict())):
        raise ProofError("\n".join([f"{path} does not hold what was written:", *(f"  - {one}" for one in differences)]))
    return _loader(graph, version)


def _without_reset(content: io.BytesIO) -> io.BytesIO:
    """The same file as nir 1.0.5 would have written it."""

    def copy(source: Any, target: Any) -> None:
        for name, item in source.items():
            if isinstance(item, h5py.Group):
                copy(item, target.create_group(name))
            elif name == "version":
                target.create_dataset(name, data=OLD)
            elif name != "v_reset":
                source.copy(name, target)

    older = io.BytesIO()
    with h5py.File(content, "r") as source, h5py.File(older, "w") as target:
        copy(source, target)
    return older


proofs = (
    Proof("nir-interpreter", _nir_interpreter.run, samples=1000),
    Proof("snntorch", _nir_snntorch.run, samples=200, required=False),
    Proof("spikingjelly", _nir_spikingjelly.run, samples=200, required=False),
)


def _loader(graph: Graph, version: str) -> dict[str, Any]:
    source, readout = graph.input, summands(graph, graph.output.inputs[0])
    picture = ["channel", "height", "width"]
    return {
        "format": FORMAT,
        "nir_version": nir.version,
        "dialect": DIALECTS[version],
        "timesteps": graph.timesteps,
        "dt_s": DT,
        "input": {
            "name": source.name,
            "axes": picture if len(source.shape) == 3 else ["feature"],
            "shape": list(source.shape),
            "batch": "NIR knows none; SpikingJelly takes one in front, snnTorch 1.0.0 only where there is no Flatten",
            "range": [source.low, source.high],
            "scale": source.scale,
            "coding": STILL if source.static else FRAMES,
        },
        "output": {
            "name": graph.output.name,
            "logits": f"sum over timesteps of the output of {' + '.join(readout)}",
            "unit": graph.output.unit,
        },
        "spikes": [node.name for node in graph.of(Neuron)],
        "layout": "weights and flatten in torch's order (channel, height, width)",
        "threshold": "the integer threshold and half a step of the membrane, so that > and >= fire alike"
        if version == NEW
        else "the integer threshold, which a spike subtracts; a neuron fires where it is passed, not where it is met",
    }


def _differences(where: str, expected: Any, met: Any) -> Iterator[str]:
    """Where two graphs, as nested dicts, part."""
    if isinstance(expected, Mapping) and isinstance(met, Mapping):
        for key in sorted(expected.keys() | met.keys()):
            yield from _differences(f"{where}/{key}", expected.get(key), met.get(key))
    elif not np.array_equal(expected, met):
        yield f"{where} differs"
