"""What a run leaves behind, whoever ran it: plain arrays by the name of the node, added up batch by batch.

Of each layer that reads events an event map is kept, int64 of the layer's input's shape: how often each input was not
zero. A batch hands over its own, one for each sample, summed over steps; what that makes of synaptic work is one
product with the layer's fan-out. Nothing grows with the data but a few numbers a sample and layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from snnkd_deploy.counts.fan_out import fan_out
from snnkd_deploy.counts.kinds import Carried, carried
from snnkd_deploy.counts.seen import Seen
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import Array, Graph, Node, Pool, Stage, Weighing, Window

EXACT32 = 2**24
"""Whole numbers below it are exact in float32, and so are their sums in any order."""


class Tally:
    """Counts as they come in. `simulator`: who ran the network, in words. GraphError before FOLDED."""

    def __init__(self, graph: Graph, simulator: str) -> None:
        if graph.stage < Stage.FOLDED:
            raise GraphError(
                f"{graph.name} cannot be counted:", ["fold its BatchNorm first; it is no operation of a chip"]
            )
        self.graph, self.simulator = graph, simulator
        self.carried: Mapping[str, Carried] = carried(graph)
        self.samples = 0
        self.events: dict[str, Array] = {}
        """Event maps, int64."""
        self.per_sample: dict[tuple[str, str], list[Array]] = {}
        """By node and what is counted: a part `(batch,)` for each batch, int64."""
        self.per_step: dict[str, Array] = {}
        """Spikes of each layer of neurons at each step, int64 `(time,)`."""
        self.seen: dict[str, Seen] = {}
        self.predictions: list[Array] = []
        self._maps = {node.name: self._fan_out(node) for node in graph if isinstance(node, Weighing | Pool | Window)}

    def arrived(self, name: str, events: Array) -> None:
        """Events at each input of a layer of synapses or a pool in a batch, whole numbers `(batch, *shape)`."""
        flat = self._exact(name, events)
        kept = self.events.setdefault(name, np.zeros(events.shape[1:], dtype=np.int64))
        kept += (np.ones(len(flat), dtype=flat.dtype) @ flat).astype(np.int64).reshape(kept.shape)
        self.add(name, "events_in", flat @ np.ones(flat.shape[1], dtype=flat.dtype))
        self._multiply(name, flat, ("synops", "synops_nonzero"))

    def arrived_as(self, name: str, spikes: Array) -> None:
        """How many spikes these events stand for, where they are sums."""
        self._multiply(name, self._exact(name, spikes), ("synops_unit", "synops_unit_nonzero"))

    def fired(self, name: str, spikes: Array) -> None:
        """Spikes of a layer of neurons, `(time, batch)`."""
        self.per_step[name] = self.per_step.get(name, 0) + spikes.sum(axis=1, dtype=np.int64)
        self.add(name, "spikes_out", spikes.sum(axis=0, dtype=np.int64))

    def add(self, name: str, what: str, number: Array) -> None:
        """Any count of each sample of a batch, `(batch,)`."""
        self.per_sample.setdefault((name, what), []).append(np.asarray(number, dtype=np.int64))

    def count(self, name: str, what: str) -> Array | None:
        """A count of each sample, int64 `(samples,)`; None if nobody counted it."""
        parts = self.per_sample.get((name, what))
        return None if parts is None else np.concatenate(parts)

    def _multiply(self, name: str, flat: Array, fields: tuple[str, str]) -> None:
        for read, what in zip(self._maps[name], fields, strict=False):
            self.add(name, what, flat @ read.astype(flat.dtype, copy=False))

    def _exact(self, name: str, events: Array) -> Array:
        """As rows of the narrowest floats whose products with the fan-out, and with ones, are exact."""
        flat = events.reshape(len(events), -1)
        terms = max(float(self._maps[name][0].sum(dtype=np.float64)), *flat.shape)
        largest = terms * float(flat.max(initial=0))
        return flat.astype(np.float32 if largest < EXACT32 else np.float64, copy=False)

    def _fan_out(self, node: Node) -> list[Array]:
        """Reads of each input, and of synapses those by weights that are not zero; float32, no input has 2**24."""
        shape = self.graph.shapes[node.inputs[0]]
        if isinstance(node, Weighing):
            maps = [fan_out(node, shape, nonzero) for nonzero in (False, True)]
        else:
            assert isinstance(node, Pool | Window)
            maps = [fan_out(node, shape)]
        return [one.reshape(-1).astype(np.float32) for one in maps]
