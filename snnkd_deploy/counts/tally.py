"""What a run leaves behind, whoever ran it: plain arrays by the name of the node, added up batch by batch.

Of each layer that reads events an event map is kept, int64 of the layer's input's shape: how often each input was not
zero. A batch hands over its own, one for each sample, summed over steps; what that makes of synaptic work is one
product with the layer's fan-out. Nothing grows with the data but a few numbers a sample and layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from snnkd_deploy.counts.fan_out import Weighing, fan_out
from snnkd_deploy.counts.kinds import Carried, carried
from snnkd_deploy.counts.seen import Seen
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import Array, Graph, Node, Pool, Stage, Window


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
        kept = self.events.setdefault(name, np.zeros(events.shape[1:], dtype=np.int64))
        kept += events.sum(axis=0, dtype=np.int64)
        self.add(name, "events_in", events.reshape(len(events), -1).sum(axis=1, dtype=np.int64))
        self._multiply(name, events, ("synops", "synops_nonzero"))

    def arrived_as(self, name: str, spikes: Array) -> None:
        """How many spikes these events stand for, where they are sums."""
        self._multiply(name, spikes, ("synops_unit", "synops_unit_nonzero"))

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

    def _multiply(self, name: str, events: Array, fields: tuple[str, str]) -> None:
        # float64 is exact here: the products are whole numbers, and no layer has 2**53 pairs in one sample
        found = events.reshape(len(events), -1).astype(np.float64) @ self._maps[name]
        for column, what in zip(found.T, fields, strict=False):
            self.add(name, what, column)

    def _fan_out(self, node: Node) -> Array:
        """`(inputs, 2)`: reads of each input, and those by weights that are not zero; of a pool `(inputs, 1)`."""
        shape = self.graph.shapes[node.inputs[0]]
        if isinstance(node, Weighing):
            maps = [fan_out(node, shape, nonzero) for nonzero in (False, True)]
        else:
            assert isinstance(node, Pool | Window)
            maps = [fan_out(node, shape)]
        return np.stack([one.reshape(-1) for one in maps], axis=1).astype(np.float64)
