"""A snnTorch module: Python of standard layers and of snnTorch's neurons, and a state_dict; needs both packages alone.

network.py is to be read and changed; network.pt holds its integers as float32. Both packages are imported when a file
is written or run, not before.
"""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy.errors import BundleError, LegalityError, RuntimeMissingError
from snnkd_deploy.ir import Array, Conv2d, Graph, Linear, Neuron
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import Record
from snnkd_deploy.target import Target

from ._snntorch_runner import MISSING
from ._snntorch_source import Source, is_plain, refusals

suffix = ".py"
RUNNER = Path(__file__).with_name("_snntorch_runner.py")


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a LEGAL graph as a module and its weights. LegalityError lists what float32 cannot hold.

    RuntimeMissingError without snnTorch, whose own modules the weights are made for.
    """
    if problems := list(refusals(graph)):
        raise LegalityError(f"snntorch cannot hold {graph.name}:", problems)
    version = _version()
    from torch import nn

    source = Source(graph, path.stem, frozenset(dir(nn.Module())))
    path.write_text(source.text, encoding="ascii")
    path.with_suffix(".pt").write_bytes(_weights(source, path))
    neurons = graph.of(Neuron)
    return {
        "module": path.name,
        "weights": path.with_suffix(".pt").name,
        "snntorch": version,
        "input": {"axes": ["batch", "..."] if graph.input.static else ["timestep", "batch", "..."]},
        "layers": {node.name: source.names[node.name] for node in neurons},
        **{
            f"plain_{kind}": [n.name for n in neurons if is_plain(n, graph.timesteps) and n.keeps_current == keeps]
            for kind, keeps in (("leaky", False), ("synaptic", True))
        },
    }


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """Import the module where this package cannot be imported, and run it. BundleError if it fails."""
    axis = loader["input"]["axes"].index("batch")
    with tempfile.TemporaryDirectory(prefix="snnkd-snntorch-") as folder:
        request, answer = Path(folder, "request.npz"), Path(folder, "answer.npz")
        np.savez(request, inputs=inputs, axis=axis, layers=np.array(list(loader["layers"].values())))
        command = [sys.executable, str(RUNNER), str(path), str(request), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)  # noqa: S603
        if done.returncode == MISSING:
            raise RuntimeMissingError(_missing(done.stderr.strip()))
        if done.returncode:
            raise BundleError(f"{path} does not run:\n{done.stderr.strip()}")
        with np.load(answer) as found:
            spikes = {name: found[f"spikes_{place}"] for place, name in enumerate(loader["layers"])}
            return Record(spikes, _whole(found["logits"]))


proofs = (Proof("snntorch", run, samples=200),)


def _weights(source: Source, path: Path) -> bytes:
    """The state_dict of the module at `path`, filled from the graph."""
    import torch

    network = runpy.run_path(str(path))["Network"]()
    with torch.no_grad():
        for node in source.graph:
            layer: Any = getattr(network, source.names[node.name], None)
            if isinstance(node, Neuron):
                held = {"threshold": node.threshold, "beta": node.decay}
                for name, values in (held | ({"alpha": node.current_decay} if node.keeps_current else {})).items():
                    buffer = getattr(layer, name)
                    buffer.copy_(torch.from_numpy(np.asarray(values)).reshape(buffer.shape))
            elif isinstance(node, Linear | Conv2d):
                layer.weight.copy_(torch.from_numpy(node.weight))
                layer.bias.copy_(torch.from_numpy(node.bias))
    content = io.BytesIO()
    torch.save(network.state_dict(), content)
    return content.getvalue()


def _whole(values: Array) -> Array:
    """Integers that came as float32; anything between them is kept as a difference to be found."""
    return values.astype(np.int64) if np.array_equal(values, np.rint(values)) else values


def _version() -> str:
    try:
        import snntorch
    except ImportError as error:
        raise RuntimeMissingError(_missing(str(error))) from error
    return str(snntorch.__version__)


def _missing(reason: str) -> str:
    return f"snnTorch is not installed ({reason}); pip install snntorch"
