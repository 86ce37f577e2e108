"""Cores on a mesh, by hand; messages, hops and work of a core by following every single spike."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from snnkd_deploy.counts import count
from snnkd_deploy.ir import Array, Conv2d, Flatten, Graph, Input, Linear, Neuron, Node, Output, Stage
from snnkd_deploy.mapping import Cut, LayerMapping, Mapping, map_network
from snnkd_deploy.placement import Placed, as_dict, place, tiles
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import Mesh, Target, load_target

LOIHI = load_target("loihi")


def test_cores_lie_in_rows_each_second_one_backwards_and_chips_in_a_line() -> None:
    mesh = Mesh(cores_per_tile=2, columns=3, rows=2, source="")
    # tiles 0 1 2 | 6 7 8 above, 5 4 3 | 11 10 9 below; two cores each
    assert mesh.distance(0, 1) == (0, 0)
    assert mesh.distance(0, 4) == (2, 0)
    assert mesh.distance(5, 6) == (0, 1)
    assert mesh.distance(0, 11) == (0, 1)
    assert mesh.distance(0, 12) == (3, 0)
    assert mesh.distance(13, 7) == (1, 1)


def test_tiles_cover_a_layer_once() -> None:
    covered = np.zeros((7, 5, 3), int)
    cut = Cut(3, 2, 1)
    found = list(tiles(covered.shape, cut))
    for tile in found:
        covered[tile] += 1
    assert len(found) == 6
    assert (covered == 1).all()


def small_cores(neurons: int) -> Target:
    """A chip whose cores hold so few neurons that layers need several, two cores a tile, three tiles a row."""
    assert LOIHI.resources is not None
    mesh = Mesh(cores_per_tile=2, columns=3, rows=8, source="")
    return replace(LOIHI, resources=replace(LOIHI.resources, neurons_per_core=neurons, mesh=mesh))


def network(seed: int, stride: int, padding: int, groups: int) -> Graph:
    """Spikes in, two convolutions with neurons, a dense readout; weights of which a third is zero."""
    generator = np.random.default_rng(seed)

    def weights(*shape: int) -> Array:
        return generator.integers(-3, 4, shape) * (generator.random(shape) > 1 / 3)

    def neurons(name: str, source: str) -> Neuron:
        return Neuron(name=name, inputs=(source,), decay=1.0, threshold=np.asarray(1), decay_bits=12)

    geometry = {"stride": (stride, stride), "padding": (padding, padding), "groups": groups}
    second = Conv2d(name="c2", inputs=("s1",), weight=weights(4, 6 // groups, 3, 2), bias=np.zeros(4, int), **geometry)  # type: ignore[arg-type]
    nodes: list[Node] = [
        Input(name="x", shape=(2, 6, 5), high=1, static=False),
        Conv2d(name="c1", inputs=("x",), weight=weights(6, 2, 3, 3), bias=np.zeros(6, int), padding=(1, 1)),
        neurons("s1", "c1"),
        second,
        neurons("s2", "c2"),
        Flatten(name="f", inputs=("s2",)),
    ]
    features = Graph(nodes=tuple(nodes), timesteps=3, stage=Stage.LEGAL).shapes["f"][0]
    nodes += [
        Linear(name="r", inputs=("f",), weight=weights(3, features), bias=np.zeros(3, int)),
        Output(name="y", inputs=("r",)),
    ]
    return Graph(nodes=tuple(nodes), timesteps=3, stage=Stage.LEGAL)


Spot = tuple[int, ...]


def core_of(mapping: Mapping, name: str) -> dict[Spot, int]:
    """Number of the core of each neuron of a layer."""
    first = 0
    for layer in mapping.layers:
        if layer.name == name:
            inside = [[range(*s.indices(n)) for s, n in zip(t, layer.shape, strict=True)] for t in _tiles(layer)]
            return {spot: first + index for index, sides in enumerate(inside) for spot in product(*sides)}
        first += layer.cores
    raise AssertionError(name)


def _tiles(layer: LayerMapping) -> list[tuple[slice, slice, slice]]:
    return list(tiles(layer.shape, layer.cut))


def readers(layer: Linear | Conv2d, spot: Spot, source: Spot, shape: Spot) -> list[Spot]:
    """Outputs that read one input by a weight that is not zero, one entry for each."""
    if isinstance(layer, Linear):
        weights = layer.weight[:, int(np.ravel_multi_index(spot, source))]
        return [(int(output), 0, 0) for output in np.flatnonzero(weights)]
    each = layer.weight.shape[1]
    found: list[Spot] = []
    for output in range(shape[0]):
        channel = spot[0] - output * layer.groups // shape[0] * each
        for row, column in product(*map(range, layer.weight.shape[2:])):
            y, down = divmod(spot[1] + layer.padding[0] - row, layer.stride[0])
            x, right = divmod(spot[2] + layer.padding[1] - column, layer.stride[1])
            inside = 0 <= channel < each and 0 <= y < shape[1] and 0 <= x < shape[2]
            if inside and not down and not right and layer.weight[output, channel, row, column]:
                found.append((output, y, x))
    return found


def by_hand(graph: Graph, inputs: Array, mapping: Mapping, source: str, layer: Linear | Conv2d, name: str) -> Placed:
    """Every spike of `source` followed to the cores that read it."""
    assert mapping.resources.mesh is not None
    fires = simulate(graph, inputs).spikes[source].astype(int).sum(axis=(0, 1))
    shape, target = (*graph.shapes[source], 1, 1)[:3], (*graph.shapes[layer.name], 1, 1)[:3]
    sends, reads = core_of(mapping, source), core_of(mapping, name)
    messages = east_west = north_south = 0
    fires = fires.reshape(shape)
    work: dict[int, int] = dict.fromkeys(reads.values(), 0)
    for spot in product(*map(range, shape)):
        fired = int(fires[spot])
        reached = [reads[one] for one in readers(layer, spot, shape, target)]
        for core in reached:
            work[core] += fired
        for core in set(reached):
            wide, tall = mapping.resources.mesh.distance(sends[spot], core)
            messages, east_west, north_south = messages + fired, east_west + fired * wide, north_south + fired * tall
    most = max(work.values())
    sizes = [list(reads.values()).count(core) for core, done in work.items() if done == most]
    cores = len(set(reads.values()))
    return Placed(name, source, cores, len(reads), most, max(sizes), messages, east_west, north_south)


@pytest.mark.parametrize(
    ("seed", "stride", "padding", "groups", "neurons"),
    [(0, 1, 1, 1, 40), (1, 2, 0, 1, 12), (2, 1, 0, 2, 25), (3, 2, 1, 2, 17), (4, 1, 2, 1, 50)],
)
def test_messages_hops_and_work_are_those_of_every_spike(
    seed: int, stride: int, padding: int, groups: int, neurons: int
) -> None:
    graph = network(seed, stride, padding, groups)
    inputs = np.random.default_rng(seed).integers(0, 2, (3, 4, 2, 6, 5))
    mapping = map_network(graph, small_cores(neurons))
    assert mapping is not None
    found = {one.name: one for one in place(graph, count(graph, inputs), mapping)}
    assert found["s1"].source is None
    assert found["s2"].cores > 1
    for name, source, layer in (("s2", "s1", "c2"), ("r", "s2", "r")):
        node = graph[layer]
        assert isinstance(node, Linear | Conv2d)
        assert found[name] == by_hand(graph, inputs, mapping, source, node, name)
        assert found[name].messages > 0


def test_the_busiest_core_does_its_part_of_the_synops_and_all_of_them_if_alone() -> None:
    graph = network(0, 1, 1, 1)
    inputs = np.random.default_rng(0).integers(0, 2, (3, 4, 2, 6, 5))
    counts, mapping = count(graph, inputs), map_network(graph, LOIHI)
    assert mapping is not None
    layers = {one.name: one for one in place(graph, counts, mapping)}
    synapses = {layer.name: layer for layer in counts.synapses()}
    assert layers["s2"].busiest_synops == synapses["c2"].synops_nonzero
    assert layers["r"].messages == synapses["r"].events_in - _unread(graph, counts.events["r"])


def _unread(graph: Graph, events: Array) -> int:
    """Events that no weight other than zero reads."""
    readout = graph["r"]
    assert isinstance(readout, Linear)
    return int(events[~readout.weight.any(axis=0)].sum())


def test_a_chip_without_a_published_mesh_has_messages_and_no_hops() -> None:
    graph = network(0, 1, 1, 1)
    inputs = np.random.default_rng(0).integers(0, 2, (3, 4, 2, 6, 5))
    mapping = map_network(graph, load_target("loihi2"))
    assert mapping is not None
    found = as_dict(mapping, place(graph, count(graph, inputs), mapping))
    assert (found["mesh"], found["hops"]) == (None, None)
    assert found["messages"] > 0
    assert {one["hops_east_west"] for one in found["layers"]} == {None}
