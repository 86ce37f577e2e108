"""What a network does on a data set: exact integer counts of its operations, layer by layer.

A synaptic layer is watched through its event map: how often each of its inputs was not zero, summed over samples and
steps. All synaptic work is linear in that map, so it is derived afterwards from one array of the layer's size; nothing
grows with the data. Layers are classed by what feeds them in the graph, never by the values that were met.

Counts are sums over samples and evaluations. A layer that depends on a still picture alone (`static`) is evaluated once
a sample, and its counts are those of that one evaluation; any other layer is evaluated once a step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any, ClassVar, Literal

import numpy as np

from snnkd_deploy.errors import GraphError, InputError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Pair,
    Pool,
    Relu,
    Shape,
    Stage,
    SumPool2d,
    Synaptic,
)
from snnkd_deploy.numerics import by_heads, windows
from snnkd_deploy.simulate import batches

InputKind = Literal["spikes", "sums", "picture", "values"]
"""0 or 1; sums of several spikes; pixels; real numbers and weighted sums. All but spikes need a multiply."""
PoolMode = Literal["graded", "folded", "max", "values"]
"""Spikes summed before the layer; the sum already in the layer's kernel; OR or maximum; a sum of anything else."""

ORDER: tuple[InputKind, ...] = ("spikes", "sums", "picture", "values")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node that does work. `shape`: of its output, per sample."""

    counted: ClassVar[tuple[str, ...]] = ()
    """The fields that are sums over samples."""

    name: str
    op: str
    placement: str
    shape: Shape
    static: bool
    evaluations: int
    """Samples, or samples times steps where it is not static."""


@dataclass(frozen=True, kw_only=True)
class Synapses(Layer):
    """A Linear or Conv2d. An event is an input that is not zero; a pair is an event and one output that reads it.

    Taps on padding are no pairs. `*_nonzero` leaves out pairs whose weight is zero. `dense_*` and `ann_*` are counts of
    one evaluation, not sums over samples.
    """

    counted = (
        *("events_in", "synops", "synops_nonzero", "event_macs", "event_macs_nonzero", "synops_unit"),
        *("synops_unit_nonzero", "bias_adds", "spikes_out"),
    )

    input_kind: InputKind
    fed_by: tuple[str, ...]
    """Neurons whose spikes arrive here, through pools and sums."""
    feeds: str | None
    """The neuron that its output alone or in a sum arrives at, if it is one."""
    pool_mode: PoolMode | None
    pool_window: Pair
    """The window that its kernel sums over before weighting; (1, 1) if it does not."""
    shortcut: bool
    """One weight per channel in front of a residual sum: an ANN adds there without a layer."""
    inputs: int
    params: int
    """Weights and biases."""
    weights: int
    zero_weights: int
    weight_bits: int | None
    """Of its largest weight, with sign; None before INTEGER."""
    events_in: int
    synops: int
    synops_nonzero: int
    event_macs: int
    """The pairs that need a multiply: all or none of `synops`."""
    event_macs_nonzero: int
    synops_unit: int | None
    """Pairs if a sum of n spikes came as n events; `synops` behind single spikes, None behind anything else."""
    synops_unit_nonzero: int | None
    dense_macs: int
    """Textbook: outputs times taps, taps on padding included."""
    dense_macs_inrange: int
    """Without taps on padding."""
    dense_macs_nonzero: int
    """Without taps on padding and zero weights."""
    ann_macs: int
    """`dense_macs` of an ANN of this shape, which pools in front of the layer and has no layer in a shortcut."""
    ann_macs_inrange: int
    ann_macs_nonzero: int
    ann_pool_adds: int
    """Additions of the pools that went into the kernel."""
    bias_adds: int
    """Outputs with a bias that is not zero."""
    spikes_out: int | None
    """Spikes of `feeds`."""


@dataclass(frozen=True, kw_only=True)
class Neurons(Layer):
    """A population of neurons; one update is one neuron at one step.

    An update is active if at least one event or a bias that is not zero arrives, or if it fires.
    """

    counted = (
        *("updates_active", "updates_inactive", "leak_multiplies", "membrane_adds", "compares", "reset_adds"),
        "spikes_out",
    )

    updates_active: int
    updates_inactive: int
    leak_multiplies: int
    """One an update of a neuron whose decay is neither 0 nor 1, and one where its current decays so."""
    membrane_adds: int
    """The current is added to the membrane: one an active update, and one each where the current itself is kept."""
    compares: int
    """With the threshold: one an update."""
    reset_adds: int
    """One a spike where the reset subtracts, none where it sets to zero."""
    spikes_out: int
    spikes_per_step: tuple[int, ...]
    rate: float
    """Spikes per neuron and step."""
    rate_per_step: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Activations(Layer):
    """The ReLUs of an ANN: one compare an element."""

    counted = ("compares",)

    compares: int


@dataclass(frozen=True, kw_only=True)
class Pools(Layer):
    """A pool: additions, or compares for a maximum. The mean's division is taken to be in the weights behind it."""

    counted = ("pool_ops", "pool_ops_dense")

    input_kind: InputKind
    pool_mode: PoolMode
    pool_ops: int
    """Inputs that are not zero times the windows that they lie in."""
    pool_ops_dense: int
    """Outputs times the window's area."""


