"""Watches a simulation: one array of the layer's size a layer, and masks of the batch in flight."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from snnkd_deploy.counts.fan_out import taps
from snnkd_deploy.counts.kinds import kinds
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Pool,
    Synaptic,
)
from snnkd_deploy.numerics import by_heads, windows


class Watch:
    """Observes a simulation; holds one array of the layer's size a layer, and masks of the batch in flight."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kinds = kinds(graph)
        self.samples = 0
        self.events = {node.name: self._zeros(node) for node in graph.of(*Synaptic, Pool)}
        self.sums = {node.name: self._zeros(node) for node in graph.of(*Synaptic)}
        self.spikes = {node.name: np.zeros(graph.timesteps, dtype=np.int64) for node in graph.of(Neuron)}
        self.active = dict.fromkeys(self.spikes, 0)
        self.products = {node.name: np.zeros(3, dtype=np.int64) for node in graph.of(Attention)}
        self._reached: dict[str, Array] = {}
        self._followed = _in_front_of_neurons(graph)
        self._last_reader = {name: node.name for node in graph for name in node.inputs}

    def note(self, node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        """Add one node's batch, `(time or 1, batch, *shape)` each."""
        if isinstance(node, Input):
            self.samples += value.shape[1]
        if node.name in self.events:
            self.events[node.name] += np.count_nonzero(arguments[0], axis=(0, 1))
        if node.name in self.sums and self.kinds[node.inputs[0]] == "sums":
            self.sums[node.name] += arguments[0].sum(axis=(0, 1))
        if isinstance(node, Attention):
            self.products[node.name] += products(node, arguments)
        if isinstance(node, Neuron):
            arrived = np.broadcast_to(self._reached[node.inputs[0]], value.shape)
            self.active[node.name] += int(np.count_nonzero(arrived | (value != 0)))
            self.spikes[node.name] += value.sum(axis=tuple(range(1, value.ndim)))
        if node.name in self._followed:
            given = [self._reached[name] for name in node.inputs if name in self._followed]
            self._reached[node.name] = _reach(node, given, arguments, value)
        for name in node.inputs:
            if self._last_reader[name] == node.name:
                self._reached.pop(name, None)

    def _zeros(self, node: Node) -> Array:
        return np.zeros(self.graph.shapes[node.inputs[0]], dtype=np.int64)


def _in_front_of_neurons(graph: Graph) -> set[str]:
    """What arrives at a neuron, back to the synapses, the input or the neurons that it comes from."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if isinstance(node, Neuron) or (node.name in found and isinstance(node, Pool | Flatten | Add)):
            found.update(node.inputs)
    return found


def _reach(node: Node, given: list[Array], arguments: tuple[Array, ...], value: Array) -> Array:
    """Where at least one event or a bias that is not zero arrived, `(time or 1, batch, *shape)`."""
    if isinstance(node, Linear | Conv2d):
        if node.bias.all():
            return np.broadcast_to(np.True_, value.shape)
        biased = (node.bias != 0).reshape(-1, *[1] * (value.ndim - 3))
        return np.asarray(np.broadcast_to(_read(node, arguments[0] != 0), value.shape) | biased)
    if isinstance(node, Pool):
        time, batch = value.shape[:2]
        merged = given[0].reshape(time * batch, *given[0].shape[2:])
        return np.asarray(windows(merged, node).any(axis=(-2, -1)).reshape(value.shape))
    if isinstance(node, Flatten):
        return np.asarray(given[0].reshape(value.shape))
    if isinstance(node, Add):
        return np.asarray(np.logical_or.reduce(np.broadcast_arrays(*given)))
    return np.asarray(value != 0)


def _read(node: Linear | Conv2d, events: Array) -> Array:
    """Which outputs read at least one event; broadcasts to the output's shape."""
    if isinstance(node, Linear):
        return np.asarray(events.any(axis=-1, keepdims=True))
    time, batch, channels, *sides = events.shape
    grouped = np.asarray(events.reshape(time, batch, node.groups, channels // node.groups, *sides).any(axis=3))
    some: Array = functools.reduce(np.logical_or, (tap for _, _, tap in taps(node, grouped)))
    return np.asarray(some.repeat(len(node.weight) // node.groups, axis=2))


def products(node: Attention, factors: tuple[Array, ...]) -> Array:
    """Events of q, k and v, coincidences of the first product, additions of the second; see `Products`."""
    q, k, v = (by_heads(one != 0, node.heads).astype(np.int64) for one in np.broadcast_arrays(*factors))
    channels, tokens = q.shape[-2:]
    events = sum(int(one.sum()) for one in (q, k, v))
    if order(channels, tokens) == "context":
        return np.array([events, (k.sum(axis=-2) * v.sum(axis=-2)).sum(), q.sum() * channels])
    return np.array([events, (k.sum(axis=-1) * q.sum(axis=-1)).sum(), v.sum() * tokens])


def order(channels: int, tokens: int) -> Literal["context", "scores"]:
    """Which product of an attention comes first; `channels` are those of a head."""
    return "context" if channels <= tokens else "scores"
