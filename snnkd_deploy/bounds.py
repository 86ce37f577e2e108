"""Worst cases: between which integers each value can ever lie, whatever the sample.

Per channel intervals `(low, high)`, int64 `(channels,)` or `(features,)`. Sound, not tight: inputs of one layer are
taken as independent. A membrane is followed through the network's own number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    BiasedInput,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Relu,
    SumPool2d,
)
from snnkd_deploy.numerics import EXACT_FLOAT32, conv2d, linear, scale_by_fraction

Interval = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Bounds:
    """`values[node]`: its output. `membranes[neuron or output]`: v before the reset, in units of the state.

    `currents` of the same: what a step adds to v.
    """

    values: dict[str, Interval]
    membranes: dict[str, Interval]
    currents: dict[str, Interval]


def bounds(graph: Graph) -> Bounds:
    """Intervals of every node of an integer graph."""
    values: dict[str, Interval] = {}
    membranes: dict[str, Interval] = {}
    currents: dict[str, Interval] = {}
    for node in graph:
        given = [values[name] for name in node.inputs]
        if isinstance(node, Neuron):
            steps = _currents(node, given[0], graph.timesteps)
            currents[node.name] = _around(steps)
            membranes[node.name] = _membrane(node, steps)
        elif isinstance(node, Output):
            currents[node.name] = given[0]
            membranes[node.name] = _accumulated(given[0], graph.timesteps)
        values[node.name] = membranes[node.name] if isinstance(node, Output) else _interval(node, given, graph)
    return Bounds(values, membranes, currents)


def reach(interval: Interval) -> Array:
    """The largest magnitude in each channel of an interval."""
    return np.asarray(np.maximum(np.abs(interval[0]), np.abs(interval[1])))


def largest(interval: Interval) -> int:
    """The largest magnitude in an interval."""
    return int(reach(interval).max(initial=0))


def _interval(node: Node, given: list[Interval], graph: Graph) -> Interval:
    if isinstance(node, Input):
        return _entering(node)
    if isinstance(node, Neuron):
        channels = graph.shapes[node.name][0]
        return np.zeros(channels, dtype=np.int64), np.ones(channels, dtype=np.int64)
    low, high = given[0]
    if isinstance(node, Linear | Conv2d):
        return _weighted(node, low, high) if _constant(graph, node) is None else _biased(node, low, high, graph)
    if isinstance(node, SumPool2d):
        area = node.kernel[0] * node.kernel[1]
        return low * area, high * area
    if isinstance(node, Flatten):
        repeat = graph.shapes[node.name][0] // len(low)
        return np.repeat(low, repeat), np.repeat(high, repeat)
    if isinstance(node, Add):
        return np.sum([one for one, _ in given], axis=0), np.sum([one for _, one in given], axis=0)
    if isinstance(node, Attention):
        return _attended(node, given, graph)
    if isinstance(node, Relu):
        return np.maximum(low, 0), np.maximum(high, 0)
    assert isinstance(node, MaxPool2d), f"no worst case for {type(node).__name__}"
    return low, high


def _entering(node: Input) -> Interval:
    low, high = np.full(node.shape[0], node.low), np.full(node.shape[0], node.high)
    if isinstance(node, BiasedInput):
        own, sent = node.sample_shape[0], node.constant.reshape(len(node.constant), -1)
        low[own:], high[own:] = sent.min(axis=1), sent.max(axis=1)
    return low, high


def _constant(graph: Graph, layer: Node) -> Array | None:
    """What a layer reads of a sample of zeros, where constants come in with the sample."""
    source = graph[layer.inputs[0]]
    if isinstance(source, Flatten):
        found = _constant(graph, source)
        return None if found is None else found.reshape(-1)
    if not isinstance(source, BiasedInput):
        return None
    return np.concatenate([np.zeros(source.sample_shape, np.int64), source.constant])


def _biased(node: Linear | Conv2d, low: Array, high: Array, graph: Graph) -> Interval:
    """A bias that partly comes in with the sample is known at each place: no worst case, but a value."""
    constant = _constant(graph, node)
    assert constant is not None
    own = int(np.prod(graph.input.sample_shape[: 1 if isinstance(node, Conv2d) else None]))
    low, high = (np.where(np.arange(len(side)) < own, side, 0) for side in (low, high))
    least, most = _weighted(node, low, high)
    sent = conv2d(constant[None], node) if isinstance(node, Conv2d) else linear(constant[None], node)
    added = sent.reshape(len(node.bias), -1) - node.bias[:, None]
    return least + added.min(axis=1), most + added.max(axis=1)


def _weighted(node: Linear | Conv2d, low: Array, high: Array) -> Interval:
    """Zero padding is an input too: with it, or with strides that skip taps, each input may also be absent."""
    groups = node.groups if isinstance(node, Conv2d) else 1
    if isinstance(node, Conv2d):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    out, per_group = node.weight.shape[:2]
    taps = np.ones(node.weight[0, 0].size, dtype=_exact_type(node.weight))
    weight = node.weight.reshape(groups, out // groups, per_group, -1).astype(taps.dtype)
    plus, minus = ((pick(weight, 0) @ taps).astype(np.int64) for pick in (np.maximum, np.minimum))
    low, high = (side.reshape(groups, 1, per_group) for side in (low, high))
    least = (plus * low + minus * high).sum(axis=2).reshape(out)
    most = (plus * high + minus * low).sum(axis=2).reshape(out)
    return least + node.bias, most + node.bias


def _exact_type(weight: Array) -> type[np.floating[Any]]:
    """Floats that hold sums over the taps of any kernel; products with ones add short rows faster than sums do."""
    most = int(max(weight.max(initial=0), -int(weight.min(initial=0)))) * weight[0, 0].size
    return np.float32 if most < EXACT_FLOAT32 else np.float64


def _attended(node: Attention, given: list[Interval], graph: Graph) -> Interval:
    """For each channel of v, the sum of its products with all q and k of its head, at every token."""
    channels, height, width = graph.shapes[node.name]
    queries, keys, values = (np.stack(one).reshape(2, node.heads, channels // node.heads) for one in given)
    corners = np.stack([(q * k)[:, None] * v[:, :, None] for q, k, v in product(queries, keys, values)])
    low, high = (side.sum(axis=-1).reshape(channels) for side in (corners.min(axis=0), corners.max(axis=0)))
    return low * height * width, high * height * width


def _currents(node: Neuron, arriving: Interval, timesteps: int) -> list[Interval]:
    """What each step adds to the membrane, in units of the state."""
    low, high = (side * 2**node.fraction_bits for side in arriving)
    steps = [(low, high)]
    while len(steps) < timesteps:
        kept = [scale_by_fraction(side, node.current_numerator, node.decay_bits) for side in steps[-1]]
        steps.append((kept[0] + low, kept[1] + high) if node.keeps_current else (low, high))
    return steps


def _around(steps: list[Interval]) -> Interval:
    return np.min([low for low, _ in steps], axis=0), np.max([high for _, high in steps], axis=0)


def _membrane(node: Neuron, currents: list[Interval]) -> Interval:
    threshold = node.threshold * 2**node.fraction_bits
    least = most = np.zeros_like(currents[0][0])
    reached = []
    for low, high in currents:
        before_low = scale_by_fraction(least, node.decay_numerator, node.decay_bits) + low
        before_high = scale_by_fraction(most, node.decay_numerator, node.decay_bits) + high
        if node.reset == "subtract_late":
            before_low, before_high = _taken_late(node, (least, most), (low, high), threshold)
        reached.append((before_low, before_high))
        if node.reset in ("subtract_late", "none"):
            least, most = before_low, before_high
            continue
        kept = np.minimum(before_high, threshold)
        after_reset = before_high - threshold if node.reset == "subtract" else np.zeros_like(before_high)
        most = np.where(before_high > threshold, np.maximum(kept, after_reset), before_high)
        least = np.where(before_high > threshold, np.minimum(before_low, 0), before_low)
    return _around([currents[0], *reached])


def _taken_late(node: Neuron, membrane: Interval, current: Interval, threshold: Array) -> Interval:
    """leak(v) + x - threshold where v is above it: leak(v) grows with v, and falls by the threshold at one place."""
    least, most = membrane
    leaked = [
        scale_by_fraction(v, node.decay_numerator, node.decay_bits)
        for v in (least, np.minimum(most, threshold), np.maximum(least, threshold), most)
    ]
    may_stay, may_fire = least <= threshold, most > threshold
    low = np.minimum(np.where(may_stay, leaked[0], leaked[3]), np.where(may_fire, leaked[2] - threshold, leaked[0]))
    high = np.maximum(
        np.where(may_stay, leaked[1], leaked[2] - threshold), np.where(may_fire, leaked[3] - threshold, leaked[1])
    )
    return low + current[0], high + current[1]


def _accumulated(current: Interval, timesteps: int) -> Interval:
    """Every partial sum over the steps, zero included."""
    return np.minimum(current[0], 0) * timesteps, np.maximum(current[1], 0) * timesteps
