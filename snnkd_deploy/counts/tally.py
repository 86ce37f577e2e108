"""What a run leaves behind, whoever ran it: plain arrays by the name of the node, added up batch by batch.

Of each layer that reads events an event map is kept, int64 of the layer's input's shape: how often each input was not
zero. A batch hands over its own, summed over steps, one for each sample or one for all; what that makes of synaptic
work is one product with the layer's fan-out. Nothing grows with the data but a few numbers a sample and layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from snnkd_deploy.counts.fan_out import fan_out
from snnkd_deploy.counts.kinds import Carried, carried
from snnkd_deploy.counts.seen import Seen
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import Array, Graph, Node, Pool, Stage, Weighing, Window
from snnkd_deploy.numerics import EXACT_FLOAT32

PAIRS, UNITS = ("synops", "synops_nonzero"), ("synops_unit", "synops_unit_nonzero")


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
        self.units: dict[str, Array] = {}
        """The same of how many spikes the events stand for, where they are sums."""
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
        self.mapped(name, np.ones(len(flat), dtype=flat.dtype) @ flat)
        self.add(name, "events_in", flat @ np.ones(flat.shape[1], dtype=flat.dtype))
        self._multiply(name, flat, PAIRS)

    def arrived_as(self, name: str, spikes: Array) -> None:
        """How many spikes these events stand for, where they are sums."""
        self._multiply(name, self._exact(name, spikes), UNITS)

    def mapped(self, name: str, events: Array, units: Array | None = None) -> None:
        """The same of all samples of a batch at once; samples that were added one by one are not multiplied again."""
        for kept, met in ((self.events, events), (self.units, units)):
            if met is not None:
                added = met.reshape(self.graph.shapes[self.graph[name].inputs[0]]).astype(np.int64)
                kept[name] = kept[name] + added if name in kept else added

    def fired(self, name: str, spikes: Array) -> None:
        """Spikes of a layer of neurons, `(time, batch)`."""
        self.spiked(name, spikes.sum(axis=1, dtype=np.int64), spikes.sum(axis=0, dtype=np.int64))

    def spiked(self, name: str, by_step: Array, by_sample: Array) -> None:
        """The same as sums, `(time,)` and `(batch,)`."""
        self.per_step[name] = self.per_step.get(name, 0) + by_step
        self.add(name, "spikes_out", by_sample)

    def add(self, name: str, what: str, number: Array) -> None:
        """Any count of each sample of a batch, `(batch,)`."""
        self.per_sample.setdefault((name, what), []).append(np.asarray(number, dtype=np.int64))

    def count(self, name: str, what: str) -> Array | None:
        """A count of each sample, int64 `(samples,)`, or `(1,)` of all of them; None if nobody counted it."""
        parts = self.per_sample.get((name, what))
        return self._from_maps(name, what) if parts is None else np.concatenate(parts)

    def fan_out(self, name: str) -> list[Array]:
        """Reads of each input of a layer, flat, and of synapses those by weights that are not zero."""
        return self._maps[name]

    def _from_maps(self, name: str, what: str) -> Array | None:
        """What follows from event maps alone."""
        kept = self.units if what in UNITS else self.events
        if name not in kept or what not in ("events_in", *PAIRS, *UNITS):
            return None
        read = self._maps[name][what.endswith("_nonzero")] if what != "events_in" else np.ones(kept[name].size)
        return np.array([kept[name].reshape(-1) @ read.astype(np.int64)])

    def _multiply(self, name: str, flat: Array, fields: tuple[str, str]) -> None:
        for read, what in zip(self._maps[name], fields, strict=False):
            self.add(name, what, flat @ read.astype(flat.dtype, copy=False))

    def _exact(self, name: str, events: Array) -> Array:
        """As rows of the narrowest floats whose products with the fan-out, and with ones, are exact."""
        flat = events.reshape(len(events), -1)
        terms = max(float(self._maps[name][0].sum(dtype=np.float64)), *flat.shape)
        largest = terms * float(flat.max(initial=0))
        return flat.astype(np.float32 if largest < EXACT_FLOAT32 else np.float64, copy=False)

    def _fan_out(self, node: Node) -> list[Array]:
        """Reads of each input, and of synapses those by weights that are not zero; float32, no input has 2**24."""
        shape = self.graph.shapes[node.inputs[0]]
        if isinstance(node, Weighing):
            maps = [fan_out(node, shape, nonzero) for nonzero in (False, True)]
        else:
            assert isinstance(node, Pool | Window)
            maps = [fan_out(node, shape)]
        return [one.reshape(-1).astype(np.float32) for one in maps]
