"""Counts taken while a network runs in torch: hooks hand a tally what each forward delivers.

    graph = folded(network, source)
    with counting(network, graph) as tally:
        network(images)
    counts = counted(tally)

Torch sums float tensors slowly and multiplies matrices fast, so each sum over time, samples or neurons is a product
with ones; whole numbers below 2**24 are exact in float32. Spikes that a pool of windows side by side reads are counted
behind it, where there are fewer numbers. The network decides what fires: in float32 that may be another spike than the
reference simulator's, in float64 it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.target import load_target
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
        self.signed = tally.graph.input.low < 0
        self.maps: dict[str, Tensor] = {}
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
                self._summed(node.name, "nonzero_out", _numbers(self._by_sample(out != 0, node.name)))
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
        self.maps.clear()
        self.values.clear()

    def _summed(self, name: str, what: str, number: Array) -> None:
        self.tally.add(name, what, number if self.per_sample or len(number) == 1 else number.sum(keepdims=True))

    def _fired(self, node: Neuron, spikes: Tensor) -> None:
        if node.name in self.pooled:
            return
        rows, restored = _rows(spikes)
        if self.per_sample:
            self.maps[node.name] = self._over_time(spikes, self.graph.timesteps)
            self.tally.fired(node.name, _whole(self._by_step(rows)))
            return
        steps = rows.view(self.graph.timesteps, -1, rows.shape[1])
        maps = torch.stack([_ones(one, len(one)) @ one for one in steps])
        self.maps[node.name] = restored(maps.sum(0, keepdim=True))
        self.tally.fired(node.name, _whole(maps.sum(1, keepdim=True)))

    def _windowed(self, node: Pool | Window, x: Tensor, out: Tensor) -> None:
        neuron = node.inputs[0]
        if self.pooled.get(neuron) != node.name:
            self._arrived(node, x)
            return
        spikes = self._by_step(_rows(out)[0]) / self.tally.carried[node.name].unit
        found = _whole(spikes if self.per_sample else spikes.sum(1, keepdim=True))
        self.tally.fired(neuron, found)
        self.tally.add(node.name, "synops", found.sum(axis=0))

    def _arrived(self, node: Weighing | Pool | Window, x: Tensor) -> None:
        source = node.inputs[0]
        carried, steps = self.tally.carried[source], self._steps(source)
        if carried.kind == "spikes":
            known = self.maps.get(_unflattened(self.graph, source))
            events = self._over_time(x, steps) / carried.unit if known is None else known
        else:
            events = self._over_time(_wide(x != 0) if self.signed or carried.kind == "values" else x.sign(), steps)
        shape = self.graph.shapes[source]
        self.tally.arrived(node.name, _whole(events).reshape(-1, *shape))
        if carried.kind == "sums" and isinstance(node, Weighing):
            spikes = self._over_time(x.abs() if self.signed else x, steps) / carried.unit
            self.tally.arrived_as(node.name, _whole(spikes).reshape(-1, *shape))

    def _attended(self, node: Attention, factors: tuple[Tensor, ...]) -> None:
        parts = [self._as_steps(one, name) for one, name in zip(factors, node.inputs, strict=True)]
        for what, number in products(node, tuple(parts)).items():
            self._summed(node.name, what, number)

    def _steps(self, name: str) -> int:
        return 1 if name in self.graph.static else self.graph.timesteps

    def _over_time(self, x: Tensor, steps: int) -> Tensor:
        """Sums over steps, `(batch, *shape)`, or over samples as well, `(1, *shape)`."""
        rows, restored = _rows(x)
        if not self.per_sample:
            return restored((_ones(rows, len(rows)) @ rows)[None])
        if steps == 1:
            return x.detach()
        return restored((_ones(rows, steps) @ rows.view(steps, -1)).view(-1, rows.shape[1]))

    def _by_step(self, rows: Tensor) -> Tensor:
        """Sums over the neurons, `(time, batch)`."""
        return (rows @ _ones(rows, rows.shape[1])).view(self.graph.timesteps, -1)

    def _by_sample(self, events: Tensor, name: str) -> Tensor:
        """How many are true in each sample."""
        return events.flatten(1).sum(1).view(self._steps(name), -1).sum(0)

    def _keep(self, node: Node, x: Tensor) -> None:
        name = node.inputs[0] if isinstance(node, Weighing) else node.name
        self.values[node.name] = self._as_steps(x, name)

    def _as_steps(self, x: Tensor, name: str) -> Array:
        return _numbers(_wide(x.detach()).unflatten(0, (self._steps(name), -1)))

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


def _rows(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A matrix of one row a step and sample, in the order of memory, and what gives rows their shape again."""
    wide, shape = _wide(x.detach()), x.shape[1:]
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        turned = shape[1:] + shape[:1]
        return wide.permute(0, 2, 3, 1).flatten(1), lambda rows: rows.view(-1, *turned).permute(0, 3, 1, 2)
    return wide.flatten(1), lambda rows: rows.view(-1, *shape)


def _wide(x: Tensor) -> Tensor:
    """In a type whose whole numbers are exact up to 2**24."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _ones(like: Tensor, count: int) -> Tensor:
    return torch.ones(count, dtype=like.dtype, device=like.device)


def _whole(x: Tensor) -> Array:
    """The whole numbers that rounding left it close to."""
    return _numbers(_wide(x).round())


def _numbers(x: Tensor) -> Array:
    return np.asarray(x.cpu().numpy())
