"""Watches the simulator, or the native runtime in its place, and hands a tally what each batch did."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.counts.attention import products
from snnkd_deploy.counts.reach import Reach, active, followed, reach
from snnkd_deploy.counts.seen import Seen
from snnkd_deploy.counts.tally import Tally
from snnkd_deploy.ir import Array, Attention, Flatten, Input, Neuron, Node, Output, Pool, Relu, Weighing, Window


class Watch:
    """Observes a simulation; holds masks, membranes and event maps of the batch in flight, nothing else."""

    def __init__(self, tally: Tally) -> None:
        self.tally, graph = tally, tally.graph
        self._reached: dict[str, Reach] = {}
        self._fired: dict[str, Array] = {}
        """Event maps `(batch, *shape)` of what neurons put out."""
        self._followed = followed(graph)
        self._last_reader = {name: node.name for node in graph for name in node.inputs}
        self._steps = np.min_scalar_type(graph.timesteps)
        """A narrow type that counts steps."""
        self._membrane: Array = np.zeros(0)

    def note(self, node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        """Add one node's batch, `(time or 1, batch, *shape)` each."""
        if isinstance(node, Input):
            self.tally.samples += value.shape[1]
        elif isinstance(node, Weighing | Pool | Window):
            self.arrived(node, arguments[0])
        elif isinstance(node, Attention):
            for what, number in products(node, arguments).items():
                self.tally.add(node.name, what, number)
        elif isinstance(node, Neuron):
            self.tally.add(node.name, "updates_active", active(self._reached[node.inputs[0]], value))
        elif isinstance(node, Relu):
            self.tally.add(node.name, "nonzero_out", np.sum([by_sample(step) for step in value], axis=0))
        elif isinstance(node, Flatten) and node.inputs[0] in self._fired:
            self._fired[node.name] = self._fired[node.inputs[0]].reshape(value.shape[1], -1)
        elif isinstance(node, Output):
            self.tally.predictions.append(value.argmax(axis=1))
        self._follow(node, arguments, value)

    def look(self, node: Neuron, step: int, potential: Array, fires: Array) -> None:
        """One step of neurons, `(batch, *shape)` each; at the first one every membrane changes."""
        if step == 0:
            self._fired[node.name] = np.zeros(fires.shape, dtype=self._steps)
            self._spikes: list[Array] = []
            self._changes: Array = np.full(len(potential), potential[0].size)
        else:
            self._changes = self._changes + by_sample(potential != self._membrane)
        self._membrane = potential
        self._fired[node.name] += fires
        self._spikes.append(by_sample(fires))
        if step == self.tally.graph.timesteps - 1:
            self.tally.fired(node.name, np.stack(self._spikes))
            self.tally.add(node.name, "membrane_changes", self._changes)

    def fired(self, node: Neuron, spikes: Array, changes: Array) -> None:
        """All steps of neurons at once, `(time, batch, *shape)`, and how often the membranes of each sample changed."""
        self._fired[node.name] = self._over_time(spikes != 0)
        self.tally.fired(node.name, np.stack([by_sample(step) for step in spikes]))
        self.tally.add(node.name, "membrane_changes", changes)

    def arrived(self, node: Node, x: Array) -> None:
        """What a layer of synapses or a pool reads, `(time or 1, batch, *shape)`."""
        carried, (source,) = self.tally.carried[node.inputs[0]], node.inputs
        self.tally.arrived(node.name, self._fired[source] if source in self._fired else self._over_time(x != 0))
        if carried.kind == "spikes" or not isinstance(node, Weighing):
            return
        seen = self.tally.seen.setdefault(node.name, Seen())
        if carried.kind == "sums":
            spikes = x if carried.unit == 1 else np.rint(x / carried.unit)
            self.tally.arrived_as(node.name, np.abs(spikes).sum(axis=0))
        seen.add(x, carried.unit)

    def _over_time(self, events: Array) -> Array:
        """How many steps each input was not zero, `(batch, *shape)`."""
        return np.asarray(np.add.reduce(events, axis=0, dtype=self._steps))

    def _follow(self, node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        """Where anything arrives, for the neurons behind; what nobody reads any more is let go."""
        if node.name in self._followed:
            given = [self._reached[name] for name in node.inputs if name in self._followed]
            self._reached[node.name] = reach(node, given, arguments, value)
        for name in node.inputs:
            if self._last_reader[name] == node.name:
                self._reached.pop(name, None)
                self._fired.pop(name, None)


def by_sample(x: Array) -> Array:
    """How many values of each sample are not zero, int64 `(batch,)`; row by row, which is what numpy is fast at."""
    return np.array([np.count_nonzero(row) for row in x.reshape(len(x), -1)], dtype=np.int64)