@dataclass(frozen=True, kw_only=True)
class Sums(Layer):
    """A residual sum of n terms: n - 1 additions an element."""

    counted = ("residual_adds",)

    residual_adds: int


@dataclass(frozen=True, kw_only=True)
class Products(Layer):
    """An attention: q, k and v multiplied head by head, in the order that takes fewer multiplications.

    `context`: v k^T first, then q reads the result; `scores`: k^T q first, then v reads the result. The ANN of this
    shape has no softmax either and takes the same order. `dense_*` and `ann_*` are counts of one evaluation.
    """

    counted = ("events_in", "attention_and", "attention_adds")

    input_kind: InputKind
    order: Literal["context", "scores"]
    events_in: int
    attention_and: int
    """Coincidences in the first product: both factors are not zero; an accumulate each where they are spikes."""
    attention_adds: int
    """In the second product, events of the factor that came from neurons times the results that each reads."""
    dense_macs: int
    dense_macs_inrange: int
    dense_macs_nonzero: int
    ann_macs: int
    ann_macs_inrange: int
    ann_macs_nonzero: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Counts:
    """What a graph did on `samples` samples. `events`: each synaptic layer's event map, int64 of its input's shape."""

    samples: int
    timesteps: int
    layers: tuple[Layer, ...]
    predictions: Array
    events: dict[str, Array]

    def __getitem__(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    def synapses(self) -> tuple[Synapses, ...]:
        """The synaptic layers, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Synapses))

    def total(self, field: str) -> int:
        """Sum of one count over the layers that have it."""
        return sum(getattr(layer, field, None) or 0 for layer in self.layers)


def count(graph: Graph, inputs: Array, batch: int = 64) -> Counts:
    """Run `inputs`, as `simulate` takes them, and count. GraphError before FOLDED, InputError without samples."""
    if graph.stage < Stage.FOLDED:
        raise GraphError(f"{graph.name} cannot be counted:", ["fold its BatchNorm first; it is no operation of a chip"])
    watch = _Watch(graph)
    predictions = [record.logits.argmax(axis=1) for record in batches(graph, inputs, batch, watch.note)]
    if not watch.samples:
        raise InputError(f"{graph.name} cannot be counted without samples")
    layers = (_layer(node, watch) for node in graph)
    return Counts(
        samples=watch.samples,
        timesteps=graph.timesteps,
        layers=tuple(layer for layer in layers if layer),
        predictions=np.concatenate(predictions),
        events={node.name: watch.events[node.name] for node in graph.of(*Synaptic)},
    )


def kinds(graph: Graph) -> dict[str, InputKind]:
    """What each node puts out."""
    found: dict[str, InputKind] = {}
    for node in graph:
        given = [found[name] for name in node.inputs]
        found[node.name] = _kind(node, given)
    return found


def _kind(node: Node, given: list[InputKind]) -> InputKind:
    if isinstance(node, Input):
        return "spikes" if node.spikes else "picture"
    if isinstance(node, Neuron):
        return "spikes"
    if isinstance(node, MaxPool2d | Flatten):
        return given[0]
    if isinstance(node, SumPool2d):
        return "sums" if given[0] == "spikes" and prod(node.kernel) > 1 else given[0]
    if isinstance(node, AvgPool2d):
        return "values" if given[0] in ("spikes", "sums") else given[0]
    if isinstance(node, Add):
        return max("sums", *given, key=ORDER.index)
    return "values"


class _Watch:
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
    some: Array = functools.reduce(np.logical_or, (tap for _, _, tap in _taps(node, grouped)))
    return np.asarray(some.repeat(len(node.weight) // node.groups, axis=2))


def _taps(node: Conv2d, x: Array) -> Iterator[tuple[int, int, Array]]:
    """Each kernel tap and what it reads of `x` `(..., height, width)`: `(..., output height, output width)`."""
    (up, left), (rows, columns) = node.padding, node.weight.shape[2:]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(up, up), (left, left)])
    height = (padded.shape[-2] - node.dilation[0] * (rows - 1) - 1) // node.stride[0] + 1
    width = (padded.shape[-1] - node.dilation[1] * (columns - 1) - 1) // node.stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            top, start = row * node.dilation[0], column * node.dilation[1]
            tap = padded[..., top :: node.stride[0], start :: node.stride[1]]
            yield row, column, tap[..., :height, :width]


def pairs(node: Linear | Conv2d, events: Array, nonzero: bool = False) -> int:
    """Sum over the event map `events` of each event times the outputs that read it (by a weight that is not zero)."""
    mask: Array = node.weight != 0 if nonzero else np.ones(node.weight.shape, dtype=bool)
    if isinstance(node, Linear):
        return int(events @ mask.sum(axis=0))
    out, per_group, rows, columns = mask.shape
    fan_out = mask.reshape(node.groups, out // node.groups, per_group, rows, columns).sum(axis=1)
    fan_out = fan_out.reshape(-1, rows, columns)
    return sum(int(tap.sum(axis=(1, 2)) @ fan_out[:, row, column]) for row, column, tap in _taps(node, events))


def products(node: Attention, factors: tuple[Array, ...]) -> Array:
    """Events of q, k and v, coincidences of the first product, additions of the second; see `Products`."""
    q, k, v = (by_heads(one != 0, node.heads).astype(np.int64) for one in np.broadcast_arrays(*factors))
    channels, tokens = q.shape[-2:]
    events = sum(int(one.sum()) for one in (q, k, v))
    if _order(channels, tokens) == "context":
        return np.array([events, (k.sum(axis=-2) * v.sum(axis=-2)).sum(), q.sum() * channels])
    return np.array([events, (k.sum(axis=-1) * q.sum(axis=-1)).sum(), v.sum() * tokens])


def _order(channels: int, tokens: int) -> Literal["context", "scores"]:
    """Which product of an attention comes first; `channels` are those of a head."""
    return "context" if channels <= tokens else "scores"


def dense(node: Linear | Conv2d, shape: Shape) -> tuple[int, int, int]:
    """Multiply-accumulates of one evaluation on `shape`: textbook, without padding, without zero weights as well."""
    ones = np.ones(shape, dtype=np.int64)
    places = 1 if isinstance(node, Linear) else prod(next(_taps(node, ones))[2].shape[1:])
    return node.weight.size * places, pairs(node, ones), pairs(node, ones, nonzero=True)


@dataclass(frozen=True, eq=False)
class Collapsed:
    """The smaller layer behind a sum pool that computes the same, its input's shape, and the pool's window."""

    node: Linear | Conv2d
    shape: Shape
    window: Pair

    @property
    def pool_adds(self) -> int:
        """Additions of the pool in one evaluation."""
        inputs = self.node.weight.shape[1] if isinstance(self.node, Linear) else prod(self.shape)
        return inputs * prod(self.window) if prod(self.window) > 1 else 0


def collapsed(node: Linear | Conv2d, graph: Graph) -> Collapsed:
    """Take a sum pool out of a kernel; the window is (1, 1) if there is none in it.

    A kernel that is constant over windows side by side, in step with its stride and padding, equals a sum pool followed
    by a kernel with one tap a window. This undoes `passes.fold_pooling`.
    """
    shape = graph.shapes[node.inputs[0]]
    if not node.weight.any():
        return Collapsed(node, shape, (1, 1))
    if isinstance(node, Conv2d):
        return _collapsed_conv(node, shape)
    source = graph[node.inputs[0]]
    before = graph.shapes[source.inputs[0]] if isinstance(source, Flatten) else shape
    return _collapsed_linear(node, before) if len(before) == 3 else Collapsed(node, shape, (1, 1))


def _collapsed_conv(node: Conv2d, shape: Shape) -> Collapsed:
    if node.dilation != (1, 1):
        return Collapsed(node, shape, (1, 1))
    tall, wide = (_window(node.weight, 2 + side, _conv_windows(node, side, shape[1 + side])) for side in (0, 1))
    small = replace(
        node,
        weight=node.weight[:, :, ::tall, ::wide],
        stride=(node.stride[0] // tall, node.stride[1] // wide),
        padding=(node.padding[0] // tall, node.padding[1] // wide),
    )
    return Collapsed(small, (shape[0], shape[1] // tall, shape[2] // wide), (tall, wide))


def _conv_windows(node: Conv2d, side: int, size: int) -> list[int]:
    """Window sides in step with stride and padding; with padding they must tile the input too."""
    common = gcd(node.weight.shape[2 + side], node.stride[side], node.padding[side])
    return [one for one in range(2, common + 1) if not common % one and not (node.padding[side] and size % one)]


def _collapsed_linear(node: Linear, before: Shape) -> Collapsed:
    weight = node.weight.reshape(len(node.weight), *before)
    tall, wide = (_window(weight, 2 + side, list(range(2, before[1 + side] + 1))) for side in (0, 1))
    height, width = before[1] // tall, before[2] // wide
    taps = weight[:, :, : height * tall : tall, : width * wide : wide].reshape(len(weight), -1)
    return Collapsed(replace(node, weight=taps), (taps.shape[1],), (tall, wide))


def _window(weight: Array, axis: int, sizes: list[int]) -> int:
    """The largest of `sizes` over which `weight` is constant along `axis`, what is left over being zero; else 1."""
    moved = np.moveaxis(weight, axis, 0)
    for size in reversed(sizes):
        whole = len(moved) // size * size
        blocks = moved[:whole].reshape(-1, size, *moved.shape[1:])
        if not moved[whole:].any() and (blocks == blocks[:, :1]).all():
            return size
    return 1


def is_shortcut(node: Linear | Conv2d, graph: Graph) -> bool:
    """Whether it only gives each channel of a residual sum a weight (`passes.weight_shortcuts`)."""
    if node.bias.any() or not all(isinstance(reader, Add) for reader in graph.consumers(node.name)):
        return False
    if isinstance(node, Linear):
        square = node.weight.shape[0] == node.weight.shape[1]
        return square and not (node.weight - np.diag(np.diag(node.weight))).any()
    moves = (node.stride, node.padding) != ((1, 1), (0, 0))
    return not moves and node.weight.shape == (node.groups, 1, 1, 1)


def ann_layers(graph: Graph) -> tuple[Collapsed, ...]:
    """The layers of an ANN of this shape: pools taken out of kernels, no layer in a shortcut."""
    layers = (node for node in graph if isinstance(node, Linear | Conv2d))
    return tuple(collapsed(node, graph) for node in layers if not is_shortcut(node, graph))


def _layer(node: Node, watch: _Watch) -> Layer | None:
    """The counts of one node; None if it does no work."""
    static = node.name in watch.graph.static
    evaluations = watch.samples * (1 if static else watch.graph.timesteps)
    common: dict[str, Any] = {
        "name": node.name,
        "op": "Neuron" if isinstance(node, Neuron) else type(node).__name__,
        "placement": node.placement,
        "shape": watch.graph.shapes[node.name],
        "static": static,
        "evaluations": evaluations,
    }
    size = prod(common["shape"])
    if isinstance(node, Linear | Conv2d):
        work = _work(node, watch, evaluations)
        return Synapses(**common, **work, **_wiring(node, watch), **_shape(node, watch.graph))
    if isinstance(node, Neuron):
        return Neurons(**common, **_updates(node, watch, size))
    if isinstance(node, Relu):
        return Activations(**common, compares=size * evaluations)
    if isinstance(node, Pool):
        return Pools(**common, **_pooling(node, watch, size * evaluations))
    if isinstance(node, Attention):
        return Products(**common, **_attended(node, watch))
    if isinstance(node, Add):
        return Sums(**common, residual_adds=size * (len(node.inputs) - 1) * evaluations)
    return None


def _wiring(node: Linear | Conv2d, watch: _Watch) -> dict[str, Any]:
    graph, feeds = watch.graph, _feeds(watch.graph, node)
    return {
        "input_kind": watch.kinds[node.inputs[0]],
        "fed_by": _fed_by(graph, node.inputs[0]),
        "feeds": feeds,
        "spikes_out": int(watch.spikes[feeds].sum()) if feeds in watch.spikes else None,
        "inputs": prod(graph.shapes[node.inputs[0]]),
    }


def _work(node: Linear | Conv2d, watch: _Watch, evaluations: int) -> dict[str, Any]:
    events, sums = watch.events[node.name], watch.sums[node.name]
    kind = watch.kinds[node.inputs[0]]
    every, nonzero = pairs(node, events), pairs(node, events, nonzero=True)
    units = {"spikes": (every, nonzero), "sums": (pairs(node, sums), pairs(node, sums, nonzero=True))}
    unit = units.get(kind, (None, None))
    places = prod(watch.graph.shapes[node.name]) // len(node.bias)
    return {
        "events_in": int(events.sum()),
        "synops": every,
        "synops_nonzero": nonzero,
        "event_macs": 0 if kind == "spikes" else every,
        "event_macs_nonzero": 0 if kind == "spikes" else nonzero,
        "synops_unit": unit[0],
        "synops_unit_nonzero": unit[1],
        "bias_adds": int(np.count_nonzero(node.bias)) * places * evaluations,
    }


def _shape(node: Linear | Conv2d, graph: Graph) -> dict[str, Any]:
    """What follows from shapes and weights alone, per evaluation."""
    small, shortcut = collapsed(node, graph), is_shortcut(node, graph)
    macs = dense(node, graph.shapes[node.inputs[0]])
    ann = (0, 0, 0) if shortcut else dense(small.node, small.shape)
    whole = graph.stage >= Stage.INTEGER
    return {
        "shortcut": shortcut,
        "pool_mode": "folded" if prod(small.window) > 1 else _pooled_by(graph, node),
        "pool_window": small.window,
        "params": node.weight.size + node.bias.size,
        "weights": node.weight.size,
        "zero_weights": int(np.count_nonzero(node.weight == 0)),
        "weight_bits": int(np.abs(node.weight).max()).bit_length() + 1 if whole else None,
        **dict(zip(("dense_macs", "dense_macs_inrange", "dense_macs_nonzero"), macs, strict=True)),
        **dict(zip(("ann_macs", "ann_macs_inrange", "ann_macs_nonzero"), ann, strict=True)),
        "ann_pool_adds": small.pool_adds,
    }


def _updates(node: Neuron, watch: _Watch, size: int) -> dict[str, Any]:
    per_step, active = watch.spikes[node.name], watch.active[node.name]
    updates = size * watch.samples * watch.graph.timesteps
    spikes = int(per_step.sum())
    leaks = [np.atleast_1d(~np.isin(decay, (0, 1))) for decay in (node.decay, node.current_decay)]
    return {
        "updates_active": active,
        "updates_inactive": updates - active,
        "leak_multiplies": sum(updates * int(np.count_nonzero(leaky)) // leaky.size for leaky in leaks),
        "membrane_adds": active + updates * node.keeps_current,
        "compares": updates,
        "reset_adds": spikes if node.reset in ("subtract", "subtract_late") else 0,
        "spikes_out": spikes,
        "spikes_per_step": tuple(per_step.tolist()),
        "rate": spikes / updates,
        "rate_per_step": tuple((per_step / (size * watch.samples)).tolist()),
    }


def _attended(node: Attention, watch: _Watch) -> dict[str, Any]:
    channels, *sides = watch.graph.shapes[node.name]
    each, tokens = channels // node.heads, prod(sides)
    macs = 2 * channels * tokens * min(each, tokens)
    kinds = [f"{side}_macs{suffix}" for side in ("dense", "ann") for suffix in ("", "_inrange", "_nonzero")]
    return {
        "input_kind": max((watch.kinds[name] for name in node.inputs), key=ORDER.index),
        "order": _order(each, tokens),
        **dict(zip(("events_in", "attention_and", "attention_adds"), watch.products[node.name].tolist(), strict=True)),
        **dict.fromkeys(kinds, macs),
    }


def _pooling(node: Pool, watch: _Watch, outputs: int) -> dict[str, Any]:
    return {
        "input_kind": watch.kinds[node.inputs[0]],
        "pool_mode": _pool_mode(node, watch.kinds[node.inputs[0]]),
        "pool_ops": int(windows(watch.events[node.name][None], node).sum()),
        "pool_ops_dense": outputs * prod(node.kernel),
    }


def _pool_mode(node: Pool, kind: InputKind) -> PoolMode:
    if isinstance(node, MaxPool2d):
        return "max"
    return "graded" if kind in ("spikes", "sums") else "values"


def _pooled_by(graph: Graph, node: Node) -> PoolMode | None:
    """The mode of the pool right in front of a layer."""
    source = graph[node.inputs[0]]
    if isinstance(source, Flatten):
        source = graph[source.inputs[0]]
    return _pool_mode(source, kinds(graph)[source.inputs[0]]) if isinstance(source, Pool) else None


def _fed_by(graph: Graph, name: str) -> tuple[str, ...]:
    node = graph[name]
    if isinstance(node, Neuron):
        return (name,)
    if isinstance(node, Pool | Flatten | Add):
        return tuple(found for one in node.inputs for found in _fed_by(graph, one))
    return ()


def _feeds(graph: Graph, node: Node) -> str | None:
    readers = graph.consumers(node.name)
    if len(readers) != 1 or not isinstance(readers[0], Neuron | Relu | Pool | Flatten | Add):
        return None
    return readers[0].name if isinstance(readers[0], Neuron | Relu) else _feeds(graph, readers[0])
