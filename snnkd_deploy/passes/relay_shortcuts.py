"""Carry the spikes that a shortcut jumps over layers with, for targets that run layers in a row.

Each layer of neurons gets further channels, relays, that fire exactly when a spike of an earlier layer is to be carried
past it. The layer behind the shortcut then weighs main path and relayed spikes in one wider kernel. Relays read the
pixel at their own place; where the layer has a stride, they keep every stride-th pixel, which is all that a strided
1x1 shortcut reads.

A relay without input stays at or below its layer's threshold, and one spike lifts it above. One weight is often too
small for that. The constant current that just never fires the neuron helps as a bias; for the rest a relay reads
several copies of its source, which an additional layer of relays alone makes where neurons of the network are to be
copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import LegalityError
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
    Output,
    Pair,
    Relay,
    Shape,
)
from snnkd_deploy.numerics import scale_by_fraction
from snnkd_deploy.passes.merge_layers import merged_conv, merged_linear
from snnkd_deploy.passes.or_pooling import THRESHOLD, WEIGHT
from snnkd_deploy.target import Target


class Term(NamedTuple):
    """A synaptic layer, and the neurons (or the input) whose sum it weighs."""

    layer: Linear | Conv2d
    sources: tuple[str, ...]


class Drive(NamedTuple):
    """How a relay is fed: `copies` of its source by `weight` each, and a constant `bias`."""

    copies: int
    weight: int
    bias: int


@dataclass(eq=False)
class Layer:
    """One layer of the row: the neurons of `reader`, if any, then relays of the `carried` values.

    `shape` is that of the neurons of `reader`, or of the layer before; `stride` is over the relayed pixels.
    """

    name: str
    reader: Neuron | Output | None
    terms: tuple[Term, ...]
    carried: tuple[str, ...]
    shape: Shape
    stride: Pair
    drive: Drive
    copies: dict[str, int] = field(default_factory=dict)
    """Of each carried value; one unless the next layer's relays need more."""


class Place(NamedTuple):
    """Where a value lies in a layer of the row: its first channel, channels, copies one behind the other."""

    start: int
    channels: int
    copies: int


