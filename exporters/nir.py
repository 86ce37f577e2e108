"""NIR, the exchange format of the spiking frameworks, in the dialect of nir 1.0.6 and later (`v_reset`).

Written from the graph, not by a framework's tracer; every parameter has its full shape, every weight and bias is the
integer itself. NIR has no field for timesteps and scales: they are metadata of the file, and in the manifest.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np

from snnkd_deploy.errors import LegalityError, ProofError
from snnkd_deploy.ir import Graph, Neuron
from snnkd_deploy.proof import Proof
from snnkd_deploy.target import Target

from . import _nir_interpreter, _nir_snntorch
from ._nir_file import DT, FORMAT, FRAMES, STILL
from ._nir_nodes import nir_graph, refusals, summands

suffix = ".nir"


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a LEGAL graph and read it again. LegalityError lists all that NIR cannot say."""
    if problems := list(refusals(graph)):
        raise LegalityError(f"nir cannot hold {graph.name}:", problems)
    network = nir_graph(graph)
    content = io.BytesIO()  # h5py reports a full disk as it likes; write_bytes says it as the system does
    nir.write(content, network)
    path.write_bytes(content.getvalue())
    if differences := list(_differences("file", network.to_dict(), nir.read(path).to_dict())):
        raise ProofError("\n".join([f"{path} does not hold what was written:", *(f"  - {one}" for one in differences)]))
    return _loader(graph)


proofs = (
    Proof("nir-interpreter", _nir_interpreter.run, samples=1000),
    Proof("snntorch", _nir_snntorch.run, samples=200, required=False),
)


def _loader(graph: Graph) -> dict[str, Any]:
    source, readout = graph.input, summands(graph, graph.output.inputs[0])
    picture = ["channel", "height", "width"]
    return {
        "format": FORMAT,
        "nir_version": nir.version,
        "dialect": "nir >= 1.0.6: a spike sets the membrane to v_reset",
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
        "threshold": "the integer threshold and half a step of the membrane, so that > and >= fire alike",
    }


def _differences(where: str, expected: Any, met: Any) -> Iterator[str]:
    """Where two graphs, as nested dicts, part."""
    if isinstance(expected, Mapping) and isinstance(met, Mapping):
        for key in sorted(expected.keys() | met.keys()):
            yield from _differences(f"{where}/{key}", expected.get(key), met.get(key))
    elif not np.array_equal(expected, met):
        yield f"{where} differs"
