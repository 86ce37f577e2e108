"""Cores counted by hand, at each limit and one beyond it; and tiles counted by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.ir import Add, Conv2d, Graph, Input, Linear, Neuron, Node, Output, Shape, Stage
from snnkd_deploy.mapping import LayerMapping, Mapping, map_network
from snnkd_deploy.target import Target, load_target

LOIHI, LOIHI2 = load_target("loihi"), load_target("loihi2")
PLENTY = 10**9


def with_limits(target: Target = LOIHI, **limits: Any) -> Target:
    """The target with room for everything but what is given."""
    assert target.resources is not None
    room = {f"{limit}_per_core": PLENTY for limit in ("neurons", "synapse_bits", "input_axons", "output_axons")}
    return replace(target, resources=replace(target.resources, **{**room, **limits}))


def chain(*layers: Linear | Conv2d, shape: Shape) -> Graph:
    nodes: list[Node] = [Input(name="x", shape=shape, high=1)]
    for index, layer in enumerate(layers):
        nodes.append(replace(layer, name=f"w{index}", inputs=(nodes[-1].name,)))
        nodes.append(Neuron(name=f"s{index}", inputs=(f"w{index}",), decay=1.0, threshold=np.asarray(5), decay_bits=12))
    last = nodes.pop().inputs[0]
    return Graph(nodes=(*nodes, Output(name="y", inputs=(last,))), timesteps=2, stage=Stage.LEGAL)


def dense(out: int, into: int, weight: int = 100, **other: Any) -> Linear:
    return Linear(name="", inputs=(), weight=np.full((out, into), weight), bias=np.zeros(out, np.int64), **other)


def conv(out: int, into: int, stride: int = 1, **other: Any) -> Conv2d:
    weight, bias = np.full((out, into, 3, 3), 100), np.zeros(out, np.int64)
    geometry = {"weight": weight, "stride": (stride, stride), "padding": (1, 1), **other}
    return Conv2d(name="", inputs=(), bias=bias, **geometry)


def mapped(graph: Graph, target: Target) -> Mapping:
    found = map_network(graph, target)
    assert found is not None
    return found


def only(graph: Graph, target: Target) -> LayerMapping:
    return mapped(graph, target).layers[0]


@pytest.mark.parametrize(
    ("limit", "room", "graph", "cores", "filled"),
    [
        # 4 channels of 8 x 8: four tiles of 64, or where 63 fit six of 4 x 4 x 3 = 48
        ("neurons", 64, chain(conv(4, 2), shape=(2, 8, 8)), 4, 1.0),
        ("neurons", 63, chain(conv(4, 2), shape=(2, 8, 8)), 6, 48 / 63),
        # ten axons of 20 synapses: 20 * 8 + 10 = 170 bits, three words of 64; halved, 10 * 8 + 10 = 90, two words
        ("synapse_bits", 1920, chain(dense(20, 10), shape=(10,)), 1, 1.0),
        ("synapse_bits", 1919, chain(dense(20, 10), shape=(10,)), 2, 1280 / 1919),
        # 65 synapses: a block of 64, 522 bits in nine words, and one of 1, 18 bits in one word
        ("synapse_bits", 640, chain(dense(65, 1), shape=(1,)), 1, 1.0),
        ("synapse_bits", 639, chain(dense(65, 1), shape=(1,)), 2, 320 / 639),
        # 2 x 8 x 8 inputs; half the rows read 4 + 2 of 8
        ("input_axons", 128, chain(conv(4, 2), shape=(2, 8, 8)), 1, 1.0),
        ("input_axons", 127, chain(conv(4, 2), shape=(2, 8, 8)), 2, 96 / 127),
        # with a stride of 2, two of four rows read (2 - 1) * 2 + 3 = 5 of 8; one row reads 3
        ("input_axons", 80, chain(conv(4, 2, stride=2), shape=(2, 8, 8)), 2, 1.0),
        ("input_axons", 79, chain(conv(4, 2, stride=2), shape=(2, 8, 8)), 4, 48 / 79),
        # the readout is read by the host: one axon a neuron
        ("output_axons", 20, chain(dense(20, 10), shape=(10,)), 1, 1.0),
        ("output_axons", 19, chain(dense(20, 10), shape=(10,)), 2, 10 / 19),
    ],
)
def test_cores_at_each_limit_and_one_beyond(limit: str, room: int, graph: Graph, cores: int, filled: float) -> None:
    layer = only(graph, with_limits(LOIHI, **{f"{limit}_per_core": room}))
    assert layer.cores == cores
    assert (layer.binding, layer.filled) == (limit, filled)


def test_a_neuron_needs_an_axon_for_every_core_that_reads_it() -> None:
    graph = chain(dense(20, 10), dense(8, 20), shape=(10,))
    two, one = (mapped(graph, with_limits(neurons_per_core=room)).layers for room in (4, 10))
    assert [layer.cores for layer in two] == [5, 2]
    assert [layer.tile.output_axons for layer in two] == [4 * 2, 4]
    assert [layer.cores for layer in one] == [2, 1]
    assert [layer.tile.output_axons for layer in one] == [10, 8]
    fewer = mapped(graph, with_limits(neurons_per_core=4, output_axons_per_core=7)).layers
    assert [layer.cores for layer in fewer] == [7, 2]


def test_pixels_at_the_rim_of_a_tile_are_sent_to_both() -> None:
    layers = mapped(chain(conv(2, 1), conv(4, 2), shape=(1, 8, 8)), with_limits(input_axons_per_core=96)).layers
    assert [tuple(layer.cut) for layer in layers] == [(1, 1, 1), (1, 1, 2)]
    assert layers[1].tile.input_axons == 2 * 8 * 6
    assert layers[0].tile.output_axons == 2 * 64 * 2


@pytest.mark.parametrize(("largest", "bits"), [(7, 4), (8, 5), (31, 6), (32, 8), (127, 8)])
def test_weights_take_the_smallest_width_that_holds_them(largest: int, bits: int) -> None:
    layer = only(chain(dense(64, 1, largest), shape=(1,)), with_limits())
    assert layer.tile.synapse_bits == -(-(64 * bits + 10) // 64) * 64


def test_loihi_2_stores_a_kernel_once_and_a_matrix_in_full() -> None:
    graph = chain(conv(4, 2), Conv2d(name="", inputs=(), weight=np.full((3, 4, 8, 8), 9), bias=np.zeros(3, np.int64)),
                  shape=(2, 8, 8))  # fmt: skip
    first, second = mapped(graph, LOIHI2).layers
    assert first.tile.synapse_bits == 4 * 2 * 9 * 8
    assert first.synapses == 4 * 2 * 9 * 64
    assert second.tile.synapse_bits == 3 * 4 * 64 * 8
    assert only(chain(dense(20, 10), shape=(10,)), LOIHI2).tile.synapse_bits == 20 * 10 * 8
    assert first.binding == "neurons"


def test_zero_weights_are_not_stored_and_groups_read_their_own_channels() -> None:
    graph = chain(conv(4, 4, weight=np.full((4, 1, 3, 3), 100), groups=4), shape=(4, 8, 8))
    layer = only(graph, with_limits(neurons_per_core=64))
    assert tuple(layer.cut) == (4, 1, 1)
    assert (layer.tile.input_axons, layer.tile.synapses) == (64, 9 * 64)
    sparse = dense(20, 10)
    sparse.weight[:, 5:] = 0
    assert only(chain(sparse, shape=(10,)), with_limits()).tile.input_axons == 5


def test_what_the_host_computes_takes_no_synapses() -> None:
    layers = mapped(chain(dense(20, 10, placement="host"), dense(3, 20), shape=(10,)), LOIHI).layers
    assert (layers[0].neurons, layers[0].synapses, layers[0].tile.input_axons) == (20, 0, 0)
    assert layers[1].synapses == 60


def test_neurons_that_read_the_input_take_no_synapses_and_counted_spikes_no_readout() -> None:
    base = chain(dense(20, 10), dense(3, 20), shape=(10,))
    pixels = Neuron(name="pixels", inputs=(base.input.name,), decay=1.0, threshold=np.asarray(3), decay_bits=12)
    rest = [replace(node, inputs=("pixels",)) if node.name == "w0" else node for node in base.nodes[1:-1]]
    last = replace(base.of(Neuron)[0], name="counted", inputs=(rest[-1].name,))
    nodes = (base.input, pixels, *rest, last, replace(base.output, inputs=("counted",)))
    layers = mapped(replace(base, nodes=nodes), LOIHI).layers
    assert [(one.name, one.neurons, one.synapses) for one in layers] == [
        ("pixels", 10, 0),
        ("s0", 20, 200),
        ("counted", 3, 60),
    ]


def test_a_layer_that_fits_nowhere_is_named_with_advice() -> None:
    found = mapped(chain(dense(2, 10), dense(3, 2), shape=(10,)), with_limits(input_axons_per_core=9))
    assert not found.fits
    assert found.layers[0].filled == 10 / 9
    assert found.advice() == [
        "s0: one core for each neuron is still too small, by its input axons; fewer channels in front of this layer "
        "(--width)"
    ]
    assert found.summary() == "does not fit, see mapping"


@pytest.mark.parametrize(("a_chip", "chips"), [(5, 1), (4, 1), (3, 2), (1, 4)])
def test_chips_are_filled_one_after_the_other(a_chip: int, chips: int) -> None:
    found = mapped(chain(conv(4, 2), shape=(2, 8, 8)), with_limits(neurons_per_core=64, cores_per_chip=a_chip))
    assert (found.cores, found.chips) == (4, chips)
    assert bool(found.advice()) is (chips > 1)
    assert all("takes 4 of 4 cores, bound by its neurons; fewer channels" in line for line in found.advice())


def test_the_whole_is_the_sum_of_its_layers_and_json() -> None:
    found = mapped(chain(conv(4, 2), conv(8, 4, stride=2), shape=(2, 8, 8)), with_limits(neurons_per_core=64))
    as_dict = found.as_dict()
    assert as_dict["cores"] == sum(layer["cores"] for layer in as_dict["layers"]) == 6
    assert as_dict["utilisation"]["neurons"] == 1.0
    assert as_dict["layers"][0]["cut"] == {"channels": 1, "rows": 1, "columns": 4}
    assert as_dict["estimate"] is True
    assert found.summary().startswith("6 cores on 1 chip; used of their neurons 100%")
    assert mapped(chain(dense(3, 2), shape=(2,)), LOIHI2).utilisation("input_axons") is None


def test_formats_and_networks_with_branches_have_no_mapping() -> None:
    row = chain(dense(3, 2), shape=(2,))
    assert map_network(row, load_target("onnx")) is None
    twice = Add(name="a", inputs=("w0", "w0"))
    branched = replace(row, nodes=(*row.nodes[:-1], twice, replace(row.nodes[-1], inputs=("a",))))
    assert map_network(branched, LOIHI) is None


@pytest.mark.parametrize("seed", range(12))
def test_no_tile_needs_more_than_its_estimate(seed: int) -> None:
    """Each tile's inputs and connections, one by one; somewhere inside, the estimate of inputs is exact."""
    random = np.random.default_rng(seed)
    size, stride, pad = int(random.integers(1, 4)), int(random.integers(1, 3)), int(random.integers(0, 2))
    weight = random.integers(-1, 2, (5, 3, size, size)) * 9
    layer = Conv2d(name="", inputs=(), weight=weight, bias=np.zeros(5, np.int64), stride=(stride, stride),
                   padding=(pad, pad))  # fmt: skip
    found = only(chain(layer, shape=(3, 9, 8)), with_limits(neurons_per_core=int(random.integers(2, 30))))
    counted = [tile(layer, found, place) for place in product(*map(range, found.cut))]
    assert sum(neurons for neurons, _, _ in counted) == found.neurons
    for index, field in enumerate(("neurons", "synapses", "input_axons")):
        assert max(one[index] for one in counted) <= getattr(found.tile, field)
    assert max(neurons for neurons, _, _ in counted) == found.tile.neurons


def tile(layer: Conv2d, found: LayerMapping, place: tuple[int, ...]) -> tuple[int, int, int]:
    """Neurons, connections and inputs of one tile, by brute force."""
    sides = [-(-size // parts) for size, parts in zip(found.shape, found.cut, strict=True)]
    spans = [
        range(k * side, min((k + 1) * side, size)) for k, side, size in zip(place, sides, found.shape, strict=True)
    ]
    read, connections = set(), 0
    for out, row, column in product(*spans):
        for into, down, right in product(*map(range, layer.weight.shape[1:])):
            y, x = row * layer.stride[0] + down - layer.padding[0], column * layer.stride[1] + right - layer.padding[1]
            if layer.weight[out, into, down, right] and 0 <= y < 9 and 0 <= x < 8:
                read.add((into, y, x))
                connections += 1
    return len(spans[0]) * len(spans[1]) * len(spans[2]), connections, len(read)
