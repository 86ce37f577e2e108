"""How many cores a network takes: a plain model of a chip's tables, counted layer by layer.

Each layer of neurons, with the synapses that feed it, is cut into equal tiles of channels, rows and columns, one tile a
core; no core holds two layers. Taken is the cut with the fewest cores whose fullest tile keeps every limit that the
target's `[resources]` states; what its maker does not publish limits nothing. Of a tile are counted

    neurons        channels * rows * columns
    synapses       weights that are not zero, times the positions that they serve (those on padding included)
    synapse bits   expanded: each input axon lists its synapses, in blocks with a header, in whole memory words
                   shared: each weight of the tile's channels once, whatever the number of positions (convolutions)
    input axons    inputs that a weight of the tile reads, rows and columns of the kernel's rim included
    output axons   each neuron once for every tile of the next layer that reads it, and once where the host reads it

An estimate: the chip maker's own compiler may share cores between layers, cut them unevenly, or need room that is not
counted here. What the host computes takes no core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from snnkd_deploy.ir import Array, Conv2d, Graph, Linear, Neuron, Output, Shape, Synaptic
from snnkd_deploy.target import Resources, Target

LIMITS = ("neurons", "synapse_bits", "input_axons", "output_axons")
ADVICE = {
    "neurons": "fewer channels (--width) or smaller pictures behind a pool or a stride",
    "synapse_bits": "fewer channels (--width) or fewer bits a weight (--weight-bits)",
    "input_axons": "fewer channels in front of this layer (--width)",
    "output_axons": "fewer channels in this layer or fewer cores for the next (--width)",
}
"""What lowers the use of each table."""


class Cut(NamedTuple):
    """Into how many tiles the channels, rows and columns of a layer are cut."""

    channels: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Usage:
    """What the fullest tile takes of a core."""

    neurons: int
    synapses: int
    synapse_bits: int
    input_axons: int
    output_axons: int


@dataclass(frozen=True)
class LayerMapping:
    """One layer on its cores; `neurons` and `synapses` of the whole layer, `tile` of its fullest core."""

    name: str
    shape: Shape
    neurons: int
    synapses: int
    cut: Cut
    cores: int
    tile: Usage
    binding: str
    """The limit of which the fullest core uses most."""
    filled: float
    """That part of it; above 1 the layer fits into no number of cores."""


@dataclass(frozen=True)
class Mapping:
    """All layers of a network on a target's cores."""

    target: str
    layers: tuple[LayerMapping, ...]
    resources: Resources

    @property
    def cores(self) -> int:
        """Of all layers."""
        return sum(layer.cores for layer in self.layers)

    @property
    def chips(self) -> int:
        """At least so many."""
        return -(-self.cores // self.resources.cores_per_chip)

    @property
    def fits(self) -> bool:
        """Whether every layer fits into some number of cores."""
        return all(layer.filled <= 1 for layer in self.layers)

    def utilisation(self, limit: str) -> float | None:
        """The part of one table of all taken cores that is used, if each tile were the fullest; None without limit."""
        room: int | None = getattr(self.resources, f"{limit}_per_core")
        if room is None:
            return None
        used: int = sum(getattr(layer.tile, limit) * layer.cores for layer in self.layers)
        return used / (room * self.cores)

    def advice(self) -> list[str]:
        """What to change: for layers that fit nowhere, and for the largest where one chip is not enough."""
        stuck = [layer for layer in self.layers if layer.filled > 1]
        found = [
            f"{one.name}: one core for each neuron is still too small, by its {_spelt(one.binding)}; "
            f"{ADVICE[one.binding]}"
            for one in stuck
        ]
        if not stuck and self.chips > 1:
            most = max(self.layers, key=lambda layer: layer.cores)
            found.append(
                f"{most.name} takes {most.cores} of {self.cores} cores, bound by its {_spelt(most.binding)}; "
                f"{ADVICE[most.binding]}"
            )
        return found

    def summary(self) -> str:
        """One line."""
        parts = {limit: self.utilisation(limit) for limit in LIMITS}
        used = ", ".join(f"{_spelt(limit)} {part:.0%}" for limit, part in parts.items() if part is not None)
        chips = f"{self.chips} chip{'s' if self.chips > 1 else ''}"
        verdict = f"{self.cores} cores on {chips}; used of their {used}"
        return verdict if self.fits else "does not fit, see mapping"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "estimate": True,
            "target": self.target,
            "model": {**asdict(self.resources), "zero_weights": "not stored", "layers_per_core": 1},
            "summary": self.summary(),
            "cores": self.cores,
            "chips": self.chips,
            "fits": self.fits,
            "utilisation": {limit: self.utilisation(limit) for limit in LIMITS},
            "layers": [
                asdict(layer) | {"cut": layer.cut._asdict(), "shape": list(layer.shape)} for layer in self.layers
            ],
            "advice": self.advice(),
        }


