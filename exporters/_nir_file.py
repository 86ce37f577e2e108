"""What a NIR file of this package says about itself, and how it is opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from snnkd_deploy.errors import BundleError, ProofError
from snnkd_deploy.ir import Array, Graph

FORMAT = 1
"""Version of the metadata below and of the way in which a graph is written."""
DT = 1e-4
"""Seconds per step. NIR's neurons are equations in time; snnTorch and SpikingJelly read every file with this step."""
PREFIX = "snnkd_deploy."
NEW, OLD = "1.0.6", "1.0.5"
"""From 1.0.6 on a spike sets the membrane to v_reset; up to 1.0.5 it subtracts the threshold: no file has v_reset."""
STILL, FRAMES = "the same picture at each step", "one frame per step"


@dataclass(frozen=True, eq=False)
class Network:
    """A file as it was read: NIR nodes in an order in which each comes after its sources."""

    nodes: Mapping[str, Any]
    sources: Mapping[str, tuple[str, ...]]
    timesteps: int
    static: bool
    dialect: str = NEW

    def of(self, *kinds: type) -> list[str]:
        """The names of the nodes of these NIR classes, in order."""
        return [name for name, node in self.nodes.items() if isinstance(node, kinds)]

    def lasting(self, name: str) -> bool:
        """Whether a neuron's reset matters: something of its membrane reaches another step."""
        node = self.nodes[name]
        tau = node.tau_mem if isinstance(node, nir.CubaLIF) else getattr(node, "tau", None)
        return self.timesteps > 1 and (tau is None or bool(tau.max() > DT))

    @property
    def neurons(self) -> list[str]:
        return self.of(nir.IF, nir.LIF, nir.CubaLIF)


def metadata(graph: Graph, dialect: str) -> dict[str, Any]:
    """What NIR has no field for, of the whole network."""
    values = {
        "format": FORMAT,
        "dialect": dialect,
        "digest": graph.origin or graph.digest,
        "timesteps": graph.timesteps,
        "dt_s": DT,
        "input_coding": STILL if graph.input.static else FRAMES,
        "input_scale": graph.input.scale,
        "logit_unit": graph.output.unit,
    }
    return {PREFIX + key: value for key, value in values.items()}


def read(path: Path) -> Network:
    """BundleError if the file is damaged, is not of this package or follows another definition of the reset."""
    try:
        before = without_reset(path)
        graph = nir.read(path)
    except FileNotFoundError:
        raise BundleError(f"no NIR file at {path}") from None
    except Exception as error:  # h5py and nir raise many kinds for a damaged file
        raise BundleError(f"{path} is not a NIR file that nir {nir.version} can read: {error}") from error
    dialect = str(graph.metadata.get(f"{PREFIX}dialect", NEW))
    if before and dialect != OLD:
        raise BundleError(
            f"{path}: {', '.join(before)} without v_reset, as up to NIR 1.0.5, where a spike subtracts the "
            f"threshold; its metadata say {dialect}"
        )
    if (version := _item(graph, "format", path)) != FORMAT:
        raise BundleError(f"{path} is written in format {version}; this version reads {FORMAT}")
    timesteps, coding = int(_item(graph, "timesteps", path)), _item(graph, "input_coding", path)
    if timesteps < 1 or coding not in (STILL, FRAMES):
        raise BundleError(f"{path}: {timesteps} timesteps, input coding {coding!r}; accepted are {STILL!r}, {FRAMES!r}")
    return replace(_sorted(graph, path, timesteps, coding == STILL), dialect=dialect)


def samples_in(network: Network, inputs: Array, path: Path) -> int:
    """How many samples `inputs` holds. BundleError if their shape is not what the file takes in."""
    shape = tuple(int(size) for size in network.nodes[network.of(nir.Input)[0]].input_type["input"])
    leading = () if network.static else (network.timesteps,)
    axis = len(leading)
    if inputs.ndim <= axis or inputs.shape[:axis] != leading or inputs.shape[axis + 1 :] != shape:
        raise BundleError(f"{path} takes in {(*leading, 'samples', *shape)}, the samples have shape {inputs.shape}")
    return int(inputs.shape[axis])


def whole(logits: Array) -> Array:
    """Logits as int64. ProofError if they have fractions, which no sum of this package's integers has."""
    nearest = np.rint(logits)
    if np.any(nearest != logits):
        raise ProofError("the logits are not whole numbers")
    return nearest.astype(np.int64)


def without_reset(path: Path) -> list[str]:
    """Names of the neurons for which `nir.read` would make up `v_reset`."""
    with h5py.File(path, "r") as file:
        nodes = file["node/nodes"]
        kinds = (b"IF", b"LIF", b"CubaLIF")
        return [name for name, node in nodes.items() if node["type"][()] in kinds and "v_reset" not in node]


def _item(graph: Any, key: str, path: Path) -> Any:
    if PREFIX + key not in graph.metadata:
        raise BundleError(f"{path} was not written by this package: its metadata lack {PREFIX + key!r}")
    return graph.metadata[PREFIX + key]


def _sorted(graph: Any, path: Path, timesteps: int, static: bool) -> Network:
    """`nir.read` adds an Input to a node without source, an Output to one without reader: more than one is damage."""
    sources = {name: tuple(start for start, end in graph.edges if end == name) for name in graph.nodes}
    try:
        order = tuple(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise BundleError(f"{path}: a loop through {', '.join(error.args[1])}") from None
    network = Network({name: graph.nodes[name] for name in order}, sources, timesteps, static)
    for kind in (nir.Input, nir.Output):
        if len(found := network.of(kind)) != 1:
            raise BundleError(f"{path}: an edge is missing; met {len(found)} {kind.__name__} nodes, {', '.join(found)}")
    return network
