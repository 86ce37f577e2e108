"""Counts that the native runtime takes on the way: no spike leaves it, and counting costs a few percent of running.

What a layer reads is known there as how often each input was not zero, a map of bytes for a sample. Work of synapses is
that map times the layer's fan-out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from snnkd_deploy.counts.kinds import SPIKING
from snnkd_deploy.counts.seen import Seen
from snnkd_deploy.counts.tally import PAIRS, UNITS, Tally
from snnkd_deploy.counts.watch import Watch
from snnkd_deploy.ir import Array, Attention, Flatten, Graph, Input, Neuron, Node, Pool, Weighing, Window
from snnkd_deploy.native import Native, Wanted, Watched
from snnkd_deploy.native.runtime import Layer
from snnkd_deploy.simulate import entering

Read = tuple[int, int]
"""A column of what was weighed, and what it is multiplied with."""


@dataclass(eq=False)
class _Source:
    """What some layers read, and the different tables by which its events are weighed for them."""

    tables: list[Array] = field(default_factory=list)

    def column(self, table: Array) -> Read:
        """Where its sum is found; one factor for all needs no table."""
        if (table == table.flat[0]).all():
            return 0, int(table.flat[0])
        for number, one in enumerate(self.tables, start=1):
            if np.array_equal(one, table):
                return number, 1
        self.tables.append(table)
        return len(self.tables), 1


class NativeCounter:
    """Runs batches natively and hands a tally what they did; see `holds`."""

    def __init__(self, graph: Graph, native: Native, tally: Tally) -> None:
        self.graph, self.native, self.tally = graph, native, tally
        self._watch = Watch(tally)
        self._readers = _readers(graph)
        layers = {layer.name: layer for layer in native.layers}
        self._sources = {node.name: _Source() for node in graph.of(Neuron)}
        self._reads: dict[str, list[Read]] = {}
        for node in self._readers:
            name = _source(graph, node)
            if not isinstance(graph[name], Input):
                source = self._sources.setdefault(name, _Source())
                whole = (table.astype(np.int64) for table in tally.fan_out(node.name))
                self._reads[node.name] = [source.column(table) for table in whole]
        weighed = [graph[name] for name in self._reads if isinstance(graph[name], Weighing)]
        maps = {_source(graph, node) for node in weighed}
        sums = {_source(graph, node) for node in weighed if self._adds(node)}
        tables = {name: _stacked(layers[name], source.tables) for name, source in self._sources.items()}
        self._wanted = Wanted(maps, (), tables, sums, sums, step_spikes=True, reached=True, changes=True)

    def add(self, inputs: Array) -> None:
        """A batch, as `simulate` takes it."""
        self._watch_input(entering(self.graph, inputs))
        found, tally = self.native.watch(inputs, self._wanted), self.tally
        tally.predictions.append(found.logits.argmax(axis=1))
        for name, steps in found.step_spikes.items():
            tally.spiked(name, steps, found.events[name][:, 0])
            tally.add(name, "updates_active", found.reached[name])
            tally.add(name, "membrane_changes", found.changes[name])
        for name, reads in self._reads.items():
            self._read(self.graph[name], reads, found)

    def _read(self, node: Node, reads: list[Read], found: Watched) -> None:
        """What a layer read."""
        source, tally = _source(self.graph, node), self.tally
        tally.add(node.name, "events_in", found.events[source][:, 0])
        for (column, times), what in zip(reads, PAIRS, strict=False):
            tally.add(node.name, what, times * found.events[source][:, column])
        if not isinstance(node, Weighing):
            return
        tally.mapped(node.name, found.nonzero[source])
        if self._adds(node):
            for (column, times), what in zip(reads, UNITS, strict=True):
                tally.add(node.name, what, times * found.amounts[source][:, column])
            tally.seen.setdefault(node.name, Seen()).meet(found.met[source])

    def _watch_input(self, x: Array) -> None:
        self.tally.samples += x.shape[1]
        for node in self._readers:
            if node.name not in self._reads:
                self._watch.arrived(node, x.reshape(*x.shape[:2], *self.graph.shapes[node.inputs[0]]))

    def _adds(self, node: Node) -> bool:
        """Whether sums of spikes arrive."""
        return self.tally.carried[node.inputs[0]].kind != "spikes"


def holds(graph: Graph, native: Native, tally: Tally) -> bool:
    """Whether the runtime can count all of it: spikes and sums of them alone are read, but for the samples."""
    layers = {layer.name: layer for layer in native.layers}
    for node in _readers(graph):
        source, carried = _source(graph, node), tally.carried[node.inputs[0]]
        if isinstance(graph[source], Input):
            continue
        bits = layers[source].bits
        if carried.kind not in SPIKING or carried.unit != 1 or bits == 0 or (carried.kind == "spikes" and bits > 1):
            return False
    return not graph.of(Attention)


def _readers(graph: Graph) -> list[Node]:
    """Nodes of which it is counted what they read."""
    return [node for node in graph if isinstance(node, Weighing | Pool | Window)]


def _source(graph: Graph, node: Node) -> str:
    """The node whose values a layer reads, whatever their shape."""
    name: str = node.inputs[0]
    while isinstance(graph[name], Flatten):
        (name,) = graph[name].inputs
    return name


def _stacked(layer: Layer, tables: list[Array]) -> Array:
    """`(tables, *shape)`."""
    return np.array(tables, dtype=np.int64).reshape(len(tables), *layer.shape)
