"""Where the cores of a mapped network lie, and the messages and hops between them.

Cores are taken in the order of the layers and of their tiles, one after the other, through the tiles of the chip's mesh
in rows, each second row backwards, and from chip to chip in a line from west to east. A spike becomes one message for
each core that a weight other than zero reads it on, which crosses the mesh along its row, then along its column. What
comes from the host or goes there is input and output: counted by nobody here, as on a chip's price tables.

Counts are sums over samples and steps, exact on the event maps of `counts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from snnkd_deploy.counts import Counts
from snnkd_deploy.ir import Array, Conv2d, Graph, Linear, Neuron, Shape
from snnkd_deploy.mapping import Cut, LayerMapping
from snnkd_deploy.mapping import Mapping as CoreMapping
from snnkd_deploy.target import Mesh

Tile = tuple[slice, slice, slice]
"""Channels, rows and columns of a layer on one core."""


@dataclass(frozen=True)
class Placed:
    """A mapped layer, what its busiest core does, and what arrives from the neurons on the chip that it reads.

    `source` None: it reads the host, and nothing of that is counted. Hops are None without a mesh.
    """

    name: str
    source: str | None
    cores: int
    neurons: int
    busiest_synops: int
    busiest_neurons: int
    messages: int
    hops_east_west: int | None
    hops_north_south: int | None


def place(graph: Graph, counts: Counts, mapping: CoreMapping) -> tuple[Placed, ...]:
    """Every mapped layer, in order."""
    layers = {one.name: one for one in mapping.layers}
    first = dict(zip(layers, np.cumsum([0, *(one.cores for one in mapping.layers)]).tolist(), strict=False))
    found = []
    for name, reader in layers.items():
        layer = _layer(graph, name)
        source = None if layer is None else layers.get(_source(graph, layer))
        if (
            layer is None
            or source is None
            or layer.placement == "host"
            or counts.events[layer.name].size != prod(source.shape)
        ):
            found.append(Placed(name, None, reader.cores, reader.neurons, 0, reader.tile.neurons, 0, None, None))
        else:
            sent = _Sent(layer, counts.events[layer.name], source, reader)
            found.append(sent.placed(first[source.name], first[name], mapping.resources.mesh))
    return tuple(found)


def as_dict(mapping: CoreMapping, placed: tuple[Placed, ...]) -> dict[str, Any]:
    """For JSON, with the mapping that it follows from."""
    mesh = mapping.resources.mesh
    return {
        "estimate": True,
        "target": mapping.target,
        "chips": mapping.chips,
        "cores": mapping.cores,
        "fits": mapping.fits,
        "mesh": asdict(mesh) if mesh else None,
        "utilisation": {key: value for key, value in mapping.as_dict()["utilisation"].items() if value is not None},
        "layers": [asdict(one) for one in placed],
        "messages": sum(one.messages for one in placed),
        "hops": sum((one.hops_east_west or 0) + (one.hops_north_south or 0) for one in placed) if mesh else None,
    }


def _layer(graph: Graph, name: str) -> Linear | Conv2d | None:
    """The synapses of a mapped layer, which is named after its neurons, the readout after its synapses.

    None of neurons that the input itself meets.
    """
    node = graph[name]
    layer = graph[node.inputs[0]] if isinstance(node, Neuron) else node
    if layer is graph.input:
        return None
    assert isinstance(layer, Linear | Conv2d)
    return layer


def _source(graph: Graph, layer: Linear | Conv2d) -> str:
    """The neurons that it reads, or the input."""
    node = graph[layer.inputs[0]]
    while not isinstance(node, Neuron) and node.inputs:
        node = graph[node.inputs[0]]
    return node.name


def tiles(shape: Shape, cut: Cut) -> Iterator[Tile]:
    """The equal tiles of a layer, the last of each axis what is left, in the order that takes cores."""
    sides = [range(0, size, -(-size // parts)) for size, parts in zip(shape, cut, strict=True)]
    sizes = [-(-size // parts) for size, parts in zip(shape, cut, strict=True)]
    for starts in product(*sides):
        yield tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))  # type: ignore[misc]


class _Sent:
    """One layer's event map, `(channels, rows, columns)`, and the cores on both of its ends."""

    def __init__(self, layer: Linear | Conv2d, events: Array, source: LayerMapping, reader: LayerMapping) -> None:
        self.layer, self.source, self.reader = layer, source, reader
        self.events = events if events.ndim == 3 else events.reshape(-1, 1, 1)

    def placed(self, sends: int, reads: int, mesh: Mesh | None) -> Placed:
        """`sends`, `reads`: numbers of the first core of both layers."""
        messages, east_west, north_south = 0, 0, 0
        busiest = (0, 0)
        for index, tile in enumerate(tiles(self.reader.shape, self.reader.cut)):
            reach = self._reach(tile)
            busiest = max(busiest, (int((self.events * reach).sum()), _size(tile, self.reader.shape)))
            read = np.where(reach > 0, self.events, 0).reshape(self.source.shape)
            for number, place in enumerate(tiles(self.source.shape, self.source.cut)):
                sent = int(read[place].sum())
                wide, tall = mesh.distance(sends + number, reads + index) if mesh else (0, 0)
                messages, east_west, north_south = messages + sent, east_west + sent * wide, north_south + sent * tall
        hops = (east_west, north_south) if mesh else (None, None)
        reader = self.reader
        return Placed(reader.name, self.source.name, reader.cores, reader.neurons, *busiest, messages, *hops)

    def _reach(self, tile: Tile) -> Array:
        """How many of the tile's outputs read each input, weights of zero left out."""
        if isinstance(self.layer, Linear):
            outputs = np.arange(prod(self.reader.shape)).reshape(self.reader.shape)[tile].reshape(-1)
            return np.asarray(np.count_nonzero(self.layer.weight[outputs], axis=0).reshape(self.events.shape))
        return _reach_of_convolution(self.layer, self.events.shape, tile, self.reader.shape)


def _size(tile: Tile, shape: Shape) -> int:
    return prod(len(range(*side.indices(size))) for side, size in zip(tile, shape, strict=True))


def _reach_of_convolution(layer: Conv2d, before: Shape, tile: Tile, after: Shape) -> Array:
    (up, left), (rows, columns) = layer.padding, layer.weight.shape[2:]
    reach = np.zeros((before[0], before[1] + 2 * up, before[2] + 2 * left), np.int64)
    fans = _fans(layer, tile[0])
    tall, wide = (len(range(*side.indices(size))) for side, size in zip(tile[1:], after[1:], strict=True))
    for row, column in product(range(rows), range(columns)):
        top = tile[1].start * layer.stride[0] + row * layer.dilation[0]
        start = tile[2].start * layer.stride[1] + column * layer.dilation[1]
        window = reach[:, top:, start:][:, : tall * layer.stride[0] : layer.stride[0]]
        window[:, :, : wide * layer.stride[1] : layer.stride[1]] += fans[:, row, column, None, None]
    return reach[:, up : up + before[1], left : left + before[2]]


def _fans(layer: Conv2d, channels: slice) -> Array:
    """Of each input channel and tap, the weights other than zero into these output channels."""
    outputs, each = len(layer.weight), layer.weight.shape[1]
    fans = np.zeros((each * layer.groups, *layer.weight.shape[2:]), np.int64)
    for output in range(*channels.indices(outputs)):
        group = output * layer.groups // outputs
        fans[group * each : (group + 1) * each] += layer.weight[output] != 0
    return fans
