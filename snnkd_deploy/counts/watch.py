"""Watches the reference simulator, and hands a tally what each batch did."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.counts.attention import products
from snnkd_deploy.counts.fan_out import Weighing
from snnkd_deploy.counts.reach import Reach, active, followed, reach
from snnkd_deploy.counts.seen import Seen
from snnkd_deploy.counts.tally import Tally
from snnkd_deploy.ir import Array, Attention, Input, Neuron, Node, Output, Pool, Relu, Window


class Watch:
    """Observes a simulation; holds masks and membranes of the batch in flight, nothing else."""

    def __init__(self, tally: Tally) -> None:
        self.tally, graph = tally, tally.graph
        self._reached: dict[str, Reach] = {}
        self._followed = followed(graph)
        self._last_reader = {name: node.name for node in graph for name in node.inputs}
        self._membrane: Array = np.zeros(0)
        self._changes: Array = np.zeros(0, dtype=np.int64)

    def note(self, node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        """Add one node's batch, `(time or 1, batch, *shape)` each."""
        if isinstance(node, Input):
            self.tally.samples += value.shape[1]
        elif isinstance(node, Weighing | Pool | Window):
            self._arrived(node, arguments[0])
        elif isinstance(node, Attention):
            for what, number in products(node, arguments).items():
                self.tally.add(node.name, what, number)
        elif isinstance(node, Neuron):
            self._fired(node, value)
        elif isinstance(node, Relu):
            by_sample = value.swapaxes(0, 1).reshape(value.shape[1], -1)
            self.tally.add(node.name, "nonzero_out", np.count_nonzero(by_sample, axis=1))
        elif isinstance(node, Output):
            self.tally.predictions.append(value.argmax(axis=1))
        self._follow(node, arguments, value)

    def look(self, node: Neuron, step: int, potential: Array) -> None:
        """Membranes before reset, `(batch, *shape)`; the first step changes all of them."""
        if step == 0:
            self._changes = np.full(len(potential), potential[0].size)
        else:
            moved = (potential != self._membrane).reshape(len(potential), -1)
            self._changes = self._changes + np.count_nonzero(moved, axis=1)
        self._membrane = potential

    def _arrived(self, node: Node, x: Array) -> None:
        carried = self.tally.carried[node.inputs[0]]
        name = node.name
        self.tally.arrived(name, x.sum(axis=0) if carried.kind == "spikes" and carried.unit == 1 else _nonzero(x))
        if carried.kind == "sums" and isinstance(node, Weighing):
            self.tally.arrived_as(name, np.rint(np.abs(x) / carried.unit).sum(axis=0))
        if carried.kind != "spikes" and isinstance(node, Weighing):
            self.tally.seen.setdefault(name, Seen()).add(x)

    def _fired(self, node: Neuron, spikes: Array) -> None:
        time, batch = spikes.shape[:2]
        self.tally.fired(node.name, spikes.reshape(time, batch, -1).sum(axis=2))
        self.tally.add(node.name, "updates_active", active(self._reached[node.inputs[0]], spikes))
        self.tally.add(node.name, "membrane_changes", self._changes)

    def _follow(self, node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        """Where anything arrives, for the neurons behind; what nobody reads any more is let go."""
        if node.name in self._followed:
            given = [self._reached[name] for name in node.inputs if name in self._followed]
            self._reached[node.name] = reach(node, given, arguments, value)
        for name in node.inputs:
            if self._last_reader[name] == node.name:
                self._reached.pop(name, None)


def _nonzero(x: Array) -> Array:
    """How many steps each input was not zero, `(batch, *shape)`."""
    return np.asarray((x != 0).sum(axis=0))
