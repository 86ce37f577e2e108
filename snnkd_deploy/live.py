"""Counts taken while a network runs in torch: hooks hand a tally what each forward delivers.

    graph = folded(network, source)
    with counting(network, graph) as tally:
        network(images)
    counts = counted(tally)

Spikes that a pool of windows side by side reads are counted behind it, where there are fewer numbers. The network
decides what fires: in float32 that may be another spike than the reference simulator's, in float64 it is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.counts import Tally
from snnkd_deploy.counts.attention import products
from snnkd_deploy.counts.reach import Reach, active, reach
from snnkd_deploy.counts.tally import PAIRS, UNITS
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    Flatten,
    Graph,
    Input,
    Neuron,
    Node,
    Pool,
    Relu,
    SumPool2d,
    Weighing,
    Window,
)
from snnkd_deploy.numerics import EXACT_FLOAT32
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.target import load_target
from snnkd_deploy.torch_sums import Summed, numbers, ones, summed, whole, wide
from snnkd_deploy.trace import trace

COUNTED = Weighing | Pool | Window | Attention | Neuron | Relu
"""Kinds of nodes that are counted while they run; sums count by their shape alone."""


def folded(network: nn.Module, source: Input, name: str = "network") -> Graph:
    """The graph that a forward of `network` in evaluation is counted as. TraceError lists what has no node."""
    return fold_batchnorm(trace(network, source, name), load_target("onnx"), Calibration(np.empty(0)))


@contextmanager
def counting(network: nn.Module, graph: Graph, per_sample: bool = True) -> Iterator[Tally]:
    """A tally of every forward of `network` in here; `graph` as `folded` gives it.

    Without `per_sample` the samples of a forward count as one: the layers have the same counts, at half the cost.
    Membranes and values are not looked at. GraphError lists nodes that no module of the network computes.
    """
    tally = Tally(graph, f"torch {torch.__version__}, {next(network.parameters()).dtype}")
    hooks, modules = _Hooks(tally, per_sample), dict(network.named_modules())
    wanted = [node.name for node in graph if isinstance(node, COUNTED) or node.name in hooks.kept]
    if lacking := [f"{name}: no module of this name" for name in wanted if name not in modules]:
        raise GraphError(f"{graph.name} cannot be counted while it runs, but its graph can (counts.count):", lacking)
    handles = [modules[name].register_forward_hook(hooks.listening(graph[name])) for name in wanted]
    handles.append(network.register_forward_hook(hooks.finish))
    try:
        yield tally
    finally:
        for handle in handles:
            handle.remove()


class _Hooks:
    """What is known of the batch in flight."""

    def __init__(self, tally: Tally, per_sample: bool) -> None:
        self.tally, self.graph, self.per_sample = tally, tally.graph, per_sample
        self.pooled = _pooled_neurons(tally.graph)
        self.unsure = [node for node in tally.graph.of(Neuron) if not _always(tally.graph, node.inputs[0]).all()]
        self.kept = _sources(tally.graph, [node.name for node in self.unsure])
        """Nodes whose values decide which updates are active; none where every output has a bias."""
        self.sums: dict[str, Summed] = {}
        self.values: dict[str, Array] = {}

    def listening(self, node: Node) -> Any:
        """A hook for the module that computes `node`."""

        def hear(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            if node.name in self.kept:
                self._keep(node, given[0] if isinstance(node, Weighing) else out)
            if isinstance(node, Neuron):
                self._fired(node, out)
            elif isinstance(node, Pool | Window):
                self._windowed(node, given[0], out)
            elif isinstance(node, Weighing):
                self._arrived(node, given[0])
            elif isinstance(node, Relu):
                self._summed(node.name, "nonzero_out", numbers(self._by_sample(out != 0, node.name)))
            elif isinstance(node, Attention):
                self._attended(node, given)

        return hear

    def finish(self, network: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> None:
        """The forward is over."""
        self.tally.samples += len(logits)
        self.tally.predictions.append(np.asarray(logits.detach().argmax(1).cpu().numpy()))
        for node in self.graph.of(Neuron):
            size = prod(self.graph.shapes[node.name]) * self.graph.timesteps
            every = np.full(len(logits), size)
            found = active(self._reach(node.inputs[0]), self.values[node.name]) if node in self.unsure else every
            self._summed(node.name, "updates_active", found)
        self.sums.clear()
        self.values.clear()

    def _summed(self, name: str, what: str, number: Array) -> None:
        self.tally.add(name, what, number if self.per_sample or len(number) == 1 else number.sum(keepdims=True))

    def _fired(self, node: Neuron, spikes: Tensor) -> None:
        if node.name not in self.pooled:
            self.sums[node.name] = self._sums(spikes, node.name)
            self.tally.fired(node.name, whole(self.sums[node.name].by_step))

    def _windowed(self, node: Pool | Window, x: Tensor, out: Tensor) -> None:
        """A pool, or behind it the neurons that it alone reads: there are as many spikes as in front."""
        neuron = node.inputs[0]
        if self.pooled.get(neuron) != node.name:
            self._arrived(node, x)
            return
        found = self.sums[node.name] = self._sums(out, node.name)
        spikes = whole(found.by_step / self.tally.carried[node.name].unit)
        self.tally.fired(neuron, spikes)
        self.tally.add(node.name, "synops", spikes.sum(axis=0))

    def _arrived(self, node: Weighing | Pool | Window, x: Tensor) -> None:
        carried = self.tally.carried[node.inputs[0]]
        source = _unflattened(self.graph, node.inputs[0])
        found = self.sums[source] if source in self.sums else self._sums(x, node.inputs[0])
        unit = found.values / carried.unit if carried.kind == "sums" and isinstance(node, Weighing) else None
        self._told(node.name, found.events / carried.unit if carried.kind == "spikes" else found.events, unit)

    def _sums(self, x: Tensor, name: str) -> Summed:
        carried = self.tally.carried[name]
        signed = carried.kind == "values" or self.graph.input.low < 0
        return summed(x, self._steps(name), self.per_sample, carried.kind == "spikes", signed)

    def _told(self, name: str, events: Tensor, units: Tensor | None) -> None:
        """Event maps `(batch or 1, *shape)`, and how many spikes their events stand for."""
        maps = [None if one is None else one.flatten(1) for one in (events, units)]
        summed = [None if one is None else whole(ones(one, len(one)) @ one) for one in maps]
        assert summed[0] is not None
        self.tally.mapped(name, summed[0], summed[1])
        for one, fields in zip(maps, (PAIRS, UNITS), strict=True):
            if self.per_sample and one is not None:
                self._multiplied(name, one, fields)

    def _multiplied(self, name: str, rows: Tensor, fields: tuple[str, str]) -> None:
        """Work of each sample: its map times the fan-out, in a type that holds it exactly."""
        reads = self.tally.fan_out(name)
        most = float(rows.max()) * max(float(reads[0].sum(dtype=np.float64)), rows.shape[1])
        rows = rows.double() if most >= EXACT_FLOAT32 else rows
        if fields == PAIRS:
            self.tally.add(name, "events_in", whole(rows @ ones(rows, rows.shape[1])))
        for read, what in zip(reads, fields, strict=False):
            self.tally.add(name, what, whole(rows @ torch.from_numpy(read).to(rows)))

    def _attended(self, node: Attention, factors: tuple[Tensor, ...]) -> None:
        parts = [self._as_steps(one, name) for one, name in zip(factors, node.inputs, strict=True)]
        for what, number in products(node, tuple(parts)).items():
            self._summed(node.name, what, number)

    def _steps(self, name: str) -> int:
        return 1 if name in self.graph.static else self.graph.timesteps

    def _by_sample(self, events: Tensor, name: str) -> Tensor:
        """How many are true in each sample."""
        return events.flatten(1).sum(1).view(self._steps(name), -1).sum(0)

    def _keep(self, node: Node, x: Tensor) -> None:
        name = node.inputs[0] if isinstance(node, Weighing) else node.name
        self.values[node.name] = self._as_steps(x, name)

    def _as_steps(self, x: Tensor, name: str) -> Array:
        return numbers(wide(x.detach()).unflatten(0, (self._steps(name), -1)))

    def _reach(self, name: str) -> Reach:
        """Where anything arrives behind `name`, from the values that were kept."""
        node = self.graph[name]
        through = isinstance(node, Pool | Window | Flatten | Add)
        given = [self._reach(one) for one in node.inputs] if through else []
        kept = self.values.get(name, np.zeros(0))
        shaped = np.broadcast_to(0, (*kept.shape[:2], *self.graph.shapes[name])) if isinstance(node, Weighing) else kept
        return reach(node, given, (kept,), shaped)


def _pooled_neurons(graph: Graph) -> dict[str, str]:
    """Neurons that one pool alone reads, in windows side by side without a rest, and that pool."""
    found = {}
    for node in graph.of(AvgPool2d, SumPool2d):
        source, sides = node.inputs[0], graph.shapes[node.inputs[0]][1:]
        fits = node.kernel == node.stride and not any(side % one for side, one in zip(sides, node.kernel, strict=True))
        if fits and isinstance(graph[source], Neuron) and len(graph.consumers(source)) == 1:
            found[source] = node.name
    return found


def _always(graph: Graph, name: str) -> Array:
    """Channels at which a bias that is not zero arrives, whatever the events."""
    node = graph[name]
    if isinstance(node, Weighing):
        return np.asarray(node.bias != 0)
    if isinstance(node, Pool | Window):
        return _always(graph, node.inputs[0])
    if isinstance(node, Add):
        return np.asarray(np.logical_or.reduce([_always(graph, one) for one in node.inputs]))
    return np.zeros(graph.shapes[name][0], dtype=bool)


def _sources(graph: Graph, neurons: list[str]) -> set[str]:
    """Nodes whose values say where anything arrives at these neurons, and the neurons themselves."""
    found, waiting = set(neurons), [name for neuron in neurons for name in graph[neuron].inputs]
    while waiting:
        node = graph[waiting.pop()]
        if isinstance(node, Pool | Window | Flatten | Add):
            waiting.extend(node.inputs)
        else:
            found.add(node.name)
    return found


def _unflattened(graph: Graph, name: str) -> str:
    return graph[name].inputs[0] if isinstance(graph[name], Flatten) else name