def relay_shortcuts(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Rewrite a network with sums or branches as a row. LegalityError lists the shortcuts that cannot be carried."""
    branched = any(len(graph.consumers(node.name)) > 1 for node in graph)
    if target.layout.wiring != "chain" or "Relay" not in target.nodes or not (branched or graph.of(Add)):
        return graph
    if graph.of(Attention):
        return graph  # no row can hold it; the target says so
    problems: list[str] = []
    readers: list[Neuron | Output] = [*graph.of(Neuron), graph.output]
    terms = {reader.name: tuple(_terms(graph, reader.inputs[0], problems)) for reader in readers}
    if not problems:
        problems += _problems(graph, readers, terms)
    if problems:
        raise LegalityError(f"{target.name} runs layers in a row, and relays cannot carry every shortcut:", problems)
    row = list(_row(graph, target, readers, terms))
    return replace(graph, nodes=tuple(_nodes(graph, target, row)))


def drive(neuron: Neuron, timesteps: int, target: Target) -> Drive:
    """The fewest copies, and then the smallest weight, by which a relay with this neuron's threshold is exact."""
    needed = int(neuron.threshold.max()) + 1
    largest = target.weights.maximum
    constant = min(_silent_bias(neuron, timesteps), target.bias.maximum)
    copies = max(1, -(-(needed - constant) // largest))
    bias = max(0, needed - copies * largest)
    return Drive(copies, -(-(needed - bias) // copies), bias)


def _silent_bias(neuron: Neuron, timesteps: int) -> int:
    """The largest constant current that never fires the neuron."""
    low, high = 0, int(neuron.threshold.min())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if _fires(neuron, middle, timesteps) else (middle, high)
    return low


def _fires(neuron: Neuron, current: int, timesteps: int) -> bool:
    unit, membrane, decay = 2**neuron.fraction_bits, np.asarray(0), neuron.decay_numerator.min()
    for _ in range(timesteps):
        membrane = scale_by_fraction(membrane, decay, neuron.decay_bits) + current * unit
        if membrane > neuron.threshold.min() * unit:
            return True
    return False


def _terms(graph: Graph, name: str, problems: list[str]) -> Iterator[Term]:
    """The weighted sums whose sum `name` is."""
    node = graph[name]
    if isinstance(node, Add):
        for one in node.inputs:
            yield from _terms(graph, one, problems)
    elif isinstance(node, Linear | Conv2d):
        yield Term(node, tuple(_sources(graph, node.inputs[0], problems)))
    else:
        problems.append(f"{name}: {type(node).__name__} where a Linear or Conv2d is needed in front of neurons")


def _sources(graph: Graph, name: str, problems: list[str]) -> Iterator[str]:
    """The neurons, or the input, whose sum `name` is."""
    node = graph[name]
    if isinstance(node, Neuron | Input):
        yield name
    elif isinstance(node, Add | Flatten):
        for one in node.inputs:
            yield from _sources(graph, one, problems)
    else:
        problems.append(f"{name}: {type(node).__name__} between neurons and the layer that weighs their spikes")


def _lives(
    graph: Graph, readers: list[Neuron | Output], terms: dict[str, tuple[Term, ...]]
) -> dict[str, tuple[int, int]]:
    """For each value the layer that gives it, the input's being -1, and the last that reads it."""
    born = {graph.input.name: -1, **{reader.name: index for index, reader in enumerate(readers[:-1])}}
    last = dict.fromkeys(born, -1)
    for index, reader in enumerate(readers):
        for term in terms[reader.name]:
            last |= dict.fromkeys(term.sources, index)
    return {name: (born[name], last[name]) for name in born}


def _problems(graph: Graph, readers: list[Neuron | Output], terms: dict[str, tuple[Term, ...]]) -> Iterator[str]:
    """What stands in the way of relays, value by value along the row."""
    lives = _lives(graph, readers, terms)
    if lives[graph.input.name][1] > 0 and not graph.input.spikes:
        late = readers[lives[graph.input.name][1]].name
        yield f"{graph.input.name}: {late}, behind other neurons, reads pixels; relays carry spikes alone"
    scale: dict[str, Pair] = dict.fromkeys(lives, (1, 1))
    for index, reader in enumerate(readers):
        strides = {_stride(term, source, scale) for term in terms[reader.name] for source in term.sources}
        if None in strides or len(strides) > 1:
            yield from _stride_problems(reader, terms[reader.name], scale)
            continue
        (stride,) = strides
        assert stride is not None
        for name, (born, last) in lives.items():
            if born < index < last:
                yield from _current_problems(name, reader)
                scale[name] = (scale[name][0] * stride[0], scale[name][1] * stride[1])
                yield from _cover_problems(graph, name, reader.name, scale[name])


def _stride(term: Term, source: str, scale: dict[str, Pair]) -> Pair | None:
    """The stride over what is left of the source; None if the layer reads pixels that its relays have dropped."""
    if isinstance(term.layer, Linear):
        return (1, 1) if scale[source] == (1, 1) else None
    rows, columns = scale[source]
    (down, right), sizes = term.layer.stride, (*term.layer.weight.shape[2:], *(1 + pad for pad in term.layer.padding))
    if (rows, columns) != (1, 1) and (max(sizes) > 1 or down % rows or right % columns):
        return None
    return down // rows, right // columns


def _stride_problems(reader: Node, terms: tuple[Term, ...], scale: dict[str, Pair]) -> Iterator[str]:
    for layer, sources in terms:
        for source in sources:
            over = layer.stride if isinstance(layer, Conv2d) else (1, 1)
            yield (
                f"{reader.name}: {layer.name} reads {source} with stride {over}, and the layers that its spikes are "
                f"carried past keep every {scale[source]}-th pixel; strides of both ways must agree, and a shortcut "
                "with a stride must be 1x1"
            )


def _current_problems(name: str, reader: Node) -> Iterator[str]:
    if isinstance(reader, Neuron) and reader.keeps_current:
        yield (
            f"{name}: its spikes cannot be carried past {reader.name}, which keeps its current: a relay beside it "
            "would keep one too, and fire again; use a neuron without (snn.Leaky) there"
        )


def _cover_problems(graph: Graph, name: str, layer: str, scale: Pair) -> Iterator[str]:
    before, after = graph.shapes[name], graph.shapes[layer]
    if len(before) != len(after):
        yield f"{name}: its spikes {before} cannot be carried past {layer}, whose shape is {after}"
    elif any(size > kept * step for size, kept, step in zip(before[1:], after[1:], scale, strict=False)):
        yield f"{name}: {layer} of {after} has no room for all its pixels {before}; pad the layer's kernel"


def _row(
    graph: Graph, target: Target, readers: list[Neuron | Output], terms: dict[str, tuple[Term, ...]]
) -> Iterator[Layer]:
    """The layers, with layers of copies where relays need them."""
    lives = _lives(graph, readers, terms)
    scale: dict[str, Pair] = dict.fromkeys(lives, (1, 1))
    row: list[Layer] = []
    newest, shape = graph.input.name, graph.input.shape
    for index, reader in enumerate(readers):
        carried = tuple(name for name, (born, last) in lives.items() if born < index < last)
        feed = drive(reader, graph.timesteps, target) if carried and isinstance(reader, Neuron) else Drive(1, 0, 0)
        if feed.copies > 1 and newest in carried:
            live = tuple(name for name, (born, last) in lives.items() if born < index <= last)
            row.append(Layer(f"{reader.name}.copies", None, (), live, shape, (1, 1), Drive(1, WEIGHT, 0)))
        first = terms[reader.name][0]
        stride = _stride(first, first.sources[0], scale)
        assert stride is not None
        scale |= {name: (scale[name][0] * stride[0], scale[name][1] * stride[1]) for name in carried}
        newest, shape = reader.name, graph.shapes[reader.inputs[0]]
        row.append(Layer(reader.name, reader, terms[reader.name], carried, shape, stride, feed))
    for layer, following in pairwise(row):
        layer.copies = {name: following.drive.copies if name in following.carried else 1 for name in layer.carried}
    return iter(row)


def _nodes(graph: Graph, target: Target, row: list[Layer]) -> Iterator[Node]:
    """The nodes of the row, from the input on."""
    yield graph.input
    source, shape = graph.input.name, graph.input.shape
    places = {source: Place(0, shape[0], 1)}
    for layer in row:
        synapse = _synapse(layer, places, shape)
        if isinstance(synapse, Linear) and len(shape) > 1:
            yield Flatten(name=f"{synapse.name}.flatten", inputs=(source,))
            source = f"{synapse.name}.flatten"
        yield replace(synapse, inputs=(source,))
        yield _reader(layer, synapse, target)
        source, places = layer.name, _placed(layer, places, len(synapse.weight))
        shape = (len(synapse.weight), *layer.shape[1:])


def _synapse(layer: Layer, places: dict[str, Place], shape: Shape) -> Linear | Conv2d:
    """What feeds a layer of the row from the layer before, whose output has this shape."""
    passing = _passing(layer, places, shape[0])
    parts = [(term.layer, tuple(places[name].start for name in term.sources)) for term in layer.terms]
    if not parts:
        return _copying(layer, passing, len(shape))
    first, starts = parts[0]
    if len(parts) == len(starts) == 1 and shape[0] == places[layer.terms[0].sources[0]].channels and not len(passing):
        return first
    if isinstance(first, Linear):
        area = prod(shape[1:])
        dense = [(one, tuple(start * area for start in found)) for one, found in parts if isinstance(one, Linear)]
        return merged_linear(dense, np.repeat(passing, area, axis=1), layer.drive.bias)
    convs = [(replace(one, stride=layer.stride), found) for one, found in parts if isinstance(one, Conv2d)]
    return merged_conv(convs, passing, layer.drive.bias)


def _passing(layer: Layer, places: dict[str, Place], channels: int) -> Array:
    """Weights `(relays, channels)` from the layer before: each relay reads every copy of its channel."""
    found = [np.zeros((0, channels), np.int64)]
    for name in layer.carried:
        place = places[name]
        rows = np.zeros((layer.copies[name] * place.channels, channels), np.int64)
        every = np.tile(layer.drive.weight * np.eye(place.channels, dtype=np.int64), (layer.copies[name], place.copies))
        rows[:, place.start : place.start + every.shape[1]] = every
        found.append(rows)
    return np.concatenate(found)


def _copying(layer: Layer, passing: Array, dimensions: int) -> Linear | Conv2d:
    """The synapses of a layer of relays alone."""
    name, bias = f"{layer.name}.weights", np.zeros(len(passing), np.int64)
    if dimensions == 1:
        return Linear(name=name, inputs=(), weight=passing, bias=bias)
    return Conv2d(name=name, inputs=(), weight=passing[:, :, None, None], bias=bias)


def _reader(layer: Layer, synapse: Linear | Conv2d, target: Target) -> Neuron | Output:
    if isinstance(layer.reader, Output) or (layer.reader and not layer.carried):
        return replace(layer.reader, inputs=(synapse.name,))
    neuron, own, threshold, decay = layer.reader, 0, np.asarray(THRESHOLD), np.asarray(1.0)
    if neuron:
        own = layer.shape[0]
        relays = np.ones(len(synapse.weight) - own, np.int64)
        threshold, decay = neuron.threshold, np.asarray(neuron.decay)
        threshold = np.concatenate([threshold, threshold.max() * relays]) if threshold.ndim else threshold
        decay = np.concatenate([decay, decay.min() * relays]) if decay.ndim else decay
    return Relay(
        name=layer.name,
        inputs=(synapse.name,),
        decay=decay if decay.ndim else float(decay),
        threshold=threshold,
        reset=neuron.reset if neuron else "zero",
        decay_bits=target.decay.bits,
        fraction_bits=target.state.fraction_bits,
        own=own,
    )


def _placed(layer: Layer, before: dict[str, Place], channels: int) -> dict[str, Place]:
    """Where each value lies in the output of a layer: its own neurons first."""
    own = layer.shape[0] if layer.reader is not None else 0
    places = {layer.name: Place(0, own, 1)} if own else {}
    for name in layer.carried:
        places[name] = Place(own, before[name].channels, layer.copies[name])
        own += places[name].channels * places[name].copies
    assert own == channels
    return places