def map_network(graph: Graph, target: Target) -> Mapping | None:
    """Cut every layer of a legal network; None if the target states no resources or its layers are not in a row."""
    if target.resources is None or not _is_row(graph):
        return None
    found: list[LayerMapping] = []
    following: Tiled | None = None
    for tiled in reversed(list(_tiled(graph, target.resources))):
        best = _best(tiled, following, target.resources)
        found.append(best)
        following = tiled._replace(cut=best.cut)
    return Mapping(target.name, tuple(reversed(found)), target.resources)


def _is_row(graph: Graph) -> bool:
    fed = [graph[node.inputs[0]] for node in _populations(graph) if node is not graph.input_neurons]
    return all(isinstance(one, Synaptic) for one in fed) and all(len(graph.consumers(one.name)) < 2 for one in graph)


def _populations(graph: Graph) -> tuple[Neuron | Output, ...]:
    """What takes room on cores: the neurons, and the readout where it adds up what a layer weighs."""
    return (*graph.of(Neuron), *([] if graph.counts_spikes else [graph.output]))


class Axis(NamedTuple):
    """One side of a picture: its length before and behind a kernel of this span and stride."""

    before: int
    after: int
    span: int
    stride: int

    def window(self, tile: int) -> int:
        """Inputs that so many outputs in a row read."""
        return min(self.before, (tile - 1) * self.stride + self.span)

    def readers(self, tiles: int) -> int:
        """Tiles at most that read one input."""
        rows = -(-self.span // self.stride)
        return min(tiles, 1 + -(-(rows - 1) // -(-self.after // tiles)))


class Tiled(NamedTuple):
    """A layer as the cutting sees it; `weights`, `(channels, input channels)`, counts those between two channels."""

    name: str
    shape: Shape
    weights: Array
    sides: tuple[Axis, Axis]
    shared: bool
    bits: int
    cut: Cut = Cut(1, 1, 1)


def _tiled(graph: Graph, resources: Resources) -> Iterator[Tiled]:
    """The layers of neurons on the chip, the readout last."""
    for node in _populations(graph):
        layer, shape = graph[node.inputs[0]], (*graph.shapes[node.inputs[0]], 1, 1)[:3]
        name = node.name if isinstance(node, Neuron) else layer.name
        if not isinstance(layer, Linear | Conv2d) or layer.placement == "host":  # what comes in takes no synapses
            yield Tiled(name, shape, np.zeros((shape[0], 0), np.int64), _sides(shape, shape, None), False, 0)
            continue
        before = (*graph.shapes[layer.inputs[0]], 1, 1)[:3]
        conv = layer if isinstance(layer, Conv2d) else None
        shared = conv is not None and resources.convolutions == "shared"
        sides = _sides(before, shape, conv)
        yield Tiled(name, shape, _weights(layer), sides, shared, _stored_bits(layer, resources))


def _sides(before: Shape, after: Shape, conv: Conv2d | None) -> tuple[Axis, Axis]:
    if conv is None:
        return Axis(before[1], after[1], 1, 1), Axis(before[2], after[2], 1, 1)
    spans = [step * (size - 1) + 1 for step, size in zip(conv.dilation, conv.weight.shape[2:], strict=True)]
    rows, columns = (Axis(before[1 + k], after[1 + k], spans[k], conv.stride[k]) for k in (0, 1))
    return rows, columns


def _weights(layer: Linear | Conv2d) -> Array:
    """Weights that are not zero, `(outputs, inputs)`, over all taps."""
    if isinstance(layer, Linear):
        return np.asarray(layer.weight != 0, np.int64)
    counts = np.count_nonzero(layer.weight, axis=(2, 3))
    groups, (outputs, inputs) = layer.groups, counts.shape
    spread = np.zeros((outputs, inputs * groups), np.int64)
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        spread[rows, group * inputs : (group + 1) * inputs] = counts[rows]
    return spread


def _stored_bits(layer: Linear | Conv2d, resources: Resources) -> int:
    needed = int(np.abs(layer.weight).max(initial=0)).bit_length() + 1
    return min((bits for bits in resources.weight_bits if bits >= needed), default=max(resources.weight_bits))


def _best(layer: Tiled, following: Tiled | None, resources: Resources) -> LayerMapping:
    """The cut with the fewest cores, then input axons; the finest one if none fits."""
    channels, rows, columns = (_tile_sizes(size) for size in layer.shape)
    reach = {size: _reach(layer.weights, size) for size in channels}
    candidates = []
    for channel in channels:
        for row in rows:
            for column in columns:
                cut = Cut(*(-(-size // one) for size, one in zip(layer.shape, (channel, row, column), strict=True)))
                usage = _usage(layer, (channel, row, column), reach[channel], following, resources)
                candidates.append((max(0.0, *(part for _, part in _parts(usage, resources))), cut, usage))
    fitting = [one for one in candidates if one[0] <= 1] or candidates[-1:]
    filled, cut, usage = min(fitting, key=lambda one: (prod(one[1]), one[2].input_axons, one[1]))
    positions = prod(layer.shape[1:])
    return LayerMapping(
        name=layer.name,
        shape=layer.shape,
        neurons=prod(layer.shape),
        synapses=int(layer.weights.sum()) * positions,
        cut=cut,
        cores=prod(cut),
        tile=usage,
        binding=max(_parts(usage, resources), key=lambda part: part[1])[0],
        filled=filled,
    )


def _tile_sizes(size: int) -> list[int]:
    """The sizes that cutting into 1, 2, 3, ... tiles gives, from the whole down to 1."""
    return sorted({-(-size // tiles) for tiles in range(1, size + 1)}, reverse=True)


def _reach(weights: Array, size: int) -> tuple[int, int]:
    """Of the fullest `size` channels next to each other: weights, and inputs that they read."""
    slices = [weights[start : start + size] for start in range(0, len(weights), size)]
    return max(int(one.sum()) for one in slices), max(int(one.any(axis=0).sum()) for one in slices)


def _usage(
    layer: Tiled, tile: tuple[int, int, int], reach: tuple[int, int], following: Tiled | None, resources: Resources
) -> Usage:
    positions = tile[1] * tile[2]
    rows, columns = (axis.window(size) for axis, size in zip(layer.sides, tile[1:], strict=True))
    axons, synapses = reach[1] * rows * columns, reach[0] * positions
    bits = reach[0] * layer.bits if layer.shared else _expanded_bits(axons, synapses, layer.bits, resources)
    return Usage(prod(tile), synapses, bits, axons, prod(tile) * _destinations(following))


def _expanded_bits(axons: int, synapses: int, bits: int, resources: Resources) -> int:
    """Each axon lists as many synapses as the mean, rounded up: blocks with a header, each in whole words."""
    if not axons:
        return 0
    listed, most = -(-synapses // axons), resources.block_synapses
    whole, rest = divmod(listed, most)
    return axons * sum(
        count * -(-(size * bits + resources.block_header_bits) // resources.word_bits) * resources.word_bits
        for count, size in ((whole, most), (1 if rest else 0, rest))
    )


def _destinations(following: Tiled | None) -> int:
    """Cores, or the host, that a spike of the layer before this one goes to."""
    if following is None:
        return 1
    cut = following.cut
    rows, columns = (axis.readers(tiles) for axis, tiles in zip(following.sides, cut[1:], strict=True))
    return cut.channels * rows * columns


def _parts(usage: Usage, resources: Resources) -> list[tuple[str, float]]:
    """Which part of each stated limit is used."""
    rooms = {limit: getattr(resources, f"{limit}_per_core") for limit in LIMITS}
    return [(limit, getattr(usage, limit) / room) for limit, room in rooms.items() if room is not None]


def _spelt(limit: str) -> str:
    return limit.replace("_", " ")
